"""How far pictures are from their originals, and what a file costs: the facts that measures share.

Invariant: a constant of a measure stands here alone. No torch.
"""

import numpy as np

WINDOW = 11
"""Side of the Gaussian window in pixels; smaller pictures have no SSIM."""

SIGMA = 1.5
"""Of that window, in pixels."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, each scale half as fine as the one before (Wang et al. 2003)."""

MS_SSIM_SCALES = len(SCALE_WEIGHTS)

MS_SSIM_FACTOR = 671.0
"""In the distortion: brings 1 - MS-SSIM to about the size of the squared error around 30 dB."""

SSIM_FACTOR = 200.0
"""Brings 1 - SSIM to about the same."""

LUMINANCE_CONSTANT = 0.01**2
CONTRAST_CONSTANT = 0.03**2
"""C1 and C2 of Wang et al. 2004, for values in [0, 1]."""

LEAST_MEAN = 1e-4
"""What a scale of MS-SSIM counts at least: powers of negative numbers are none."""


def smallest_side(scales: int) -> int:
    """Smallest side in pixels on which the window fits at that many scales."""
    return ((WINDOW - 1) << (scales - 1)) + 1


def scale_weights(shorter_side: int) -> list[float]:
    """MS-SSIM's exponents for a picture: of as many scales as the window fits on, of equal sum.

    ValueError for sides under WINDOW.
    """
    scales = sum(shorter_side >= smallest_side(count) for count in range(1, MS_SSIM_SCALES + 1))
    if scales == 0:
        raise ValueError(
            f"MS-SSIM needs at least {WINDOW} pixels on each side, found {shorter_side}"
        )
    share = sum(SCALE_WEIGHTS) / sum(SCALE_WEIGHTS[:scales])
    return [weight * share for weight in SCALE_WEIGHTS[:scales]]


MS_SSIM_MIN_SIDE = smallest_side(MS_SSIM_SCALES)
"""Smallest side in pixels that MS-SSIM is defined for with all its scales."""

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601: weights of R, G and B; in 0..255, with 16 added, they make a luma of 16..235."""


def bits_per_pixel(size_bytes: int, width: int, height: int) -> float:
    """The rate of a file of `size_bytes` that holds width x height pixels."""
    return 8 * size_bytes / (width * height)
