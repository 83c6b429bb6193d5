"""The encoder CNN: pixels -> features of the codes and of the importance map (paper, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..format.grid import GRID
from .config import ModelConfig
from .layers import Gain, QualityModulation, ResidualBlock, blocks, unshuffled

OPEN_LOGIT = 3.0
"""First bias of the importance map: all positions start at the highest level, and the rate closes what it can."""


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
        self.shortcut_eighth = nn.Conv2d(
            3 * 8 * 8, c8, 1
        )  # linear block transforms beside the trunk
        self.eighth = blocks(n8, c8)
        self.down = nn.Conv2d(c8, c16, 4, 2, 1)
        self.shortcut = nn.Conv2d(3 * GRID * GRID, config.channels, 1)
        self.quality_in = QualityModulation(c16, count)
        self.sixteenth = blocks(n16, c16)
        self.quality_out = QualityModulation(c16, count)
        self.codes = nn.Conv2d(c16, config.channels, 3, padding=1)
        self.gain = Gain(config)
        self.importance = nn.Sequential(
            nn.Conv2d(c16, side, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(side),
            nn.Conv2d(side, 1, 1),
        )
        self.quality_importance = QualityModulation(1, count)
        if (
            not self.codes.weight.is_meta
        ):  # there, normal_ would import torch's compiler: two seconds for nothing
            nn.init.normal_(self.importance[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.constant_(self.importance[-1].bias, OPEN_LOGIT)  # type: ignore[arg-type]
        self.trunk = c16

    def features(self, x: Tensor) -> Tensor:
        """The part that does not depend on the quality: x [B,3,H,W] in [0,1] -> [B,c16+n,H/16,W/16] float32."""
        x = x * 2 - 1
        h = F.relu(self.stem(unshuffled(x, 4)), inplace=True)  # [B,c4,H/4,W/4]
        h = self.down_eighth(self.quarter(h)) + self.shortcut_eighth(
            unshuffled(x, 8)
        )  # [B,c8,H/8,W/8]
        h = self.down(self.eighth(h))  # [B,c16,H/16,W/16]
        with torch.autocast(
            x.device.type, enabled=False
        ):  # codes are rounded: bfloat16 would add to their error
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
