"""The Gaussian window of SSIM, moved over a picture: products with blocks of a banded matrix.

This module knows arrays only.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..runtime.blas import matmul
from . import SIGMA, WINDOW

T = TypeVar("T", bound=np.floating[Any])

BLOCK = 32
"""Outputs of a product with a banded matrix: wider ones multiply more zeros."""


def blur(x: NDArray[T]) -> NDArray[T]:
    """The Gaussian window at every place where it fits, [H,W] -> [H-10,W-10]."""
    height, width = (side - WINDOW + 1 for side in x.shape)
    across = np.empty((x.shape[0], width), x.dtype)
    whole = _BAND.astype(x.dtype)
    for left in range(0, width, BLOCK):
        count = min(BLOCK, width - left)
        band = whole[: count + WINDOW - 1, :count]
        matmul(x[:, left : left + len(band)], band, across[:, left : left + count])
    out = np.empty((height, width), x.dtype)
    for top in range(0, height, BLOCK):
        count = min(BLOCK, height - top)
        band = whole[: count + WINDOW - 1, :count]
        matmul(band.T, across[top : top + len(band)], out[top : top + count])
    return out


def spread(slope: NDArray[T]) -> NDArray[T]:
    """A gradient behind `blur` -> before it: [H-10,W-10] -> [H,W]. The window is symmetric."""
    border = WINDOW - 1
    height, width = slope.shape
    wide = np.zeros((height + 2 * border, width + 2 * border), slope.dtype)
    wide[border:-border, border:-border] = slope
    return blur(wide)


def _band() -> NDArray[np.float64]:
    """The window as a banded matrix: BLOCK + 10 inputs, BLOCK outputs."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * SIGMA**2))
    band = np.zeros((BLOCK + WINDOW - 1, BLOCK))
    for column in range(BLOCK):
        band[column : column + WINDOW, column] = taps / taps.sum()
    return band


_BAND = _band()
