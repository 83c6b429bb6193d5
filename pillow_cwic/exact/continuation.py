"""What is put where a picture is hidden from the networks: a smooth continuation of what is around.

Neighbours of exact blocks would else pay for edges that nobody sees. A pull-push pyramid (Gortler
et al. 1996, "The Lumigraph"): means of what is visible, coarser and coarser, fill what is hidden.
Knows pixels only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


def continue_smoothly(pixels: Pixels, hidden: Mask) -> Pixels:
    """Pixels uint8 [H,W,3] -> the same, but for those that are hidden [H,W].

    Where all are hidden, they stay as they are.
    """
    if hidden.all() or not hidden.any():
        return pixels
    weight = (~hidden).astype(np.float32)[:, :, None]  # [H,W,1]
    filled = _fill(pixels * weight, weight)
    np.rint(filled, out=filled)
    return np.where(hidden[:, :, None], filled.clip(0, 255).astype(np.uint8), pixels)


def _fill(weighted: Floats, weight: Floats) -> Floats:
    """Values times their weights [H,W,3], weights [H,W,1] in 0..1 -> values everywhere."""
    if weight.all():
        return weighted / weight
    height, width = weight.shape[:2]
    if height == width == 1:  # nothing is visible in this corner
        return weighted
    below_sum, below_weight = _halved(weighted), _halved(weight)
    full: Floats = np.maximum(below_weight, 1)  # several visible pixels count as one
    below = _fill(below_sum / full, below_weight / full)
    around = _doubled(below, (height, width))
    around *= 1 - weight
    around += weighted
    return around


def _halved(values: Floats) -> Floats:
    """Sums of 2 x 2 values, [H,W,C] -> [ceil(H/2),ceil(W/2),C]."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    sums: Floats = padded[::2] + padded[1::2]
    return sums[:, ::2] + sums[:, 1::2]


def _doubled(values: Floats, shape: tuple[int, int]) -> Floats:
    """Values [h,w,C] interpolated linearly -> [H,W,C]."""
    tall = _doubled_rows(values)[: shape[0]]
    wide = _doubled_rows(tall.transpose(1, 0, 2))[: shape[1]]
    return wide.transpose(1, 0, 2)


def _doubled_rows(values: Floats) -> Floats:
    above = np.concatenate([values[:1], values[:-1]])
    below = np.concatenate([values[1:], values[-1:]])
    out = np.empty((2 * values.shape[0], *values.shape[1:]), np.float32)
    out[::2] = values * np.float32(0.75) + above * np.float32(0.25)
    out[1::2] = values * np.float32(0.75) + below * np.float32(0.25)
    return out
