"""How far pictures are from their originals, and what a file costs: what both measures share.

No torch.
"""

import numpy as np

WINDOW = 11
"""Side of the Gaussian window in pixels; smaller pictures have no SSIM."""

SIGMA = 1.5
"""Of that window, in pixels."""

MS_SSIM_SCALES = 5
"""Scales of MS-SSIM, each half as fine as the one before."""

MS_SSIM_MIN_SIDE = (WINDOW - 1) * 2 ** (MS_SSIM_SCALES - 1) + 1
"""Smallest side in pixels that MS-SSIM is defined for with all its scales."""
LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601: weights of R, G and B; in 0..255, with 16 added, they make a luma of 16..235."""


def bits_per_pixel(size_bytes: int, width: int, height: int) -> float:
    """The rate of a file of `size_bytes` that holds width x height pixels."""
    return 8 * size_bytes / (width * height)
