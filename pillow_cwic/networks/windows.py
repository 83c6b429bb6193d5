"""Windows: the pieces in which the CNNs work through a picture of any size.

A window is a core and a halo as wide as the receptive field, so that the seams do not show. Memory
is bounded by the window, not by the picture. Knows boxes and pixels, no network.
"""

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box, divide

Pixels = NDArray[np.uint8]
"""[H,W,3]."""

LARGEST_WINDOW = 64
"""Largest side of a window's core in code positions (1024 pixels): bounds the memory of the CNNs."""


def windows(area: Box, height: int | None = None) -> list[Box]:
    """Cores of about equal size that cover `area` on the code grid, none wider than LARGEST_WINDOW or higher than `height`.

    The default height is LARGEST_WINDOW, too.
    """
    columns, rows = -(-area.width // LARGEST_WINDOW), -(-area.height // (height or LARGEST_WINDOW))
    side = (-(-area.width // columns), -(-area.height // rows))
    return divide(area, *side)


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The pixels [H,W,3] in `box`.

    Beyond the right and lower border the last column and row repeat.
    """
    inside = pixels[box.slices]
    missing = (box.height - inside.shape[0], box.width - inside.shape[1])
    if missing == (0, 0):
        return inside.copy()  # writable, which torch insists on
    return np.pad(inside, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
