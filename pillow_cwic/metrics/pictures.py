"""How far a decoded picture is from its original: PSNR and SSIM.

Invariant: SSIM equals scikit-image's `structural_similarity(..., gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, data_range=255)` on the luma, the variant in which the paper's figures
are given. This module knows arrays only: no files, no codec, no torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import LUMA, WINDOW
from .window import blur

_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
"""Wang et al. 2004, for 8 bits."""


def psnr(reference: ArrayLike, distorted: ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures of one shape; equal ones: infinite."""
    a, b = _pair(reference, distorted)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(reference: ArrayLike, distorted: ArrayLike) -> float:
    """Structural similarity of two uint8 pictures, [H,W] or RGB [H,W,3], on their luma.

    1 if they are equal. Mean over the valid region: where the Gaussian window lies inside the
    picture. ValueError for smaller pictures.
    """
    a, b = (luma(picture) for picture in _pair(reference, distorted))  # [H,W]
    if min(a.shape) < WINDOW:
        raise ValueError(
            f"SSIM needs at least {WINDOW} x {WINDOW} pixels, found {a.shape[1]} x {a.shape[0]}"
        )

    # Moments in each place of the window, [H-10,W-10].
    mean_a = blur(a)
    mean_b = blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b

    # Luminance times contrast and structure.
    similarity = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    similarity /= (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    return float(similarity.mean())


def luma(picture: ArrayLike) -> NDArray[np.float64]:
    """Rounded BT.601 luma in 16..235 of RGB [H,W,3]; grey [H,W] stays as it is -> [H,W]."""
    pixels = np.asarray(picture, dtype=np.float64)
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"expected [H,W] or [H,W,3] without alpha, found shape {list(pixels.shape)}"
        )
    return np.rint(pixels @ LUMA + 16)


def _pair(
    reference: ArrayLike, distorted: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a = np.asarray(reference)
    b = np.asarray(distorted)
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"expected two uint8 pictures, found {a.dtype} and {b.dtype}")
    if a.shape != b.shape:
        raise ValueError(
            f"expected two pictures of one shape, found {list(a.shape)} and {list(b.shape)}"
        )
    return a.astype(np.float64), b.astype(np.float64)
