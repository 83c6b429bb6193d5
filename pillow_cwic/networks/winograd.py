"""Convolutions in less than half of their multiplications: Winograd's minimal filtering.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308). Tiles of
4 x 4 outputs see neighbourhoods that overlap. Both are taken into a basis where the convolution is
a product of matrices for each element of a tile, 36 for side 3, F(4x4, 3x3):

    outputs = AT [ (G w GT) * (BT inputs B) ] A

With stride 2, side 4 is side 2 on blocks of 2 x 2 positions: F(4x4, 2x2), 25 products. The changes
of basis are matrix products, too, of all tiles at once. In float32 the error is some 1e-5 of the
result, ten times a plain convolution's. This module knows no layers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..runtime.blas import matmul
from .registers import Floats, Workspace

SIDE = 4
"""Of a tile of outputs."""

_POINTS = (0, 1, -1, 2, -2)
"""Where Toom and Cook evaluate polynomials; a basis takes as many as it needs, and infinity."""


class _Basis(NamedTuple):
    """The changes of basis along both axes; seen: the side of what a tile sees."""

    inputs: Floats  # BT x BT: [seen * seen, seen * seen]
    weights: Floats  # G x G: [seen * seen, taps * taps]
    outputs: Floats  # AT x AT: [SIDE * SIDE, seen * seen]


@cache
def _basis(taps: int) -> _Basis:
    """Toom and Cook's, for convolutions of so many taps along each axis."""
    seen = SIDE + taps - 1
    points = np.array(_POINTS[: seen - 1])
    others = [np.delete(points, number) for number in range(len(points))]
    scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]

    # Coefficients rise from left to right; the last row or column is the point at infinity.
    inputs = np.zeros((seen, seen))
    inputs[:-1, :-1] = [np.poly(rest)[::-1] for rest in others]
    inputs[-1] = np.poly(points)[::-1]
    weights = np.zeros((seen, taps))
    weights[:-1] = np.vander(points, taps, increasing=True) / np.array(scales)[:, None]
    weights[-1, -1] = 1
    outputs = np.zeros((SIDE, seen))
    outputs[:, :-1] = np.vander(points, SIDE, increasing=True).T
    outputs[-1, -1] = 1
    return _Basis(*(np.kron(one, one).astype(np.float32) for one in (inputs, weights, outputs)))


class Winograd:
    """A convolution with its weights in the basis, ready for any number of tiles.

    Of side 3 and stride 1, or of side 4 and stride 2.
    """

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any], stride: int = 1) -> None:
        """weight [out,in,side,side], bias [out]."""
        self.outputs, inputs, side, _ = weight.shape
        self.stride = stride
        self.taps = side // stride  # of blocks
        self.basis = _basis(self.taps)
        by_tap = weight.reshape(self.outputs, inputs, self.taps, stride, self.taps, stride)
        by_tap = by_tap.transpose(2, 4, 3, 5, 1, 0).reshape(self.taps**2, -1)
        in_basis = matmul(self.basis.weights, np.asarray(by_tap, np.float32))
        self.weight = in_basis.reshape(len(in_basis), -1, self.outputs)  # [seen**2,in,out]
        self.bias = np.ascontiguousarray(bias, np.float32)

    @property
    def tile_floats(self) -> int:
        """How many numbers a tile has in memory, on the way."""
        elements, inputs, outputs = self.weight.shape
        return 2 * elements * max(inputs, outputs) + SIDE**2 * outputs

    def __call__(self, padded: Floats, relu: bool, space: Workspace) -> Floats:
        """padded [4sy+2,4sx+2,in], with stride s -> tiles [4,4,y,x,out]: by place within a tile.

        Tiles of inputs, and a border of one position around. Of inputs that are 0 the last ones may
        be left out, with stride 1.
        """
        stride = self.stride
        distance = SIDE * stride
        rows, columns = (side // distance for side in padded.shape[:2])
        elements = len(self.weight)
        inputs = padded.shape[2] * stride**2
        side = SIDE + self.taps - 1  # of what a tile sees, in blocks
        tiles = space.take("tiles", side, side, rows, columns, stride, inputs // stride)
        row, column, item = padded.strides
        strides = (stride * row, stride * column, distance * row, distance * column, row, item)
        np.copyto(tiles, as_strided(padded, tiles.shape, strides, writeable=False))

        # Into the basis, multiplied there, and back.
        in_basis = space.take("in basis", elements, rows * columns, inputs)
        matmul(self.basis.inputs, tiles.reshape(elements, -1), in_basis.reshape(elements, -1))
        products = space.take("tiles", elements, rows * columns, self.outputs)
        matmul(in_basis, self.weight[:, :inputs], products)
        out = space.take("tiled", SIDE, SIDE, rows, columns, self.outputs)
        matmul(self.basis.outputs, products.reshape(elements, -1), out.reshape(SIDE**2, -1))
        out += self.bias
        if relu:
            np.maximum(out, 0, out=out)
        return out


def tiles_over(positions: int) -> int:
    """How many tiles cover so many positions along an axis."""
    return -(-positions // SIDE)


def scatter(tiled: NDArray[Any], target: NDArray[Any], *, add: bool = False) -> None:
    """What lies by place within a tile [4,4,y,x,c] -> target [h,w,c], cut off there; or added."""
    for row in range(SIDE):
        for column in range(SIDE):
            there = target[row::SIDE, column::SIDE]
            here = tiled[row, column, : there.shape[0], : there.shape[1]]
            if add:
                there += here
            else:
                there[...] = here
