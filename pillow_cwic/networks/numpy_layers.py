"""The kinds of layers in NumPy: each as matrix products, on strips of rows.

What a strip gathers stays in the processor's cache; convolutions over neighbours are `winograd`'s,
layers of one position each `numpy_pointwise`'s. What lies around a map is zero. This module knows
no network: a layer is given what it reads, and makes what it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.blas import matmul
from .layers import Block, Conv, Down, Gain, Layer, Modulation, Rescale
from .numpy_pointwise import GainRun, ModulationRun, RescaleRun
from .registers import Floats, Quality, Register, Workspace, as_floats
from .winograd import SIDE, Winograd, scatter, tiles_over

STRIP_FLOATS = 1 << 19
"""About so many numbers are worked on at a time: two megabytes, which caches hold."""

LEAST_TILES = 40
"""Of Winograd's at a time, even so: their products need as many rows to be worth their weights."""


Run = Callable[[Register, Quality, Workspace], Register]
"""A layer with its weights: a source -> what it writes. The workspace's gate is a block's ReLUs."""


def prepare(layer: Layer, tensors: Mapping[str, NDArray[Any]], quality_count: int) -> Run:
    """A layer with its weights, from a network's tensors."""
    match layer:
        case Conv():
            return _Conv(layer, tensors)
        case Down():
            return _Down(layer, tensors)
        case Block():
            return _Block(layer, tensors)
        case Modulation():
            return ModulationRun(layer, tensors, quality_count)
        case Gain():
            return GainRun(layer, tensors, quality_count)
        case Rescale():
            return RescaleRun(layer)


class _Product:
    """A convolution's weights as a matrix: gathered neighbourhoods [m,in] -> [m,out]."""

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any]) -> None:
        """weight [out,in,side,side], bias [out]."""
        self.outputs = len(weight)
        self.weight = as_floats(weight.transpose(2, 3, 1, 0).reshape(-1, self.outputs))
        self.bias = as_floats(bias)

    def __call__(
        self, rows: Floats, out: Floats, relu: bool = False, *, sparse: bool = False
    ) -> Floats:
        """rows [m,in or fewer] -> out [m,out], which is given; sparse: only inputs not all 0."""
        weight = self.weight[: rows.shape[1]]
        if sparse:
            present = np.flatnonzero(rows.any(0))
            rows = rows[:, present]
            weight = weight[present]
        matmul(rows, weight, out)
        out += self.bias
        if relu:
            np.maximum(out, 0, out=out)
        return out


