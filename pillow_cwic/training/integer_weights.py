"""The trained entropy networks -> integer tensors of a weights file (docs/format.md, section 5).

Weights go to a grid of 2^-8 and biases to 2^-13, the units of `integer_layer`. Rounding happens in
float64 and the tables in decimal arithmetic, so that an export gives the same file on every
machine.
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


def probability_table() -> Tensor:
    """P(bit = 1) * 65536 for every logit -128..128 in steps of 1/16, uint16 [257], clipped to 32..65504.

    `Decimal.exp` is correctly rounded; `math.exp` differs between C libraries.
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


def rows(weight: Tensor) -> Tensor:
    """Convolution weight [out,in,kh,kw] -> matrix [kh*kw*in,out] in the order of `neighbourhood.patches`."""
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def layer(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The two tensors of one integer layer from a matrix [in,out] and a bias [...,out]."""
    return {
        f"entropy.{name}.weight": on_grid(weight, WEIGHT_BITS, torch.int16),
        f"entropy.{name}.bias": on_grid(bias, SUM_BITS, torch.int32),
    }


def quantize_map(net: MapNetwork) -> dict[str, Tensor]:
    """Integer tensors of the importance map's network.

    Conv1's bias has one row per quality index and stage.
    """
    bias1 = net.conv1.bias + net.quality.weight[:, None] + net.stage.weight  # type: ignore[operator]  # [Q,7,width]
    out = {
        "entropy.maps.coarsest": on_grid(net.coarsest.weight, LOGIT_BITS, torch.int16).clamp(
            -LOGIT_MAX, LOGIT_MAX
        )
    }
    out |= layer("maps.conv1", rows(net.conv1.weight), bias1)
    for name in ("conv2", "conv3", "out"):
        conv = getattr(net, name)
        out |= layer(f"maps.{name}", rows(conv.weight), conv.bias)
    return out


@cache
def logistic_table(ladder: int) -> Tensor:
    """P(x > mean + d/16) in units of 2^-30 for every scale index and distance d, int32 [SCALES,table_size].

    In decimal arithmetic, so that every machine makes the same table: each row is a geometric
    series of exp(-1/16s).
    """
    size, table = table_size(ladder), []
    with localcontext() as context:
        context.prec = 40
        for index in range(SCALES):
            span = Decimal(LAST_LOG_SCALE - FIRST_LOG_SCALE)
            scale = (FIRST_LOG_SCALE + span * index / (SCALES - 1)).exp()
            ratio, power = (-1 / (UNIT * scale)).exp(), Decimal(1)  # exp(-d / 16s)
            row = []
            for _ in range(size):
                row.append(int((2**TABLE_BITS * power / (1 + power)).to_integral_value()))
                power *= ratio
            table.append(row)
    return torch.tensor(table, dtype=torch.int32)


def quantize_step(net: StepNetwork, step: int) -> dict[str, Tensor]:
    """Integer tensors of one step; the first knows no codes."""
    name = f"planes.{step}"
    parts = [net.level.weight, net.cell.weight, net.map_out.weight[:, :, 0, 0].t()]
    parts += [net.known.weight[:, :, 0, 0].t()] if step else []
    out = layer(f"{name}.hidden", torch.cat(parts), net.quality.weight + net.known.bias)  # type: ignore[operator]
    for which in ("depth1", "depth2"):
        conv = getattr(net, which)
        out |= layer(f"{name}.{which}", conv.weight[:, 0].flatten(1).t(), conv.bias)  # [9,width]
    for which in ("mid1", "mid2"):
        conv = getattr(net, which)
        out |= layer(f"{name}.{which}", rows(conv.weight), conv.bias)
    weight, bias, n = rows(net.out.weight), net.out.bias, net.out.out_channels // 2
    for place, channels in enumerate(order.channels(step, n)):
        columns = torch.cat([channels, n + channels])  # means and scales
        out |= layer(f"{name}.out{place}", weight[:, columns], bias[columns])  # type: ignore[index]
    return out


def integer_tensors(planes: ContextNetwork, maps: MapNetwork, ladder: int) -> dict[str, Tensor]:
    """All `entropy.*` tensors of a weights file."""
    out = {
        "entropy.probability": probability_table(),
        "entropy.logistic": logistic_table(ladder),
    } | quantize_map(maps)
    out |= layer("planes.map_in", rows(planes.map_in.weight), planes.map_in.bias)  # type: ignore[arg-type]
    out |= layer("planes.map_mid", rows(planes.map_mid.weight), planes.map_mid.bias)  # type: ignore[arg-type]
    for step, network in enumerate(planes.step):
        out |= quantize_step(network, step)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
    return out


def export_weights(joint: JointCodec, path: str | os.PathLike[str]) -> str:
    """Write the weights file of a joint codec and return its SHA-256 (64 hex digits).

    Loading it back proves the accumulator bound: a WeightsError says which layer breaks it.
    """
    floats = {n: t for n, t in joint.state_dict().items() if n.startswith(("encoder.", "decoder."))}
    write_model(
        path, joint.config, floats, integer_tensors(joint.planes, joint.maps, joint.config.ladder)
    )
    sha256 = hash_file(Path(path))
    read_model(path, torch.device("cpu"), id=sha256[:16])
    return sha256
