"""The trained context network -> integer tensors of a weights file: the successive family's part of `quantize`."""

from decimal import Decimal, localcontext
from functools import cache

import torch
from torch import Tensor

from ..entropy_networks import MapNetwork
from ..successive.context import ContextNetwork, StepNetwork
from ..successive.ladder import UNIT, table_size
from ..successive.scale import FIRST_LOG_SCALE, LAST_LOG_SCALE, SCALES, TABLE_BITS
from .quantize import layer, probability_table, quantize_map, rows


@cache
def logistic_table(ladder: int) -> Tensor:
    """P(x > mean + d/16) in units of 2^-30 for every scale index and distance d, int32 [SCALES,table_size].

    In decimal arithmetic, so that every machine makes the same table: each row is a geometric series of exp(-1/16s).
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
    """Integer tensors of one quadtree step; the first knows no codes."""
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
    weights, biases = rows(net.out.weight).chunk(4, 1), net.out.bias.chunk(4)  # type: ignore[union-attr]
    for quarter, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out |= layer(f"{name}.out{quarter}", weight, bias)
    return out


def quantize_successive(planes: ContextNetwork, maps: MapNetwork, ladder: int) -> dict[str, Tensor]:
    """All `entropy.*` tensors of a weights file of the successive family."""
    out = {"entropy.probability": probability_table(), "entropy.logistic": logistic_table(ladder)} | quantize_map(maps)
    out |= layer("planes.map_in", rows(planes.map_in.weight), planes.map_in.bias)  # type: ignore[arg-type]
    out |= layer("planes.map_mid", rows(planes.map_mid.weight), planes.map_mid.bias)  # type: ignore[arg-type]
    for step, network in enumerate(planes.step):
        out |= quantize_step(network, step)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
    return out
