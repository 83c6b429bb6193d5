"""How far pictures are from their originals, and what a file costs: the facts that measures share.

Invariant: a constant of a measure stands here alone. This package's root knows no torch.
"""

import numpy as np

WINDOW = 11
"""Side of the Gaussian window in pixels; smaller pictures have no SSIM."""

SIGMA = 1.5
"""Of that window, in pixels."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, each scale half as fine as the one before (Wang et al. 2003)."""

MS_SSIM_SCALES = len(SCALE_WEIGHTS)


def smallest_side(scales: int) -> int:
    """Smallest side in pixels on which the window fits at that many scales."""
    return ((WINDOW - 1) << (scales - 1)) + 1


MS_SSIM_MIN_SIDE = smallest_side(MS_SSIM_SCALES)
"""Smallest side in pixels that MS-SSIM is defined for with all its scales."""

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601: weights of R, G and B; in 0..255, with 16 added, they make a luma of 16..235."""


def bits_per_pixel(size_bytes: int, width: int, height: int) -> float:
    """The rate of a file of `size_bytes` that holds width x height pixels."""
    return 8 * size_bytes / (width * height)
