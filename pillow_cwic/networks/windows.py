"""Windows: the pieces in which the CNNs work through a picture of any size.

         halo                       ┌──────────────┐
      ┌───────┬────────────┐        │ ┌──────────┐ │   core: what this window contributes
      │ window│ core       │        │ │   core   │ │   window: core + halo, cut off at the
      └───────┴────────────┘        │ └──────────┘ │   picture's border, where the network sees
      picture's border              └──────────────┘   zeros as it does for a whole picture

The halo is as wide as the receptive field, so that seams do not show. Memory is bounded by the
window, not by the picture. Knows boxes and pixels, no network.
"""

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box, divide

Pixels = NDArray[np.uint8]
"""[H,W,3]."""

LARGEST_WINDOW = 64
"""Largest side of a window's core in code positions (1024 pixels): bounds the CNNs' memory."""

SMALLEST_SHARE = 12
"""Smallest side of a core that is cut only to give every processor core work: halos cost."""


def windows(
    area: Box, *, height: int = 0, least: int = 1, largest: int = LARGEST_WINDOW, halo: int = 0
) -> list[Box]:
    """Cores of about equal size that cover `area` on the code grid, row-major.

    None is wider than `largest`, or higher than `height`, by default `largest`, too. But where the
    area is narrower, they are longer: with a halo, as large as a square. Where the area is large
    enough, they are at least so many as `least` says.
    """
    longest = [
        (largest + 2 * halo) ** 2 // (min(side, largest) + 2 * halo) - 2 * halo
        for side in (area.height, area.width)
    ]
    columns = -(-area.width // longest[0])
    rows = -(-area.height // (height or longest[1]))
    while columns * rows < least:
        wide = area.width / columns >= area.height / rows
        if (area.width / columns if wide else area.height / rows) < 2 * SMALLEST_SHARE:
            break
        columns += wide
        rows += not wide
    return divide(area, -(-area.width // columns), -(-area.height // rows))


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The pixels in `box`; beyond the picture its last column and row repeat."""
    inside = pixels[box.slices]
    below = box.height - inside.shape[0]
    beside = box.width - inside.shape[1]
    if below == beside == 0:
        return inside
    return np.pad(inside, ((0, below), (0, beside), (0, 0)), mode="edge")
