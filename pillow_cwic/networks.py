"""The encoder and decoder CNNs: pixels <-> features at 1/16 resolution (paper, section 3.1).

Float NCHW in [0, 1] on the pixel side, with a trunk at 1/4, 1/8 and 1/16. Both take the quality index as an input, so
that one model serves all rates. A gain per channel and quality index sets how finely the binarizer's ladder divides a
feature; the decoder divides by its own. They know nothing of bits: binarizing and masking happen outside. Changing a
layer's reach changes `features_halo`, `heads_halo` or `decoder_halos` of `ModelConfig`, which windows rely on.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import GRID, ModelConfig
from .tiling import Box

FIRST_GAIN = 4.0
"""Gain of every channel at the middle quality before training, and ..."""

GAIN_SLOPE = 1.2
"""... how its logarithm grows to the highest: the step size falls about as lambda^(-1/2) does."""

OPEN_LOGIT = 3.0
"""First bias of the importance map: all positions start at the highest level, and the rate closes what it can."""


class ResidualBlock(nn.Module):
    """Bottleneck block 1x1 -> 3x3 -> 1x1 with a skip; keeps [B,c,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Conv2d(channels, half, 1)
        self.conv = nn.Conv2d(half, half, 3, padding=1)
        self.expand = nn.Conv2d(half, channels, 1)
        if not self.expand.weight.is_meta:  # there, normal_ would import torch's compiler: two seconds for nothing
            nn.init.normal_(self.expand.weight, std=0.02)  # starts near the identity
        nn.init.constant_(self.expand.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        h = F.relu(self.reduce(x), inplace=True)
        return x + self.expand(F.relu(self.conv(h), inplace=True))


class QualityModulation(nn.Module):
    """Scale and shift per channel as a smooth function of the quality index (FiLM); starts as the identity."""

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
        both = both[:, :, None, None] if both.dim() == 2 else both.permute(0, 3, 1, 2)  # [B,2c,1,1] or [B,2c,h,w]
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
        self.coefficients = nn.Parameter(start.repeat(1, config.planes))

    def forward(self, quality_index: Tensor) -> Tensor:
        """quality_index [B] or [B,h,w] -> gain [B,c,1,1] or [B,c,h,w]."""
        t = quality_index.float() / self.last * 2 - 1  # -1..1
        basis = torch.stack([torch.ones_like(t), t, t * t], -1)  # [B,3] or [B,h,w,3]
        gain = (basis @ self.coefficients).exp()  # [B,c] or [B,h,w,c]
        return gain[:, :, None, None] if gain.dim() == 2 else gain.permute(0, 3, 1, 2)


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """`pixel_unshuffle`, in a third of the time where channels are last in memory: [B,c,H,W] -> [B,c*f*f,H/f,W/f]."""
    batch, channels, height, width = x.shape
    cut = x.permute(0, 2, 3, 1).view(batch, height // factor, factor, width // factor, factor, channels)
    rows = cut.permute(0, 1, 3, 5, 2, 4).reshape(batch, height // factor, width // factor, -1)  # [B,H/f,W/f,c*f*f]
    return rows.permute(0, 3, 1, 2)


def finer(quality_index: Tensor) -> Tensor:
    """quality_index [B] stays; [B,h,w] -> [B,2h,2w] for features of twice the resolution."""
    if quality_index.dim() == 1:
        return quality_index
    return quality_index.repeat_interleave(2, 1).repeat_interleave(2, 2)


def part(x: Tensor, box: Box) -> Tensor:
    """The part of [...,h,w] in the box; a quality index [B] holds everywhere."""
    return x if x.dim() == 1 else x[..., *box.slices]


class Encoder(nn.Module):
    """Pixels -> features of the codes and of the importance map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, c16 = config.quarter_channels, config.eighth_channels, config.sixteenth_channels
        side, count = config.importance_channels, config.quality_count
        n4, n8, n16 = config.encoder_blocks
        self.stem = nn.Conv2d(3 * 4 * 4, c4, 3, padding=1)
        self.quarter = blocks(n4, c4)
        self.down_eighth = nn.Conv2d(c4, c8, 4, 2, 1)
        self.shortcut_eighth = nn.Conv2d(3 * 8 * 8, c8, 1)  # linear block transforms beside the trunk
        self.eighth = blocks(n8, c8)
        self.down = nn.Conv2d(c8, c16, 4, 2, 1)
        self.shortcut = nn.Conv2d(3 * GRID * GRID, config.planes, 1)
        self.quality_in = QualityModulation(c16, count)
        self.sixteenth = blocks(n16, c16)
        self.quality_out = QualityModulation(c16, count)
        self.codes = nn.Conv2d(c16, config.planes, 3, padding=1)
        self.gain = Gain(config)
        self.importance = nn.Sequential(
            nn.Conv2d(c16, side, 3, padding=1), nn.ReLU(), ResidualBlock(side), nn.Conv2d(side, 1, 1)
        )
        self.quality_importance = QualityModulation(1, count)
        if not self.codes.weight.is_meta:  # there, normal_ would import torch's compiler: two seconds for nothing
            nn.init.normal_(self.importance[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.constant_(self.importance[-1].bias, OPEN_LOGIT)  # type: ignore[arg-type]
        self.trunk = c16

    def features(self, x: Tensor) -> Tensor:
        """The part that does not depend on the quality: x [B,3,H,W] in [0,1] -> [B,c16+n,H/16,W/16] float32."""
        x = x * 2 - 1
        h = F.relu(self.stem(unshuffled(x, 4)), inplace=True)  # [B,c4,H/4,W/4]
        h = self.down_eighth(self.quarter(h)) + self.shortcut_eighth(unshuffled(x, 8))  # [B,c8,H/8,W/8]
        h = self.down(self.eighth(h))  # [B,c16,H/16,W/16]
        with torch.autocast(x.device.type, enabled=False):  # codes are rounded: bfloat16 would add to their error
            linear = self.shortcut(unshuffled(x.float(), 16))  # [B,n,H/16,W/16]
        return torch.cat([h.float(), linear], 1)

    def heads(self, features: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,c16+n,h,w], quality_index [B] or [B,h,w] -> code features [B,n,h,w], importance [B,1,h,w].

        The binarizer takes the code features as they are; the importance has no sigmoid yet.
        """
        trunk, linear = features.tensor_split([self.trunk], 1)
        h = self.quality_out(self.sixteenth(self.quality_in(trunk, quality_index)), quality_index)
        importance = self.quality_importance(self.importance(h), quality_index)
        with torch.autocast(h.device.type, enabled=False):
            codes = (self.codes(h.float()) + linear) * self.gain(quality_index)
        return codes, importance.float()

    def forward(self, x: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """x [B,3,H,W] in [0,1] (H, W multiples of 16) -> as `heads`."""
        return self.heads(self.features(x), quality_index)


class Decoder(nn.Module):
    """Integer codes -> pixels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, c16 = config.quarter_channels, config.eighth_channels, config.sixteenth_channels
        count, (n4, n8, n16) = config.quality_count, config.decoder_blocks
        self.halos = config.decoder_halos
        self.gain = Gain(config)
        self.stem = nn.Conv2d(config.planes, c16, 3, padding=1)
        self.quality_sixteenth = QualityModulation(c16, count)
        self.sixteenth = blocks(n16, c16)
        self.up_eighth = nn.Conv2d(c16, c8 * 4, 1)
        self.quality_eighth = QualityModulation(c8, count)
        self.eighth = blocks(n8, c8)
        self.up = nn.Conv2d(c8, c4 * 4, 1)
        self.quarter = blocks(n4, c4)
        self.out = nn.Conv2d(c4, 3 * 4 * 4, 3, padding=1)
        self.shortcut = nn.Conv2d(config.planes, 3 * GRID * GRID, 1)  # linear block transforms
        self.shortcut_eighth = nn.Conv2d(c8, 3 * 8 * 8, 1)

    def forward(self, codes: Tensor, quality_index: Tensor, core: Box | None = None) -> Tensor:
        """codes [B,n,h,w], quality_index [B] or [B,h,w] -> picture [B,3,16h,16w]; nominally in [0,1], not clamped.

        With `core`, a part of the code positions, only its pixels: those of the whole picture, at less expense. What
        they depend on narrows from trunk to trunk.
        """
        whole = Box(0, 0, codes.shape[3], codes.shape[2])
        core = core or whole
        in_quarter, in_eighth = (core.grow(halo, whole) for halo in self.halos[:2])
        with torch.autocast(codes.device.type, enabled=False):
            y = codes.float() / self.gain(quality_index)
            linear = F.pixel_shuffle(self.shortcut(part(y, core)), 16)  # [B,3,16h',16w']
        x = self.sixteenth(self.quality_sixteenth(self.stem(y), quality_index))  # [B,c16,h,w]
        x = F.pixel_shuffle(self.up_eighth(part(x, in_eighth)), 2)
        x = self.eighth(self.quality_eighth(x, finer(part(quality_index, in_eighth))))
        linear = linear + F.pixel_shuffle(self.shortcut_eighth(part(x, core.within(in_eighth).scale(2))).float(), 8)
        x = self.up(part(x, in_quarter.within(in_eighth).scale(2)))
        x = self.out(self.quarter(F.pixel_shuffle(x, 2)))
        x = part(x, core.within(in_quarter).scale(4))
        return (F.pixel_shuffle(x.float(), 4) + linear) * 0.5 + 0.5
