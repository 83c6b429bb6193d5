"""Neighbourhoods on a map of code positions: a 3x3 or 5x5 layer becomes a matrix product.

Maps are [h,w,c] with a border of zeros, which is what positions outside the map read as.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


def bordered(shape: tuple[int, int], channels: int, radius: int, dtype: Any) -> NDArray[Any]:
    """Zeros for a map of `shape` and a border of `radius`, [h+2 radius,w+2 radius,channels]."""
    height, width = shape
    return np.zeros((height + 2 * radius, width + 2 * radius, channels), dtype)


def inside(padded: NDArray[Number], radius: int) -> NDArray[Number]:
    """The map without its border, [h,w,c]; a view."""
    return padded[radius:-radius, radius:-radius]


def squares(padded: NDArray[Number], radius: int) -> NDArray[Number]:
    """The square around every position, row by row, [h,w,side,side*c]; a view.

    padded [h+2 radius,w+2 radius,c].
    """
    padded = np.ascontiguousarray(padded)  # then a row of a square is one run of memory
    side = 2 * radius + 1
    height, width, channels = padded.shape
    shape = (height - side + 1, width - side + 1, side, side * channels)
    row, column, item = padded.strides
    return as_strided(padded, shape, (row, column, row, item), writeable=False)
