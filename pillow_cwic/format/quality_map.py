"""The quality map: what a user's picture of importance becomes, in the file and on the code grid.

Importance shifts the quality index, block by block; the section QMAP holds the shift as a small
PNG. Between the centres of blocks the offset is linear: a step in quality would show as an edge.
Knows no model beyond its number of qualities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UnsupportedError
from .framing import Payload
from .grid import GRID, Box, code_grid
from .png_plane import decode_plane, encode_plane

NEUTRAL = 128
"""The grey level of an importance picture that leaves bits where the model puts them."""

BLOCK = 32
"""Pixels per side of the blocks in which offsets are stored."""

MOST_BLOCKS = 1 << 24
"""Of a quality map: those above the part that is asked for have to be unpacked."""

BlockOffsets = NDArray[np.int16]
"""Quality indices to add in each block of the picture, [rows,columns]."""

Offsets = NDArray[np.float32]
"""Quality indices to add at each code position, [h,w]."""


def block_offsets(
    importance: NDArray[np.uint8], size: tuple[int, int], quality_count: int
) -> BlockOffsets | None:
    """A mask of importance [H,W] -> offsets of each block, int16 [rows,columns].

    128 changes nothing, 255 adds half of the model's quality range, 0 takes half of it away. A size
    other than the picture's (width, height) is resized to it. None where nothing changes.
    """
    mask = Image.fromarray(importance)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)

    # Means of whole blocks; the last row and column repeat beyond the picture.
    pixels = np.asarray(mask, np.float32)  # [H,W]
    missing = (-pixels.shape[0] % BLOCK, -pixels.shape[1] % BLOCK)
    pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1])), mode="edge")
    rows, columns = (side // BLOCK for side in pixels.shape)
    means = pixels.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))  # [rows,columns]

    offsets = np.rint((means - NEUTRAL) / NEUTRAL * (quality_count / 2)).astype(np.int16)
    return offsets if offsets.any() else None


def pack_quality_map(offsets: BlockOffsets) -> bytes:
    """Offsets [rows,columns] -> the payload of QMAP."""
    return encode_plane((offsets + NEUTRAL).astype(np.uint8))


def offsets_in_file(payload: Payload, size: tuple[int, int], area: Box) -> Offsets:
    """The payload of QMAP of a picture of `size` (w, h) -> at the code positions of `area`, [h,w].

    Takes memory for that part alone. FormatError where it is no such plane; UnsupportedError where
    it has too many blocks to be unpacked.
    """
    blocks = Box(0, 0, *(-(-side // BLOCK) for side in size))
    if blocks.width * blocks.height > MOST_BLOCKS:
        raise UnsupportedError(
            f"section QMAP: {blocks.width} x {blocks.height} blocks, expected at most {MOST_BLOCKS}"
        )
    # The blocks around a position's centre.
    half = area.shift(-1, -1)
    near = Box(half.left // 2, half.upper // 2, half.right // 2 + 2, half.lower // 2 + 2)
    near = near.intersection(blocks)
    plane = decode_plane(payload, (blocks.width, blocks.height), "QMAP", near)
    return _on_grid(plane.astype(np.float32) - NEUTRAL, near, blocks, area)


def offsets_on_grid(offsets: BlockOffsets, size: tuple[int, int]) -> Offsets:
    """Offsets [rows,columns] of a picture of `size` pixels -> at every code position, [h,w]."""
    blocks = Box(0, 0, offsets.shape[1], offsets.shape[0])
    return _on_grid(offsets.astype(np.float32), blocks, blocks, code_grid(*size))


def _on_grid(offsets: NDArray[np.float32], near: Box, blocks: Box, area: Box) -> Offsets:
    """Offsets of the blocks `near` -> at the code positions of `area`; the picture has `blocks`."""
    rows = _Axis(range(area.upper, area.lower), near.upper, blocks.height)
    columns = _Axis(range(area.left, area.right), near.left, blocks.width)
    down = rows.interpolate(offsets)  # [h,columns]
    return np.ascontiguousarray(columns.interpolate(down.T).T)  # [h,w]


class _Axis:
    """Where code positions lie between blocks, along one axis."""

    def __init__(self, positions: range, first: int, count: int) -> None:
        """first: the block that an array of blocks begins with; count: blocks of the picture."""
        numbers = np.arange(positions.start, positions.stop, dtype=np.float32)
        centres = ((numbers + 0.5) * (GRID / BLOCK) - 0.5).clip(0, count - 1)
        before = centres.astype(np.int64)
        self._weight = (centres - before)[:, None]
        self._before = before - first
        self._after = np.minimum(before + 1, count - 1) - first

    def interpolate(self, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        """blocks [m,k], one row for BLOCK pixels -> [count,k], one row per code position."""
        before = blocks[self._before] * (1 - self._weight)
        return np.asarray(before + blocks[self._after] * self._weight, np.float32)
