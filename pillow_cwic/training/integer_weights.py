"""The trained entropy networks -> integer tensors of a weights file (docs/format.md, section 5).

Weights go to a grid of 2^-8 and biases to 2^-13, the units of `entropy.integer_layer`. Invariant:
an export gives the same file on every machine, so rounding happens in float64 and the tables in
decimal arithmetic. This module knows weights, no pictures.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..entropy import order
from ..entropy.code_coder import input_limits
from ..entropy.integer_layer import (
    ACTIVATION,
    ACTIVATION_BITS,
    EXACT,
    LOGIT_BITS,
    LOGIT_MAX,
    WEIGHT_BITS,
    reach_of_sums,
)
from ..entropy.ladder import UNIT, table_size
from ..entropy.logistic import FIRST_LOG_SCALE, LAST_LOG_SCALE, SCALES, TABLE_BITS
from ..networks.config import ModelConfig
from ..runtime.devices import NUMPY
from ..weights.cache import hash_file
from ..weights.file import read_model, write_model
from .code_network import ContextNetwork, StepNetwork
from .joint_codec import JointCodec
from .map_network import MapNetwork

IntegerType = type[np.int16] | type[np.int32]
Tensors = dict[str, NDArray[Any]]

SUM_BITS = WEIGHT_BITS + ACTIVATION_BITS
"""Fraction bits of a bias, as of the sum of products that it is added to."""


def probability_table() -> NDArray[np.uint16]:
    """P(bit = 1) * 65536 for every logit -128..128 in steps of 1/16, [257], clipped to 32..65504.

    `Decimal.exp` is correctly rounded; `math.exp` differs between C libraries.
    """
    values = []
    for v in range(-LOGIT_MAX, LOGIT_MAX + 1):
        p = 65536 / (1 + (Decimal(-v) / 2**LOGIT_BITS).exp())
        values.append(min(max(int(p.to_integral_value()), 32), 65536 - 32))
    return np.array(values, np.uint16)


def on_grid(x: Tensor, bits: int, dtype: IntegerType) -> NDArray[Any]:
    """x on the grid 2^-bits as integers; OverflowError where they do not fit the type."""
    scaled = np.rint(x.detach().cpu().double().numpy() * 2**bits)
    limits = np.iinfo(dtype)
    if scaled.size and (scaled.min() < limits.min or scaled.max() > limits.max):
        largest = f"a weight of {x.abs().max().item():.3g}"
        raise OverflowError(f"{largest} does not fit {limits.dtype} at {bits} fraction bits")
    return np.ascontiguousarray(scaled, dtype)


def as_matrix(weight: Tensor) -> Tensor:
    """Convolution weight [out,in,kh,kw] -> matrix [kh*kw*in,out] in the order of `squares`."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def layer_tensors(name: str, weight: Tensor, bias: Tensor) -> Tensors:
    """The two tensors of one integer layer from a matrix [in,out] and a bias [...,out]."""
    return {
        f"entropy.{name}.weight": on_grid(weight, WEIGHT_BITS, np.int16),
        f"entropy.{name}.bias": on_grid(bias, SUM_BITS, np.int32),
    }


def within_exact_sums(
    weight: NDArray[Any], bias: NDArray[Any], limits: Sequence[int]
) -> NDArray[Any]:
    """Weights [in,out] whose sums stay exact: where they might not, an output's go nearer to 0.

    All by as many units as it takes: the nearest ones whose magnitudes add up to less (projection
    on an L1 ball). No weights help where a bias alone is too large: it is left to the loader's
    check.
    """
    weight = weight.copy()
    while True:
        beyond = reach_of_sums(weight, bias, limits, ACTIVATION.shift) >= EXACT
        beyond &= weight.any(0)
        if not beyond.any():
            return weight
        weight[:, beyond] -= np.sign(weight[:, beyond])


def integer_map(net: MapNetwork) -> Tensors:
    """The importance map's network; conv1's bias has one row per quality index and stage."""
    by_quality = net.conv1.bias + net.quality.weight[:, None]  # type: ignore[operator]
    bias1 = by_quality + net.stage.weight  # [Q,7,width]
    coarsest = on_grid(net.coarsest.weight, LOGIT_BITS, np.int16).clip(-LOGIT_MAX, LOGIT_MAX)
    out = {"entropy.maps.coarsest": coarsest}
    out |= layer_tensors("maps.conv1", as_matrix(net.conv1.weight), bias1)
    for name in ("conv2", "conv3", "out"):
        conv = getattr(net, name)
        out |= layer_tensors(f"maps.{name}", as_matrix(conv.weight), conv.bias)
    return out


