"""One layer of the entropy network in exact integers, and the bound that makes float arithmetic exact.

Numbers are integers held in a float tensor: activations in units of 2^-5, weights in units of 2^-8,
sums in units of 2^-13. Float addition and multiplication of integers are exact, in any order, with
or without fused multiply-add, on any device, while every partial sum stays below 2^24 in magnitude.
`Layer` refuses weights for which that is not certain. What must not happen is a reduced-precision
product: `Model.entropy` guards against it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from ..errors import WeightsError
from ..networks.tensors import expected_tensor

WEIGHT_BITS = 8  # fraction bits of weights
ACTIVATION_BITS = 5  # fraction bits of activations and of every input
LOGIT_BITS = 4  # fraction bits of logits
ONE = 1 << ACTIVATION_BITS  # the number 1.0 as an activation
CEILING = 127  # activations are 0..127: [0, 4)
LOGIT_MAX = 128  # logits are -128..128: [-8, 8]
LEVEL_UNIT = ONE // 4  # one importance level as a network input
EXACT = 1 << 24  # float32 holds every integer up to here

TO_ACTIVATION = WEIGHT_BITS  # shift from a sum to an activation
TO_LOGIT = WEIGHT_BITS + ACTIVATION_BITS - LOGIT_BITS  # shift from a sum to a logit


def accumulator_bound(weight: Tensor, bias: Tensor, limits: Tensor, shift: int) -> float:
    """Largest magnitude that any partial sum can reach, in any order of summation.

    weight [in,out] and bias [...,out] integers; limits [in]: the largest |input| of every column.
    """
    reach = (weight.double().abs() * limits.double()[:, None]).sum(0)  # [out]
    return float(
        (reach + bias.double().abs().reshape(-1, weight.shape[1]).amax(0)).max()
    ) + 2.0 ** (shift - 1)


class Layer:
    """`clamp(floor((x @ weight + bias + half) / 2^shift), low, high)` in integers."""

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor,
        limits: Sequence[int],
        shift: int,
        dtype: torch.dtype,
    ) -> None:
        """weight [in,out] int16, bias [...,out] int32: where it has leading axes, the caller picks a row.

        Types and shapes are checked by whoever reads them from a file.
        """
        self.bound = accumulator_bound(weight, bias, torch.tensor(limits), shift)
        if self.bound >= EXACT:
            raise WeightsError(
                f"entropy.{name}: sums may reach {self.bound:.0f}, beyond exact arithmetic "
                f"({EXACT})"
            )
        self.weight = weight.to(dtype).contiguous()
        self.bias = (bias.double() + 2.0 ** (shift - 1)).to(
            dtype
        )  # half added once: floor then rounds
        self.scale = 2.0**-shift
        self.low, self.high = (-LOGIT_MAX, LOGIT_MAX) if shift == TO_LOGIT else (0, CEILING)

    def __call__(
        self, x: Tensor, bias_row: tuple[int, ...] = (), first: Tensor | None = None
    ) -> Tensor:
        """x [m,in] -> [m,out].

        The first inputs may come apart in `first` [m,k]; left out, they are zero.
        """
        rest = self.weight.shape[0] - x.shape[1]
        total = torch.addmm(self.bias[bias_row], x, self.weight[rest:])
        if first is not None:
            total.addmm_(first, self.weight[:rest])
        return total.mul_(self.scale).floor_().clamp_(self.low, self.high)

    def part(self, rows: Tensor | None = None, columns: Tensor | None = None) -> Self:
        """The same layer with only some of its inputs, the others being zero, or only some of its outputs."""
        part = copy.copy(self)
        if rows is not None:
            part.weight = part.weight[rows]
        if columns is not None:
            part.weight, part.bias = part.weight[:, columns].contiguous(), part.bias[..., columns]
        return part


def level_input(level: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Levels, any shape -> centred network input in activation units."""
    return ((level - levels // 2) * LEVEL_UNIT).to(dtype)


class IntegerWeights:
    """Reads the `entropy.*` tensors of a weights file, refusing what is missing, misshapen or out of range."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.tensors, self.dtype = tensors, dtype
        self.bounds: dict[str, float] = {}

    def table(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...], limits: tuple[int, int]
    ) -> Tensor:
        """A table by its name without the prefix `entropy.`, int64.

        `limits` are the least and the largest value.
        """
        values = expected_tensor(self.tensors, f"entropy.{name}", dtype, shape).long()
        wrong = values[(values < limits[0]) | (values > limits[1])]
        if len(wrong):
            raise WeightsError(
                f"entropy.{name} holds {int(wrong[0])}, expected {limits[0]} to {limits[1]}"
            )
        return values

    def layer(
        self,
        name: str,
        limits: list[int],
        width: int,
        shift: int = TO_ACTIVATION,
        rows: tuple[int, ...] = (),
    ) -> Layer:
        """The layer `name` of inputs up to `limits` in magnitude, `width` outputs, and bias [*rows,width]."""
        weight = expected_tensor(
            self.tensors, f"entropy.{name}.weight", torch.int16, (len(limits), width)
        )
        bias = expected_tensor(self.tensors, f"entropy.{name}.bias", torch.int32, (*rows, width))
        layer = Layer(name, weight, bias, limits, shift, self.dtype)
        self.bounds[name] = layer.bound
        return layer
