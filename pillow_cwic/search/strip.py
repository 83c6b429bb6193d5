"""A part of a tile whose codes are refined, small enough for gradients.

Invariant: what lies beyond the picture, or is shown from elsewhere, counts for nothing. This module
knows pixels and places, no codes and no network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..analysis import Analysis
from ..format.exact_tile import Mask
from ..format.grid import GRID, Box
from ..metrics import WINDOW
from ..networks.windows import cut

HALO = 4
"""Code positions around a tile whose pixels count while its codes are refined.

What the decoder's reach holds beyond them matters little, and memory does.
"""


class Strip:
    """A part of a tile for which gradients take little memory, and what it should look like."""

    def __init__(
        self, analysis: Analysis, quality_index: int, area: Box, core: Box, exact: Mask
    ) -> None:
        """area: the strip, in the tile `core`; both on the picture's code grid, as `exact` is."""
        window = area.grow(HALO, analysis.grid)
        self.window = window.within(core.grow(HALO, analysis.grid)).slices
        """In the tile's codes, halo included."""

        self.inside = area.within(window).slices
        """The strip in its window."""

        self.own = area.within(core).slices
        """The strip in the tile."""

        # What lies beyond the picture does not count, as far as similarities fit without it.
        full = window.scale(GRID)
        height, width = analysis.pixels.shape[:2]
        rows = max(WINDOW, min(full.height, height - full.upper))
        columns = max(WINDOW, min(full.width, width - full.left))
        pixels = torch.from_numpy(cut(analysis.pixels, full)[:rows, :columns].copy())
        self.original = pixels.permute(2, 0, 1)[None].float() / 255  # [1,3,H,W]
        unseen = torch.from_numpy(exact[window.slices].copy())
        unseen = unseen.repeat_interleave(GRID, 0).repeat_interleave(GRID, 1)
        beyond = (0, columns - unseen.shape[1], 0, rows - unseen.shape[0])
        self.unseen = F.pad(unseen, beyond)
        """Pixels [H,W] that the decoder takes from elsewhere: no error there counts."""

        quality = analysis.model.quality_input(quality_index, analysis.offsets, window)
        self.quality = torch.as_tensor(quality)[None].float()  # [1] or [1,h,w]
        share = area.width * area.height / (window.width * window.height)
        self.pixels = int(rows * columns * share)
        """The strip's share of the window's pixels."""
