"""The quality map: what a user's picture of importance becomes, in the file and on the code grid.

Importance shifts the quality index, block by block; the section QMAP holds the shift as a small
PNG. Between the centres of blocks the offset is linear: a step in quality would show as an edge.
Knows no model beyond its number of qualities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .grid import GRID, code_grid
from .png_plane import decode_plane, encode_plane

if TYPE_CHECKING:
    Importance: TypeAlias = Image.Image | ArrayLike

NEUTRAL = 128
"""The grey level of an importance picture that leaves bits where the model puts them."""

BLOCK = 32
"""Pixels per side of the blocks in which offsets are stored."""

BlockOffsets = NDArray[np.int16]
"""Quality indices to add in each block of the picture, [rows,columns]."""

Offsets = NDArray[np.float32]
"""Quality indices to add at each code position, [h,w]."""


def block_offsets(
    importance: Importance | None, size: tuple[int, int], quality_count: int
) -> BlockOffsets | None:
    """A picture of importance -> offsets of each block, int16 [rows,columns].

    `importance` is an "L" image or a uint8 array [H,W]: 128 changes nothing, 255 adds half of the
    model's quality range, 0 takes half of it away. A size other than the picture's (width, height)
    is resized to it. None where nothing changes; ValueError for what is no grey picture.
    """
    if importance is None:
        return None
    mask = _grey_image(importance)
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


def unpack_quality_map(payload: bytes, size: tuple[int, int]) -> BlockOffsets:
    """The payload of QMAP -> offsets [rows,columns] of a picture of `size` (width, height).

    FormatError where it is no such plane.
    """
    columns, rows = (-(-side // BLOCK) for side in size)
    plane = decode_plane(payload, (columns, rows), "QMAP")
    return plane.astype(np.int16) - NEUTRAL


def offsets_on_grid(offsets: BlockOffsets, size: tuple[int, int]) -> Offsets:
    """Offsets [rows,columns] of a picture of `size` pixels -> at every code position, [h,w]."""
    grid = code_grid(*size)
    down = _interpolated(offsets.astype(np.float32), grid.height)  # [h,columns]
    return np.ascontiguousarray(_interpolated(down.T, grid.width).T)  # [h,w]


def _interpolated(blocks: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """blocks [m,k], one row for BLOCK pixels -> [count,k], one row per code position."""
    positions = np.arange(count, dtype=np.float32)
    centres = ((positions + 0.5) * (GRID / BLOCK) - 0.5).clip(0, len(blocks) - 1)
    before = centres.astype(np.int64)
    after = np.minimum(before + 1, len(blocks) - 1)
    weight = (centres - before)[:, None]
    return blocks[before] * (1 - weight) + blocks[after] * weight


def _grey_image(importance: Importance) -> Image.Image:
    if isinstance(importance, Image.Image):
        return importance if importance.mode == "L" else importance.convert("L")
    pixels = np.asarray(importance)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(
            'importance is an "L" image or a uint8 array HxW, '
            f"found {pixels.dtype} of shape {pixels.shape}"
        )
    return Image.fromarray(pixels)
