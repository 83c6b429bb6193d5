"""What a block of 16 x 16 pixels costs, exactly or by a model, judged by the pixels alone.

Either estimate is right within a factor of two for most blocks. Text and photographs lie many times
apart, on either side. Knows pixels and lambda, no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..format.grid import GRID, Box

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Packed = NDArray[np.uint32]

TABLE_BITS = 22
"""Of the hash of a pixel's surroundings."""

SORTED_BELOW = 1 << 17
"""Pixels of a tile so small that to sort its hashes takes less than to clear their table."""

SEEN_BEFORE = 1.7
"""Bits of lossless WebP for each bit by the counts below: it repeats runs, and guesses less."""

BY_TRANSFORM = 2.3
"""Bits and distortion of a model for each bit by the transform below."""

AT_LEAST = 20.0
"""Bits of any block by a model. (Flat ground is exact beside text: it costs nothing there.)"""


def exact_bits(pixels: Pixels, box: Box) -> Floats:
    """Lossless bits of the blocks of a tile, uint8 [H,W,3] -> [h,w]; box: the tile's positions.

    A pixel costs what its surroundings leave open: how often the tile has them, and how often with
    this pixel; one that was never there is told by how far it is from a guess.
    """
    packed = pixels.astype(np.uint32)
    colour = packed @ np.array([1 << 16, 1 << 8, 1], np.uint32)  # [H,W]
    padded: Packed = np.pad(colour, ((1, 0), (1, 1)), mode="edge")
    around = _hash(padded[1:, :-2], padded[:-1, :-2], padded[:-1, 1:-1], padded[:-1, 2:])
    surroundings = _counts(around)
    together = _counts(_hash(around, colour))
    known = (together - 1) / surroundings
    new = np.exp2(-_bits_of_new(pixels)) / surroundings
    return SEEN_BEFORE * block_sums(-np.log2(known + new), box)


def coded_cost(pixels: Pixels, weight: float | Floats, box: Box) -> Floats:
    """Bits and lambda * squared error of a model's blocks [h,w], as of a transform codec.

    weight: lambda, one or one for each position [h,w]. A coefficient costs the bits of its size in
    steps that are worth their bits.
    """
    missing = (box.height * GRID - pixels.shape[0], box.width * GRID - pixels.shape[1])
    padded = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    planes = padded.astype(np.float32) @ _LUMA_CHROMA
    blocks = planes.reshape(box.height, GRID, box.width, GRID, 3).transpose(0, 2, 4, 1, 3)
    energy = np.square(_COSINES @ blocks @ _COSINES.T)  # [h,w,3,16,16]
    energy[..., 0, 0] = 0  # the mean follows from the neighbours
    energy *= np.reshape(np.asarray(weight, np.float32), (*np.shape(weight), 1, 1, 1))
    bits: Floats = np.log2(1 + energy).sum((2, 3, 4)) / 2
    return BY_TRANSFORM * bits + AT_LEAST


def block_sums(values: NDArray[Any], box: Box) -> Floats:
    """Values [H,W] of a tile's pixels -> sums over the blocks of its positions, [h,w]."""
    missing = (box.height * GRID - values.shape[0], box.width * GRID - values.shape[1])
    padded = np.pad(values, ((0, missing[0]), (0, missing[1])))
    blocks = padded.reshape(box.height, GRID, box.width, GRID)
    sums: Floats = blocks.sum((1, 3), dtype=np.float32)
    return sums


def _hash(*values: Packed) -> Packed:
    """Numbers [H,W] mixed into one below 2^TABLE_BITS, [H,W]."""
    mixed = np.zeros_like(values[0])
    for value in values:
        mixed ^= value
        mixed *= np.uint32(0x9E3779B1)
        mixed ^= mixed >> np.uint32(15)
    return mixed >> np.uint32(32 - TABLE_BITS)


def _counts(keys: Packed) -> Floats:
    """How often each key [H,W] is there, itself included, [H,W]."""
    flat = keys.reshape(-1)
    if flat.size < SORTED_BELOW:
        _, row, count = np.unique(flat, return_inverse=True, return_counts=True)
        return np.asarray(count[row].reshape(keys.shape), np.float32)
    table = np.bincount(flat, minlength=1 << TABLE_BITS).astype(np.float32)
    return np.asarray(table[keys], np.float32)


def _bits_of_new(pixels: Pixels) -> Floats:
    """About the bits of pixels that repeat nothing, [H,W]: of what a guess from three leaves."""
    padded = np.pad(pixels.astype(np.int16), ((1, 0), (1, 0), (0, 0)), mode="edge")
    left = padded[1:, :-1]
    above = padded[:-1, 1:]
    slope = left + above - padded[:-1, :-1]
    guess = slope.clip(np.minimum(left, above), np.maximum(left, above))
    error = pixels - guess  # [H,W,3]
    error[..., ::2] -= error[..., 1:2]
    bits: Floats = 3 + 1.25 * np.log2(1 + np.abs(error).astype(np.float32)).sum(2)
    return bits


def _cosines() -> Floats:
    """The orthonormal transform of GRID values [16,16], a row for each frequency."""
    place = (np.arange(GRID) + 0.5) * np.pi / GRID
    rows = np.cos(np.arange(GRID)[:, None] * place) * np.sqrt(2 / GRID)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


_COSINES = _cosines()
_LUMA_CHROMA = np.array(  # BT.601, columns are Y, Cb, Cr
    [[0.299, -0.169, 0.5], [0.587, -0.331, -0.419], [0.114, 0.5, -0.081]], np.float32
)
