"""Bands: the parts of a region whose codes are held at a time, each with the halo of its windows.

      stripe   stripe
    ┌────────┬────────┐   A stripe is so narrow that a row of tiles fits into BAND_BYTES, a band so
    │  band  │  band  │   low that it does. Either ends a halo before a tile does, where the next
    ├────────┤        │   needs what lies behind, too. What a band shares with the one above is
    │  band  ├────────┤   decoded once, what two stripes share twice.
    └────────┴────────┘

So memory is bounded by the band, not by the picture. Knows boxes, no codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..format.grid import GRID, Box, code_grid, covering
from ..format.header import Header
from .config import ModelConfig

BAND_BYTES = 1 << 25
"""Of codes; those of the band above are there, too."""


@dataclass(frozen=True)
class Bands:
    """How regions of a picture are divided."""

    grid: Box
    tile: int  # side in code positions
    halo: int
    position_bytes: int  # of the codes there

    @classmethod
    def of(cls, header: Header, config: ModelConfig, halo: int) -> "Bands":
        """Those of a file."""
        position_bytes = config.channels * np.dtype(np.int16).itemsize
        return cls(code_grid(*header.size), header.tile_size // GRID, halo, position_bytes)

    def stripes(self, region: Box) -> Iterator[Box]:
        """A region of pixels from left to right."""
        area = covering(region)
        height = min(area.grow(self.halo, self.grid).height, self.tile)
        columns = BAND_BYTES // (height * self.position_bytes)
        for left, right in self._parts(area.left, area.right, columns, self.grid.right):
            yield Box(left, area.upper, right, area.lower).scale(GRID).intersection(region)

    def bands(self, stripe: Box) -> Iterator[tuple[Box, Box]]:
        """A stripe from top to bottom: its pixels, and the code positions that these need."""
        area = covering(stripe)
        width = area.grow(self.halo, self.grid).width
        rows = BAND_BYTES // (width * self.position_bytes)
        for upper, lower in self._parts(area.upper, area.lower, rows, self.grid.lower):
            band = Box(area.left, upper, area.right, lower)
            yield band.scale(GRID).intersection(stripe), band.grow(self.halo, self.grid)

    def _parts(self, start: int, end: int, most: int, grid_end: int) -> Iterator[tuple[int, int]]:
        """Rows or columns in parts that need `most`, or what the next tile has where that is more.

        grid_end: where the picture ends.
        """
        needed_end = min(end + self.halo, grid_end)
        while start < end:
            within = (max(start - self.halo, 0) + most) // self.tile * self.tile
            least = (start + self.halo) // self.tile * self.tile + self.tile
            stop = max(within, least)
            part_end = stop - self.halo if stop < needed_end else end
            yield start, part_end
            start = part_end
