"""The trained entropy networks -> integer tensors of a weights file (docs/format.md, section 5).

Weights go to a grid of 2^-8 and biases to 2^-13, the units of `entropy.integer_layer`. Invariant:
an export gives the same file on every machine, so rounding happens in float64 and the tables in
decimal arithmetic. This module knows weights, no pictures.
"""

import os
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..entropy import order
from ..entropy.integer_layer import ACTIVATION_BITS, LOGIT_BITS, LOGIT_MAX, WEIGHT_BITS
from ..entropy.ladder import UNIT, table_size
from ..entropy.logistic import FIRST_LOG_SCALE, LAST_LOG_SCALE, SCALES, TABLE_BITS
from ..weights.cache import hash_file
from ..weights.file import read_model, write_model
from .code_network import ContextNetwork, StepNetwork
from .joint_codec import JointCodec
from .map_network import MapNetwork

SUM_BITS = WEIGHT_BITS + ACTIVATION_BITS
"""Fraction bits of a bias, as of the sum of products that it is added to."""


def probability_table() -> Tensor:
    """P(bit = 1) * 65536 for every logit -128..128 in steps of 1/16, uint16 [257].

    Clipped to 32..65504. `Decimal.exp` is correctly rounded; `math.exp` differs between C
    libraries.
    """
    values = []
    for v in range(-LOGIT_MAX, LOGIT_MAX + 1):
        p = 65536 / (1 + (Decimal(-v) / 2**LOGIT_BITS).exp())
        values.append(min(max(int(p.to_integral_value()), 32), 65536 - 32))
    return torch.tensor(values, dtype=torch.int32).to(torch.uint16)


def on_grid(x: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """x on the grid 2^-bits as integers; OverflowError where they do not fit the type."""
    scaled = torch.round(x.detach().double() * 2**bits)
    limits = torch.iinfo(dtype)
    if scaled.numel() and (scaled.min() < limits.min or scaled.max() > limits.max):
        raise OverflowError(
            f"a weight of {x.abs().max().item():.3g} does not fit {dtype} at {bits} fraction bits"
        )
    return scaled.to(dtype).contiguous()


def as_matrix(weight: Tensor) -> Tensor:
    """Convolution weight [out,in,kh,kw] -> matrix [kh*kw*in,out].

    Its rows are in the order in which `entropy.neighbourhood` lays out the inputs.
    """
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def layer_tensors(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The two tensors of one integer layer from a matrix [in,out] and a bias [...,out]."""
    return {
        f"entropy.{name}.weight": on_grid(weight, WEIGHT_BITS, torch.int16),
        f"entropy.{name}.bias": on_grid(bias, SUM_BITS, torch.int32),
    }


def quantize_map(net: MapNetwork) -> dict[str, Tensor]:
    """Integer tensors of the importance map's network.

    Conv1's bias has one row per quality index and stage.
    """
    bias1 = net.conv1.bias + net.quality.weight[:, None]  # type: ignore[operator]  # [Q,1,width]
    bias1 = bias1 + net.stage.weight  # [Q,7,width]
    coarsest = on_grid(net.coarsest.weight, LOGIT_BITS, torch.int16)
    out = {"entropy.maps.coarsest": coarsest.clamp(-LOGIT_MAX, LOGIT_MAX)}
    out |= layer_tensors("maps.conv1", as_matrix(net.conv1.weight), bias1)
    for name in ("conv2", "conv3", "out"):
        conv = getattr(net, name)
        out |= layer_tensors(f"maps.{name}", as_matrix(conv.weight), conv.bias)
    return out


@cache
def logistic_table(ladder: int) -> Tensor:
    """P(x > mean + d/16) in units of 2^-30, int32 [SCALES,table_size].

    One row for every scale index, one column for every distance d. In decimal arithmetic, so that
    every machine makes the same table: each row is a geometric series of exp(-1/16s).
    """
    size = table_size(ladder)
    span = Decimal(LAST_LOG_SCALE - FIRST_LOG_SCALE)
    table = []
    with localcontext() as context:
        context.prec = 40  # far beyond the 30 bits of an entry
        for index in range(SCALES):
            scale = (FIRST_LOG_SCALE + span * index / (SCALES - 1)).exp()
            ratio = (-1 / (UNIT * scale)).exp()
            power = Decimal(1)  # exp(-d / 16s)
            row = []
            for _ in range(size):
                row.append(int((2**TABLE_BITS * power / (1 + power)).to_integral_value()))
                power *= ratio
            table.append(row)
    return torch.tensor(table, dtype=torch.int32)


def quantize_step(net: StepNetwork, step: int) -> dict[str, Tensor]:
    """Integer tensors of one step; the first knows no codes."""
    # The first layer's inputs as the coder looks them up: level, place, map, known codes.
    name = f"planes.{step}"
    tables = [net.level.weight, net.cell.weight, net.map_out.weight[:, :, 0, 0].t()]
    if step:
        tables.append(net.known.weight[:, :, 0, 0].t())
    hidden_bias = net.quality.weight + net.known.bias  # type: ignore[operator]  # [Q,width]
    out = layer_tensors(f"{name}.hidden", torch.cat(tables), hidden_bias)

    # Depthwise layers have a row per tap, pointwise ones a row per input.
    for part in ("depth1", "depth2"):
        conv = getattr(net, part)
        taps = conv.weight[:, 0].flatten(1).t()  # [9,width]
        out |= layer_tensors(f"{name}.{part}", taps, conv.bias)
    for part in ("mid1", "mid2"):
        conv = getattr(net, part)
        out |= layer_tensors(f"{name}.{part}", as_matrix(conv.weight), conv.bias)

    # Each place in the cell codes channels of its own in this step.
    weight = as_matrix(net.out.weight)  # [width,2n]
    bias = net.out.bias
    n = net.out.out_channels // 2
    for place, channels in enumerate(order.channels(step, n)):
        columns = torch.cat([channels, n + channels])  # means and scales
        out |= layer_tensors(f"{name}.out{place}", weight[:, columns], bias[columns])  # type: ignore[index]
    return out


def integer_tensors(planes: ContextNetwork, maps: MapNetwork, ladder: int) -> dict[str, Tensor]:
    """All `entropy.*` tensors of a weights file."""
    out = {
        "entropy.probability": probability_table(),
        "entropy.logistic": logistic_table(ladder),
    } | quantize_map(maps)
    for part in ("map_in", "map_mid"):
        conv = getattr(planes, part)
        out |= layer_tensors(f"planes.{part}", as_matrix(conv.weight), conv.bias)
    for step, network in enumerate(planes.step):
        # A ModuleList forgets what it holds.
        out |= quantize_step(network, step)  # type: ignore[arg-type]
    return out


def export_weights(joint: JointCodec, path: str | os.PathLike[str]) -> str:
    """Write the weights file of a joint codec and return its SHA-256 (64 hex digits).

    Loading it back proves the accumulator bound: a WeightsError says which layer breaks it.
    """
    floats = {
        name: tensor
        for name, tensor in joint.state_dict().items()
        if name.startswith(("encoder.", "decoder."))
    }
    integers = integer_tensors(joint.planes, joint.maps, joint.config.ladder)
    write_model(path, joint.config, floats, integers)
    sha256 = hash_file(Path(path))
    read_model(path, torch.device("cpu"), id=sha256[:16])
    return sha256
