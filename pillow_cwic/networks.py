"""The encoder and decoder CNNs: pixels <-> features at 1/8 resolution (paper, section 3.1).

Float NCHW in [0, 1] on the pixel side. Both take the quality index as an input, so that one model serves all rates.
They know nothing of bits: binarizing and masking happen outside. Changing a layer's reach changes
`ModelConfig.encoder_halo` / `decoder_halo`, which windows rely on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import GRID, ModelConfig


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


class Encoder(nn.Module):
    """Pixels -> features of the code planes and of the importance map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, side, count = (
            config.quarter_channels,
            config.eighth_channels,
            config.importance_channels,
            config.quality_count,
        )
        self.stem = nn.Conv2d(3 * 4 * 4, c4, 3, padding=1)
        self.quarter = blocks(config.encoder_quarter_blocks, c4)
        self.down = nn.Conv2d(c4, c8, 4, 2, 1)
        self.shortcut = nn.Conv2d(3 * GRID * GRID, c8, 1)  # a linear block transform beside the trunk
        self.quality_in = QualityModulation(c8, count)
        self.eighth = blocks(config.encoder_eighth_blocks, c8)
        self.quality_out = QualityModulation(c8, count)
        self.codes = nn.Conv2d(c8, config.planes, 3, padding=1)
        self.importance = nn.Sequential(
            nn.Conv2d(c8, side, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(side),
            ResidualBlock(side),
            nn.Conv2d(side, 1, 1),
        )
        self.quality_importance = QualityModulation(1, count)

    def features(self, x: Tensor) -> Tensor:
        """The part that does not depend on the quality: x [B,3,H,W] in [0,1] -> [B,c8,H/8,W/8]."""
        x = x * 2 - 1
        h = F.relu(self.stem(F.pixel_unshuffle(x, 4)), inplace=True)  # [B,c4,H/4,W/4]
        h = self.down(self.quarter(h))  # [B,c8,H/8,W/8]
        return h + self.shortcut(F.pixel_unshuffle(x, GRID))

    def heads(self, features: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,c8,h,w], quality_index [B] or [B,h,w] -> code features [B,n,h,w], importance [B,1,h,w].

        Neither has its sigmoid yet.
        """
        h = self.quality_out(self.eighth(self.quality_in(features, quality_index)), quality_index)
        importance = self.quality_importance(self.importance(h), quality_index)
        return self.codes(h).float(), importance.float()

    def forward(self, x: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """x [B,3,H,W] in [0,1] (H, W multiples of 8) -> as `heads`."""
        return self.heads(self.features(x), quality_index)


class Decoder(nn.Module):
    """Codes in {-1, 0, 1} -> pixels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, count = config.quarter_channels, config.eighth_channels, config.quality_count
        self.stem = nn.Conv2d(config.planes, c8, 3, padding=1)
        self.quality_in = QualityModulation(c8, count)
        self.eighth = blocks(config.decoder_eighth_blocks, c8)
        self.quality_out = QualityModulation(c8, count)
        self.up = nn.Conv2d(c8, c4 * 4, 1)
        self.shortcut_in = nn.Conv2d(c8, 3 * GRID * GRID, 1)  # linear block transforms beside the trunk
        self.shortcut_out = nn.Conv2d(c8, 3 * GRID * GRID, 1)
        self.quarter = blocks(config.decoder_quarter_blocks, c4)
        self.out = nn.Conv2d(c4, 3 * 4 * 4, 3, padding=1)

    def forward(self, codes: Tensor, quality_index: Tensor) -> Tensor:
        """codes [B,n,h,w], quality_index [B] or [B,h,w] -> picture [B,3,8h,8w]; nominally in [0,1], not clamped."""
        x = self.quality_in(self.stem(codes), quality_index)  # [B,c8,h,w]
        linear = self.shortcut_in(x)
        x = self.quality_out(self.eighth(x), quality_index)
        linear = F.pixel_shuffle((linear + self.shortcut_out(x)).float(), GRID)  # [B,3,8h,8w]
        x = self.quarter(F.pixel_shuffle(self.up(x), 2))  # [B,c4,2h,2w]
        return (F.pixel_shuffle(self.out(x).float(), 4) + linear) * 0.5 + 0.5
