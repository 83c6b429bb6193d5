"""The kinds of layers in PyTorch: each as a module, whose parameters bear the weights file's names.

Maps are [B,c,h,w], channels last in memory. This module knows no network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .layers import MODULATION_HIDDEN, Block, Conv, Down, Gain, Layer, Modulation, Rescale

FIRST_GAIN = 4.0
"""Gain of every channel at the middle quality before training."""


def gain_slope(config: ModelConfig) -> float:
    """How far the logarithm of a gain grows from the middle quality to the highest, at first.

    The step size falls as lambda^(-1/2) does.
    """
    return 0.25 * math.log(config.lambda_max / config.lambda_min)


def prepare(layer: Layer, config: ModelConfig) -> nn.Module:
    """A layer as a module, untrained."""
    match layer:
        case Conv():
            return ConvModule(layer)
        case Down():
            return DownModule(layer)
        case Block():
            return BlockModule(layer)
        case Modulation():
            return ModulationModule(layer, config.quality_count)
        case Gain():
            return GainModule(layer, config)
        case Rescale():
            return RescaleModule(layer)


class ConvModule(nn.Conv2d):
    """`layers.Conv`."""

    def __init__(self, layer: Conv) -> None:
        super().__init__(layer.inputs, layer.outputs, layer.side, padding=layer.side // 2)
        self.layer = layer

    def forward(
        self, input: Tensor, quality: Tensor | None = None, outputs: int | None = None
    ) -> Tensor:
        """[B,c,h,w] -> [B,c',h',w']; of channels that are 0 the last ones may be left out.

        outputs: so many first channels alone, before `shuffle`; by default all.
        """
        layer = self.layer
        x = input if layer.unshuffle == 1 else unshuffled(input, layer.unshuffle)
        weight = self.weight[:outputs, : x.shape[1]]
        bias = None if self.bias is None else self.bias[:outputs]
        if layer.full_precision:
            with torch.autocast(x.device.type, enabled=False):
                x = self._conv_forward(x.float(), weight, bias)
        else:
            x = self._conv_forward(x, weight, bias)
        if layer.relu:
            x = F.relu(x, inplace=True)
        return x if layer.shuffle == 1 else F.pixel_shuffle(x, layer.shuffle)


class DownModule(nn.Conv2d):
    """`layers.Down`."""

    def __init__(self, layer: Down) -> None:
        super().__init__(layer.inputs, layer.outputs, 4, 2, 1)

    def forward(self, input: Tensor, quality: Tensor | None = None) -> Tensor:
        """[B,c,h,w] -> [B,c',h/2,w/2]."""
        return super().forward(input)


class BlockModule(nn.Module):
    """`layers.Block`; starts near the identity."""

    def __init__(self, layer: Block) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(layer.channels, layer.half, 1)
        self.conv = nn.Conv2d(layer.half, layer.half, 3, padding=1)
        self.expand = nn.Conv2d(layer.half, layer.channels, 1)
        start(self.expand, std=0.02, bias=0.0)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        h = F.relu(self.reduce(x), inplace=True)
        return x + self.expand(F.relu(self.conv(h), inplace=True))


class ModulationModule(nn.Module):
    """`layers.Modulation`; starts as the identity."""

    def __init__(self, layer: Modulation, quality_count: int) -> None:
        super().__init__()
        self.last = max(1, quality_count - 1)
        self.hidden = nn.Linear(3, MODULATION_HIDDEN)
        self.out = nn.Linear(MODULATION_HIDDEN, 2 * layer.channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x [B,c,h,w], quality [B], or [B,h',w'] at a coarser grid -> [B,c,h,w]."""
        t = quality.float() / self.last * 2 - 1  # -1..1
        basis = torch.stack([t, t * t, t**3], -1)  # [B,3] or [B,h',w',3]
        both = self.out(F.gelu(self.hidden(basis))).to(x.dtype)  # [B,2c] or [B,h',w',2c]
        scale, shift = spread(both, x).chunk(2, 1)
        return x * (1 + scale) + shift


class GainModule(nn.Module):
    """`layers.Gain`, in float32."""

    def __init__(self, layer: Gain, config: ModelConfig) -> None:
        super().__init__()
        self.divides = layer.divides
        self.last = max(1, config.quality_count - 1)
        start = torch.tensor([[math.log(FIRST_GAIN)], [gain_slope(config)], [0.0]])
        if config.one_bit:
            start = torch.zeros(3, 1)  # a sign has no steps to make finer
        self.coefficients = nn.Parameter(start.repeat(1, layer.channels))

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x [B,c,h,w], quality [B] or [B,h,w] -> float32 [B,c,h,w]."""
        with torch.autocast(x.device.type, enabled=False):
            t = quality.float() / self.last * 2 - 1  # -1..1
            basis = torch.stack([torch.ones_like(t), t, t * t], -1)  # [B,3] or [B,h,w,3]
            gain = spread((basis @ self.coefficients[:, : x.shape[1]]).exp(), x)
            return x.float() / gain if self.divides else x.float() * gain


class RescaleModule(nn.Module):
    """`layers.Rescale`."""

    def __init__(self, layer: Rescale) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Of any shape."""
        return x * self.layer.factor + self.layer.offset


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """`pixel_unshuffle` that leaves channels last in memory: [B,c,H,W] -> [B,c*f*f,H/f,W/f]."""
    batch, channels, height, width = x.shape
    rows, columns = height // factor, width // factor
    blocks = x.permute(0, 2, 3, 1).reshape(batch, rows, factor, columns, factor, channels)
    gathered = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, rows, columns, -1)
    return gathered.permute(0, 3, 1, 2)  # [B,c*f*f,H/f,W/f]


def spread(values: Tensor, x: Tensor) -> Tensor:
    """values [B,c] or [B,h',w',c] at a coarser grid -> as wide as x [B,c,h,w] has them."""
    if values.dim() == 2:
        return values[:, :, None, None]
    factor = x.shape[2] // values.shape[1]
    fine = values.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return fine.permute(0, 3, 1, 2)


def start(conv: nn.Conv2d, std: float, bias: float) -> None:
    """First weights, normal around 0, and biases, all equal."""
    if not conv.weight.is_meta:  # weights from a file will take their place
        nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