def _of(name: str, tensors: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A convolution's weight [out,in,side,side] and bias [out]."""
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _strip_rows(width: int, numbers: int) -> int:
    """How many rows to work on at a time, where each position takes so many numbers."""
    return max(1, STRIP_FLOATS // (width * numbers))


def _strip_tiles(width: int, kernel: Winograd) -> tuple[int, int]:
    """How many rows and columns of tiles to work on at a time, for a whole row of positions."""
    columns = tiles_over(width)
    tiles = max(LEAST_TILES, STRIP_FLOATS // kernel.tile_floats)
    return -(-tiles // columns), columns


def _block_order(channels: int, factor: int) -> NDArray[np.intp]:
    """Channels of blocks (channel, row, column) -> as they lie in memory (row, column, channel)."""
    return np.arange(channels).reshape(-1, factor, factor).transpose(1, 2, 0).reshape(-1)


def _unshuffled(x: Floats, factor: int) -> Floats:
    """[h*f,w*f,c] -> [h,w,f*f*c], in memory order (row, column, channel) of each block."""
    height, width, channels = x.shape
    blocks = x.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(height // factor, width // factor, -1)


def _shuffle(blocks: Floats, out: Floats, factor: int) -> None:
    """The inverse of `_unshuffled`: [h*w,f*f*c] -> out [h*f,w*f,c]."""
    height, width = (side // factor for side in out.shape[:2])
    target = out.reshape(height, factor, width, factor, -1)
    target[...] = blocks.reshape(height, width, factor, factor, -1).transpose(0, 2, 1, 3, 4)


class _Conv:
    """`Conv`, strip by strip."""

    def __init__(self, layer: Conv, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.layer = layer
        weight, bias = _of(layer.name, tensors)
        if layer.unshuffle > 1:
            weight = weight[:, _block_order(layer.inputs, layer.unshuffle)]
        if layer.shuffle > 1:
            order = _block_order(layer.outputs, layer.shuffle)
            weight, bias = weight[order], bias[order]
        self.kernel = _Product(weight, bias) if layer.side == 1 else Winograd(weight, bias)

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        layer = self.layer
        factor = layer.shuffle
        x = source.x if layer.unshuffle == 1 else _unshuffled(source.x, layer.unshuffle)
        height, width, inputs = x.shape
        out = np.empty((height * factor, width * factor, layer.outputs // factor**2), np.float32)
        if isinstance(self.kernel, _Product):
            step = _strip_rows(width, inputs)
        else:
            step = SIDE * _strip_tiles(width, self.kernel)[0]
        for top in range(0, height, step):
            bottom = min(top + step, height)
            if factor == 1:
                strip = out[top:bottom]
            else:
                strip = space.take("shuffled", bottom - top, width, layer.outputs)
            self._fill(strip, x, top, space)
            if factor > 1:
                _shuffle(strip, out[top * factor : bottom * factor], factor)
        return Register(out, source.area, source.scale // layer.unshuffle * factor)

    def _fill(self, strip: Floats, x: Floats, top: int, space: Workspace) -> None:
        """Outputs [m,w,out] of x's rows from `top` on."""
        layer = self.layer
        height, width, _ = strip.shape
        inputs = x.shape[2]
        if isinstance(self.kernel, _Product):
            rows = np.ascontiguousarray(x[top : top + height]).reshape(-1, inputs)
            out = strip.reshape(-1, layer.outputs)
            self.kernel(rows, out, layer.relu, sparse=layer.sparse)
            return
        tiles = tiles_over(height), tiles_over(width)
        padded = space.take("padded", *(SIDE * count + 2 for count in tiles), inputs)
        _fill_padded(padded, x, top - 1)
        tiled = self.kernel(padded, layer.relu, space)
        scatter(tiled, strip)


def _fill_padded(padded: Floats, x: Floats, top: int) -> None:
    """Rows of x from `top` on, which may be -1, with zeros around; padded [m,w+2 or more,c]."""
    first = max(top, 0)
    last = min(top + len(padded), len(x))
    end = x.shape[1] + 1
    padded[:, 0] = 0
    padded[:, end:] = 0
    padded[: first - top] = 0
    padded[last - top :] = 0
    padded[first - top : last - top, 1:end] = x[first:last]


class _Down:
    """`Down`, strip by strip."""

    def __init__(self, layer: Down, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.kernel = Winograd(*_of(layer.name, tensors), stride=2)

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        height, width, channels = source.x.shape
        out = np.empty((height // 2, width // 2, self.kernel.outputs), np.float32)
        rows, columns = _strip_tiles(width // 2, self.kernel)
        for top in range(0, height // 2, SIDE * rows):
            strip = out[top : top + SIDE * rows]
            tiles = tiles_over(len(strip)), columns
            padded = space.take("padded", *(2 * SIDE * count + 2 for count in tiles), channels)
            _fill_padded(padded, source.x, 2 * top - 1)
            scatter(self.kernel(padded, False, space), strip)
        return Register(out, source.area, source.scale // 2)


class _Block:
    """`Block`: all three layers on a strip of rows before the next, so that a strip stays near.

    A strip's bottleneck needs a row above and below. Those of the strip before are kept, because
    the sum is written over what they came from. The outer two use the memory of the convolution.
    """

    def __init__(self, layer: Block, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.half = layer.half
        self.reduce = _Product(*_of(f"{layer.name}.reduce", tensors))
        self.conv = Winograd(*_of(f"{layer.name}.conv", tensors))
        self.expand = _Product(*_of(f"{layer.name}.expand", tensors))

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        x = source.x.copy() if source.is_given else source.x
        height, width, _ = x.shape
        rows, columns = _strip_tiles(width, self.conv)
        rows = min(rows, tiles_over(height))
        narrow = space.take("narrow", SIDE * rows + 2, SIDE * columns + 2, self.half)
        narrow[:, 0] = 0
        narrow[:, width + 1 :] = 0
        narrow[0] = 0
        self._reduce(x, narrow[1:2], 0, space)

        for top in range(0, height, SIDE * rows):
            strip = x[top : top + SIDE * rows]
            seen = narrow[: SIDE * tiles_over(len(strip)) + 2]
            # Its first two rows are there already: kept, or made before the loop.
            self._reduce(x, seen[2:], top + 1, space)
            self._convolve_and_add(seen, strip, top, space)
            narrow[:2] = seen[-2:]
        return Register(x, source.area, source.scale)

    def _reduce(self, x: Floats, narrow: Floats, top: int, space: Workspace) -> None:
        """Rows of x [h,w,c] from `top` on -> the bottleneck's [m,w+2 or more,c/2]; zeros below."""
        rows = x[top : top + len(narrow)]
        narrow[len(rows) :] = 0
        if len(rows):
            reduced = space.take("tiled", *rows.shape[:2], self.half)
            self.reduce(rows.reshape(-1, x.shape[2]), reduced.reshape(-1, self.half))
            space.gate.first(reduced, top)
            narrow[: len(rows), 1 : x.shape[1] + 1] = reduced

    def _convolve_and_add(self, seen: Floats, strip: Floats, top: int, space: Workspace) -> None:
        """The bottleneck around a strip [4y+2,4x+2,c/2] -> added to the strip [m,w,c] at `top`."""
        tiled = self.conv(seen, False, space)  # [4,4,y,x,c/2]
        space.gate.second(tiled, top)
        expanded = space.take("in basis", *tiled.shape[:-1], strip.shape[2])
        self.expand(tiled.reshape(-1, self.half), expanded.reshape(-1, strip.shape[2]))
        scatter(expanded, strip, add=True)
