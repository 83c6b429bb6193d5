"""Convolutions of side 3 in a quarter of their multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308). Tiles of
4 x 4 outputs see 6 x 6 inputs, two more than their distance, so neighbours overlap. Both are taken
into a basis where the convolution is 36 products of matrices, one for each element of a tile:

    outputs = AT [ (G w GT) * (BT inputs B) ] A

The changes of basis are matrix products, too, of all tiles at once. In float32 the error is some
1e-5 of the result, ten times a plain convolution's. This module knows no layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..runtime.blas import matmul
from .registers import Floats, Workspace

SIDE = 4
"""Of a tile of outputs."""

SEEN = SIDE + 2
"""Side of what a tile sees."""

_INPUTS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)  # BT

_WEIGHTS = (
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
)  # G

_OUTPUTS = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)  # AT

_TO_BASIS: Floats = np.kron(_INPUTS, _INPUTS).astype(np.float32)  # [36,36], along both axes
_WEIGHTS_TO_BASIS: Floats = np.kron(_WEIGHTS, _WEIGHTS).astype(np.float32)  # [36,9]
_FROM_BASIS: Floats = np.kron(_OUTPUTS, _OUTPUTS).astype(np.float32)  # [16,36]


class Winograd:
    """A convolution of side 3 with its weights in the basis, ready for any number of tiles."""

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        """weight [out,in,3,3], bias [out]."""
        self.outputs, inputs = weight.shape[:2]
        by_tap = np.asarray(weight.transpose(2, 3, 1, 0).reshape(9, -1), np.float32)
        self.weight = matmul(_WEIGHTS_TO_BASIS, by_tap).reshape(-1, inputs, self.outputs)
        self.bias = np.ascontiguousarray(bias, np.float32)

    def __call__(self, padded: Floats, relu: bool, space: Workspace) -> Floats:
        """padded [4y+2,4x+2,in], tiles and a border -> [4,4,y,x,out]: by place within a tile.

        Of inputs that are 0 the last ones may be left out.
        """
        rows, columns = (side // SIDE for side in padded.shape[:2])
        elements = len(self.weight)
        inputs = padded.shape[2]
        tiles = space.take("tiles", SEEN, SEEN, rows, columns, inputs)
        row, column, item = padded.strides
        strides = (row, column, SIDE * row, SIDE * column, item)
        np.copyto(tiles, as_strided(padded, tiles.shape, strides, writeable=False))

        # Into the basis, multiplied there, and back.
        in_basis = space.take("in basis", elements, rows * columns, inputs)
        matmul(_TO_BASIS, tiles.reshape(elements, -1), in_basis.reshape(elements, -1))
        products = space.take("tiles", elements, rows * columns, self.outputs)
        matmul(in_basis, self.weight[:, :inputs], products)
        out = space.take("tiled", SIDE, SIDE, rows, columns, self.outputs)
        matmul(_FROM_BASIS, products.reshape(elements, -1), out.reshape(SIDE**2, -1))
        out += self.bias
        if relu:
            np.maximum(out, 0, out=out)
        return out

    @staticmethod
    def tile_floats(channels: int) -> int:
        """How many numbers of so many channels a tile has in memory, on the way."""
        return (2 * SEEN**2 + SIDE**2) * channels


def tiles_over(positions: int) -> int:
    """How many tiles cover so many positions along an axis."""
    return -(-positions // SIDE)


def scatter(tiled: Floats, target: Floats, *, add: bool = False) -> None:
    """What lies by place within a tile [4,4,y,x,c] -> target [h,w,c], cut off there; or added."""
    for row in range(SIDE):
        for column in range(SIDE):
            there = target[row::SIDE, column::SIDE]
            here = tiled[row, column, : there.shape[0], : there.shape[1]]
            if add:
                there += here
            else:
                there[...] = here
