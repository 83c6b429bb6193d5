"""One layer of the entropy network in exact integers, and why float arithmetic is exact.

Numbers are integers held in a float array: activations in units of 2^-5, weights in units of
2^-8, sums in units of 2^-13. Float addition and multiplication of integers are exact, in any
order, with or without fused multiply-add, on any device, while every partial sum stays below 2^24
in magnitude. `Layer` refuses weights for which that is not certain. What must not happen is a
product of reduced precision: `exact_dtype` looks for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from ..errors import WeightsError
from ..networks.tensors import expected_tensor
from ..runtime.blas import matmul

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

WEIGHT_BITS = 8  # fraction bits of weights
ACTIVATION_BITS = 5  # fraction bits of activations and of every input
LOGIT_BITS = 4  # fraction bits of logits
ONE = 1 << ACTIVATION_BITS  # the number 1.0 as an activation
CEILING = 127  # activations are 0..127: [0, 4)
LOGIT_MAX = 128  # logits are -128..128: [-8, 8]
LEVEL_UNIT = ONE // 4  # one importance level as a network input
EXACT = 1 << 24  # float32 holds every integer up to here


class Output(NamedTuple):
    """What becomes of a layer's sums: how far they are shifted, and between which limits."""

    shift: int
    low: int
    high: int


ACTIVATION = Output(WEIGHT_BITS, 0, CEILING)
LOGIT = Output(WEIGHT_BITS + ACTIVATION_BITS - LOGIT_BITS, -LOGIT_MAX, LOGIT_MAX)


Dtype = type[np.float32] | type[np.float64]


def exact_dtype(matmul: Callable[[Floats, Floats], Floats] = matmul) -> Dtype:
    """float32 where this BLAS multiplies and adds all 24 bits of it, else float64.

    Tried on sums just below 2^24, which products or sums of fewer bits, as those of bfloat16,
    TF32 or float16, cannot give.
    """
    x = np.arange(64 * 256).reshape(64, 256) * 37 % CEILING + 1
    weight = np.arange(256 * 48).reshape(256, 48) * 53 % 997 + 1
    total = x @ weight  # of integers: no BLAS
    missing = EXACT - 1 - total.max(1)  # [64]
    x = np.column_stack([x, missing])  # [64,257]
    weight = np.vstack([weight, np.ones((1, 48), np.int64)])  # [257,48]
    product = matmul(x.astype(np.float32), weight.astype(np.float32))
    return np.float32 if np.array_equal(product, total + missing[:, None]) else np.float64


def accumulator_bound(
    weight: NDArray[Any], bias: NDArray[Any], limits: Sequence[int], shift: int
) -> float:
    """The largest of `reach_of_sums`."""
    return float(reach_of_sums(weight, bias, limits, shift).max())


def reach_of_sums(
    weight: NDArray[Any], bias: NDArray[Any], limits: Sequence[int], shift: int
) -> NDArray[np.float64]:
    """Largest magnitude that any partial sum can reach, in any order of summation, [out].

    weight [in,out] and bias [...,out] integers; limits [in]: the largest |input| of every row.
    """
    magnitude = weight.astype(np.float64)
    np.abs(magnitude, out=magnitude)
    reach = np.einsum("i,io->o", np.array(limits, np.float64), magnitude)  # [out]
    start = np.abs(bias.astype(np.float64)).reshape(-1, weight.shape[1]).max(0)  # [out]
    return np.asarray(reach + start + 2.0 ** (shift - 1))


def rounded(total: Floats, output: Output, out: Floats | None = None) -> Floats:
    """What a layer gives for its sums, in their place or in `out`."""
    np.floor(total, out=total)
    return total.clip(output.low, output.high, out=total if out is None else out)


