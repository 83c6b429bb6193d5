"""The encoder and decoder CNNs: pixels <-> features at 1/16 resolution (paper, section 3.1).

Float NCHW in [0, 1] on the pixel side, with a trunk at 1/4, 1/8 and 1/16. Both take the quality
index as an input, so that one model serves all rates. A gain per channel and quality index sets how
finely the binarizer's ladder divides a feature; the decoder divides by its own. They know nothing
of bits: binarizing and masking happen outside. Changing a layer's reach changes `features_halo`,
`heads_halo` or `decoder_halos` of `ModelConfig`, which windows rely on.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..format.grid import Box
from .config import ModelConfig

FIRST_GAIN = 4.0
"""Gain of every channel at the middle quality before training, and ..."""

GAIN_SLOPE = 1.2
"""... how its logarithm grows to the highest: the step size falls about as lambda^(-1/2) does."""


class ResidualBlock(nn.Module):
    """Bottleneck block 1x1 -> 3x3 -> 1x1 with a skip; keeps [B,c,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Conv2d(channels, half, 1)
        self.conv = nn.Conv2d(half, half, 3, padding=1)
        self.expand = nn.Conv2d(half, channels, 1)
        if (
            not self.expand.weight.is_meta
        ):  # there, normal_ would import torch's compiler: two seconds for nothing
            nn.init.normal_(self.expand.weight, std=0.02)  # starts near the identity
        nn.init.constant_(self.expand.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        h = F.relu(self.reduce(x), inplace=True)
        return x + self.expand(F.relu(self.conv(h), inplace=True))


class QualityModulation(nn.Module):
    """Scale and shift per channel as a smooth function of the quality index (FiLM).

    Starts as the identity.
    """

    def __init__(self, channels: int, quality_count: int) -> None:
        super().__init__()
        self.last = max(1, quality_count - 1)
        self.hidden = nn.Linear(3, 64)
        self.out = nn.Linear(64, 2 * channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, quality_index: Tensor) -> Tensor:
        """x [B,c,h,w], quality_index integers [B], or [B,h,w] where regions differ -> [B,c,h,w]."""
        t = quality_index.float() / self.last * 2 - 1  # -1..1
        basis = torch.stack([t, t * t, t**3], -1)  # [B,3] or [B,h,w,3]
        both = self.out(F.gelu(self.hidden(basis))).to(x.dtype)  # [B,2c] or [B,h,w,2c]
        # [B,2c,1,1] or [B,2c,h,w].
        both = both[:, :, None, None] if both.dim() == 2 else both.permute(0, 3, 1, 2)
        scale, shift = both.chunk(2, 1)
        return x * (1 + scale) + shift


def blocks(count: int, channels: int) -> nn.Sequential:
    """`count` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Gain(nn.Module):
    """A positive gain per channel, its logarithm quadratic in the quality index."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.last = max(1, config.quality_count - 1)
        start = torch.tensor([[math.log(FIRST_GAIN)], [GAIN_SLOPE], [0.0]])
        if config.one_bit:
            start = torch.zeros(3, 1)  # a sign has no steps to make finer
        self.coefficients = nn.Parameter(start.repeat(1, config.channels))

    def forward(self, quality_index: Tensor) -> Tensor:
        """quality_index [B] or [B,h,w] -> gain [B,c,1,1] or [B,c,h,w]."""
        t = quality_index.float() / self.last * 2 - 1  # -1..1
        basis = torch.stack([torch.ones_like(t), t, t * t], -1)  # [B,3] or [B,h,w,3]
        gain = (basis @ self.coefficients).exp()  # [B,c] or [B,h,w,c]
        return gain[:, :, None, None] if gain.dim() == 2 else gain.permute(0, 3, 1, 2)


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """`pixel_unshuffle`, in a third of the time where channels are last in memory: [B,c,H,W] -> [B,c*f*f,H/f,W/f]."""
    batch, channels, height, width = x.shape
    cut = x.permute(0, 2, 3, 1).view(
        batch, height // factor, factor, width // factor, factor, channels
    )
    rows = cut.permute(0, 1, 3, 5, 2, 4).reshape(
        batch, height // factor, width // factor, -1
    )  # [B,H/f,W/f,c*f*f]
    return rows.permute(0, 3, 1, 2)


def finer(quality_index: Tensor) -> Tensor:
    """quality_index [B] stays; [B,h,w] -> [B,2h,2w] for features of twice the resolution."""
    if quality_index.dim() == 1:
        return quality_index
    return quality_index.repeat_interleave(2, 1).repeat_interleave(2, 2)


def part(x: Tensor, box: Box) -> Tensor:
    """The part of [...,h,w] in the box; a quality index [B] holds everywhere."""
    return x if x.dim() == 1 else x[..., *box.slices]