@cache
def logistic_table(ladder: int) -> NDArray[np.int32]:
    """P(x > mean + d/16) in units of 2^-30 by scale index and distance d, [SCALES,table_size].

    In decimal arithmetic, so that every machine makes the same table: each row is a geometric
    series of exp(-1/16s).
    """
    size = table_size(ladder)
    span = Decimal(LAST_LOG_SCALE - FIRST_LOG_SCALE)
    table = []
    with localcontext() as context:
        context.prec = 40  # digits: far beyond the 30 bits of an entry
        for index in range(SCALES):
            scale = (FIRST_LOG_SCALE + span * index / (SCALES - 1)).exp()
            table.append(_table_row(scale, size))
    return np.array(table, np.int32)


def _table_row(scale: Decimal, size: int) -> list[int]:
    """One row of the table, in the precision of the caller's context."""
    ratio = (-1 / (UNIT * scale)).exp()
    power = Decimal(1)  # exp(-d / 16s)
    row = []
    for _ in range(size):
        row.append(int((2**TABLE_BITS * power / (1 + power)).to_integral_value()))
        power *= ratio
    return row


def integer_step(net: StepNetwork, step: int, config: ModelConfig) -> Tensors:
    """One step of the codes' network; the first knows no codes."""
    # The first layer's inputs as the coder looks them up: level, place, map, known codes.
    name = f"planes.{step}"
    tables = [net.level.weight, net.cell.weight, net.map_out.weight[:, :, 0, 0].t()]
    if step:
        tables.append(net.known.weight[:, :, 0, 0].t())
    bias = net.quality.weight + net.known.bias  # type: ignore[operator]  # [Q,width]
    out = layer_tensors(f"{name}.hidden", torch.cat(tables), bias)
    weight_name = f"entropy.{name}.hidden.weight"
    out[weight_name] = within_exact_sums(
        out[weight_name], out[f"entropy.{name}.hidden.bias"], input_limits(config, step)
    )

    # Depthwise layers have a row for each tap, pointwise ones a row for each input.
    for number, (depth, mid) in enumerate(net.layers(), 1):
        taps = depth.weight[:, 0].flatten(1).t()  # [9,width]
        out |= layer_tensors(f"{name}.depth{number}", taps, depth.bias)  # type: ignore[arg-type]
        out |= layer_tensors(f"{name}.mid{number}", as_matrix(mid.weight), mid.bias)  # type: ignore[arg-type]

    # Each place in the cell codes channels of its own in this step.
    weight = as_matrix(net.out.weight)  # [width,2n]
    n = net.out.out_channels // 2
    for place, channels in enumerate(order.channels(step, n)):
        columns = np.concatenate([channels, n + channels])  # means and scales
        place_bias = net.out.bias[columns]  # type: ignore[index]
        out |= layer_tensors(f"{name}.out{place}", weight[:, columns], place_bias)
    return out


def integer_weights(codes: ContextNetwork, maps: MapNetwork, config: ModelConfig) -> Tensors:
    """All `entropy.*` tensors of a weights file."""
    tables: Tensors = {
        "entropy.probability": probability_table(),
        "entropy.logistic": logistic_table(config.ladder),
    }
    out = tables | integer_map(maps)
    for name, conv in (("map_in", codes.map_in), ("map_mid", codes.map_mid)):
        weight = as_matrix(conv.weight)
        out |= layer_tensors(f"planes.{name}", weight, conv.bias)  # type: ignore[arg-type]
    for number, step in enumerate(codes.step):
        # A ModuleList forgets what it holds.
        out |= integer_step(step, number, config)  # type: ignore[arg-type]
    return out


def export_weights(joint: JointCodec, path: str | PathLike[str]) -> str:
    """Write the weights file of a joint codec and return its SHA-256 (64 hex digits).

    Loading it back proves the accumulator bound: a WeightsError says which layer breaks it.
    """
    floats = {
        name: tensor.detach().cpu().numpy()
        for name, tensor in joint.state_dict().items()
        if name.startswith(("encoder.", "decoder."))
    }
    integers = integer_weights(joint.planes, joint.maps, joint.config)
    write_model(path, joint.config, floats, integers)
    sha256 = hash_file(Path(path))
    read_model(path, NUMPY, id=sha256[:16])
    return sha256
