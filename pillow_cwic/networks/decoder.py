"""The decoder CNN: integer codes -> pixels (paper, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..format.grid import GRID, Box
from .config import ModelConfig
from .layers import Gain, QualityModulation, blocks, finer, part


class Decoder(nn.Module):
    """Integer codes -> pixels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, c16 = config.quarter_channels, config.eighth_channels, config.sixteenth_channels
        count, (n4, n8, n16) = config.quality_count, config.decoder_blocks
        self.halos = config.decoder_halos
        self.gain = Gain(config)
        self.stem = nn.Conv2d(config.channels, c16, 3, padding=1)
        self.quality_sixteenth = QualityModulation(c16, count)
        self.sixteenth = blocks(n16, c16)
        self.up_eighth = nn.Conv2d(c16, c8 * 4, 1)
        self.quality_eighth = QualityModulation(c8, count)
        self.eighth = blocks(n8, c8)
        self.up = nn.Conv2d(c8, c4 * 4, 1)
        self.quarter = blocks(n4, c4)
        self.out = nn.Conv2d(c4, 3 * 4 * 4, 3, padding=1)
        self.shortcut = nn.Conv2d(config.channels, 3 * GRID * GRID, 1)  # linear block transforms
        self.shortcut_eighth = nn.Conv2d(c8, 3 * 8 * 8, 1)

    def forward(self, codes: Tensor, quality_index: Tensor, core: Box | None = None) -> Tensor:
        """codes [B,n,h,w], quality_index [B] or [B,h,w] -> picture [B,3,16h,16w].

        Nominally in [0,1], not clamped.

        With `core`, a part of the code positions, only its pixels: those of the whole picture, at
        less expense. What they depend on narrows from trunk to trunk.
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
        linear = linear + F.pixel_shuffle(
            self.shortcut_eighth(part(x, core.within(in_eighth).scale(2))).float(), 8
        )
        x = self.up(part(x, in_quarter.within(in_eighth).scale(2)))
        x = self.out(self.quarter(F.pixel_shuffle(x, 2)))
        x = part(x, core.within(in_quarter).scale(4))
        return (F.pixel_shuffle(x.float(), 4) + linear) * 0.5 + 0.5
