"""The trained entropy networks -> integer tensors of a weights file (docs/format.md, section 5).

Weights go to a grid of 2^-8 and biases to 2^-13, the units of `integer_layer`. Rounding happens in float64 and the
probability table in decimal arithmetic, so that an export gives the same file on every machine.
"""

from decimal import Decimal

import torch
from torch import Tensor

from ..config import ModelConfig
from ..entropy_networks import MapNetwork, PlaneNetwork
from ..integer_layer import ACTIVATION_BITS, LOGIT_BITS, LOGIT_MAX, WEIGHT_BITS

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
        raise OverflowError(f"a weight of {x.abs().max().item():.3g} does not fit {dtype} at {bits} fraction bits")
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
    """Integer tensors of the importance map's network; conv1's bias has one row per quality index and stage."""
    bias1 = net.conv1.bias + net.quality.weight[:, None] + net.stage.weight  # type: ignore[operator]  # [Q,7,width]
    out = {"entropy.maps.coarsest": on_grid(net.coarsest.weight, LOGIT_BITS, torch.int16).clamp(-LOGIT_MAX, LOGIT_MAX)}
    out |= layer("maps.conv1", rows(net.conv1.weight), bias1)
    for name in ("conv2", "conv3", "out"):
        conv = getattr(net, name)
        out |= layer(f"maps.{name}", rows(conv.weight), conv.bias)
    return out


def quantize_planes(net: PlaneNetwork, config: ModelConfig) -> dict[str, Tensor]:
    """Integer tensors of the code planes' network, its masks applied: one hidden, mid and out layer per group."""
    size, fill = config.group_planes, config.group_features
    odd = torch.tensor([(dy + dx) % 2 == 1 for dy in range(5) for dx in range(5)])
    near = net.neighbours.weight.flatten(2)[:, :, odd]  # [width,n,12]
    earlier = net.earlier.weight.flatten(2)  # [width,n,9]
    mid, final, side = net.mid.weight[:, :, 0, 0], net.out.weight[:, :, 0, 0], net.map_out.weight[:, :, 0, 0]
    bias = net.quality.weight + net.earlier.bias  # type: ignore[operator]  # [Q,width]
    out = layer("planes.map_in", rows(net.map_in.weight), net.map_in.bias)  # type: ignore[arg-type]
    out |= layer("planes.map_mid", rows(net.map_mid.weight), net.map_mid.bias)  # type: ignore[arg-type]
    for g in range(config.plane_groups):
        f, p = slice(g * fill, (g + 1) * fill), slice(g * size, (g + 1) * size)
        parts = [near[f, p].permute(2, 1, 0).reshape(-1, fill), net.level.weight[:, f], side[f].t()]
        for k in range(g):
            parts.append(earlier[f, k * size : (k + 1) * size].permute(2, 1, 0).reshape(-1, fill))
        out |= layer(f"planes.{g}.hidden", torch.cat(parts), bias[:, f])
        out |= layer(f"planes.{g}.mid", mid[f, : (g + 1) * fill].t(), net.mid.bias[f])  # type: ignore[index]
        out |= layer(f"planes.{g}.out", final[p, f].t(), net.out.bias[p])  # type: ignore[index]
    return out


def quantize(planes: PlaneNetwork, maps: MapNetwork, config: ModelConfig) -> dict[str, Tensor]:
    """All `entropy.*` tensors of a weights file."""
    return {"entropy.probability": probability_table()} | quantize_map(maps) | quantize_planes(planes, config)