class _Scaled:
    """Weight and bias as what they are after the shift, and the bound of the sums.

    A power of two changes no digit of a number, so sums are as exact as those of the integers.
    """

    def __init__(
        self,
        name: str,
        weight: NDArray[np.int16],
        bias: NDArray[np.int32],
        limits: Sequence[int],
        output: Output = ACTIVATION,
        *,
        dtype: Dtype,
    ) -> None:
        """weight [in,out]; bias [...,out]: where it has leading axes, the caller picks a row.

        limits [in]: the largest |input| of every row. WeightsError where a sum could be inexact.
        """
        self.bound = accumulator_bound(weight, bias, limits, output.shift)
        if self.bound >= EXACT:
            sums = f"sums may reach {self.bound:.0f}, beyond exact arithmetic ({EXACT})"
            raise WeightsError(f"entropy.{name}: {sums}")
        scale = 2.0**-output.shift
        self.output = output
        self.weight: Floats = weight.astype(dtype)
        self.weight *= scale
        self.bias: Floats = (bias * scale + 0.5).astype(dtype)  # half added once: floor then rounds


class Layer(_Scaled):
    """`clamp(floor((x @ weight + bias + half) / 2^shift), low, high)` in integers."""

    def __call__(
        self, x: Floats, bias_row: tuple[int, ...] = (), out: Floats | None = None
    ) -> Floats:
        """x [m,in] -> [m,out], into the memory `out` if there is one."""
        total = matmul(x, self.weight, out)  # [m,out]
        total += self.bias[bias_row]
        return rounded(total, self.output)


class DepthwiseLayer(_Scaled):
    """A 3x3 layer in which every feature sees only itself: weight [9,c], bias [c]."""

    def __call__(self, padded: Floats, out: Floats) -> Floats:
        """A map with a border of zeros, [h+2,w+2,c] -> out [h,w,c], contiguous memory."""
        padded = np.ascontiguousarray(padded)
        height, width, channels = padded.shape[0] - 2, padded.shape[1] - 2, padded.shape[2]
        row, column, item = padded.strides
        shape = (height, 3, 3, width * channels)
        taps = as_strided(padded, shape, (row, row, column, item), writeable=False)
        # Rows of the map as one axis: long runs, in each of which products add up in one pass.
        weight = np.tile(self.weight.reshape(3, 3, channels), width)  # [3,3,w*c]
        total = out.reshape(height, -1)  # [h,w*c]
        np.einsum("hyxr,yxr->hr", taps, weight, out=total)
        total += np.tile(self.bias, width)
        rounded(total, self.output)
        return out


class IntegerWeights:
    """Reads `entropy.*` tensors, refusing what is missing, misshapen or out of range."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], dtype: Dtype) -> None:
        self.tensors = tensors
        self.dtype = dtype
        self.bounds: dict[str, float] = {}

    def table(
        self, name: str, dtype: DTypeLike, shape: tuple[int, ...], limits: tuple[int, int]
    ) -> Integers:
        """A table by its name without `entropy.`; `limits`: the least and the largest value."""
        values = expected_tensor(self.tensors, f"entropy.{name}", dtype, shape).astype(np.int64)
        wrong = values[(values < limits[0]) | (values > limits[1])]
        if len(wrong):
            raise WeightsError(
                f"entropy.{name} holds {wrong[0]}, expected {limits[0]} to {limits[1]}"
            )
        return values

    def layer(
        self,
        name: str,
        limits: Sequence[int],
        width: int,
        output: Output = ACTIVATION,
        *,
        rows: tuple[int, ...] = (),
    ) -> Layer:
        """The layer `name` of inputs up to `limits`, `width` outputs, and bias [*rows,width]."""
        weight, bias = self._stored(name, len(limits), width, rows)
        layer = Layer(name, weight, bias, limits, output, dtype=self.dtype)
        self.bounds[name] = layer.bound
        return layer

    def depthwise(self, name: str, width: int) -> DepthwiseLayer:
        """The depthwise layer `name` on `width` features."""
        weight, bias = self._stored(name, 9, width, ())
        layer = DepthwiseLayer(name, weight, bias, [CEILING] * 9, dtype=self.dtype)
        self.bounds[name] = layer.bound
        return layer

    def _stored(
        self, name: str, inputs: int, width: int, rows: tuple[int, ...]
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        weight = expected_tensor(self.tensors, f"entropy.{name}.weight", np.int16, (inputs, width))
        bias = expected_tensor(self.tensors, f"entropy.{name}.bias", np.int32, (*rows, width))
        return weight, bias
