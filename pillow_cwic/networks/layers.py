"""The kinds of layers that the networks are made of, as data: no arrays, no execution.

A network is a list of layers, made from a configuration (`encoder`, `decoder`). Two modules execute
it: `numpy_network` and `torch_network`. Layers pass named *registers* to one another: maps of
features [h,w,c], each at its own resolution. Invariant: a layer says all that an execution needs:
what it reads and writes, its tensors, and how far it reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..format.grid import GRID, Box

Shape: TypeAlias = tuple[int, ...]

STRIPS_BYTES = 10 << 20
"""What a layer gathers at a time and makes of it, with what lies unused between such blocks."""

MODULATION_HIDDEN = 64
"""Units between the quality and a modulation's scales and shifts."""


@dataclass(frozen=True, kw_only=True)
class _Wired:
    """Where a layer stands: it reads `source` and writes `target`, or adds to what is there."""

    source: str = "x"
    target: str = "x"
    adds: bool = False


@dataclass(frozen=True, kw_only=True)
class _Even(_Wired):
    """A layer that writes as many channels as it reads."""

    channels: int

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of what it reads and writes."""
        return self.channels, self.channels


@dataclass(frozen=True, kw_only=True)
class Conv(_Wired):
    """A convolution of `side` 1 or 3 (stride 1, zeros around), perhaps followed by a ReLU.

    With `unshuffle` f it reads blocks of f x f positions as one position of f*f times the channels;
    with `shuffle` f it writes such blocks. Both together with side 1 are the linear block
    transforms. Channels of a block are ordered (channel, row, column), as PyTorch has them.
    """

    name: str
    inputs: int  # channels, after `unshuffle`
    outputs: int  # channels, before `shuffle`
    side: int = 1
    relu: bool = False
    unshuffle: int = 1
    shuffle: int = 1
    full_precision: bool = False  # float32, where training lowers the rest
    sparse: bool = False  # of side 1: many inputs are 0 everywhere, as are codes at low rates

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes in the weights file."""
        return _conv_tensors(self.name, self.inputs, self.outputs, self.side)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of what it reads and writes."""
        return self.inputs // self.unshuffle**2, self.outputs // self.shuffle**2

    @property
    def reach(self) -> int:
        """Positions on each side that an output depends on, counted after `unshuffle`."""
        return self.side // 2


@dataclass(frozen=True, kw_only=True)
class Down(_Wired):
    """A convolution of side 4 and stride 2, one position of zeros around: half the resolution."""

    name: str
    inputs: int
    outputs: int

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes in the weights file."""
        return _conv_tensors(self.name, self.inputs, self.outputs, 4)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of what it reads and writes."""
        return self.inputs, self.outputs

    @property
    def reach(self) -> int:
        """Positions of its input on each side that a block of two depends on."""
        return 1


@dataclass(frozen=True, kw_only=True)
class Block(_Even):
    """A residual bottleneck: x + expand(relu(conv(relu(reduce(x))))), sides 1, 3 and 1."""

    name: str

    @property
    def half(self) -> int:
        """Channels of the bottleneck; a configuration's are even."""
        return self.channels // 2

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes in the weights file."""
        return (
            _conv_tensors(f"{self.name}.reduce", self.channels, self.half, 1)
            | _conv_tensors(f"{self.name}.conv", self.half, self.half, 3)
            | _conv_tensors(f"{self.name}.expand", self.half, self.channels, 1)
        )

    @property
    def reach(self) -> int:
        """Positions on each side that an output depends on."""
        return 1


@dataclass(frozen=True, kw_only=True)
class Modulation(_Even):
    """x * (1 + scale) + shift, both smooth functions of the quality index (FiLM).

    hidden(t, t^2, t^3), GELU, out -> scales, then shifts; t runs from -1 to 1 over the model's
    quality indices.
    """

    name: str

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes in the weights file."""
        return {
            f"{self.name}.hidden.weight": (MODULATION_HIDDEN, 3),
            f"{self.name}.hidden.bias": (MODULATION_HIDDEN,),
            f"{self.name}.out.weight": (2 * self.channels, MODULATION_HIDDEN),
            f"{self.name}.out.bias": (2 * self.channels,),
        }

    @property
    def reach(self) -> int:
        """It looks at no neighbour."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Gain(_Even):
    """A positive gain per channel, its logarithm quadratic in t: multiplies, or divides."""

    name: str
    divides: bool = False

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes in the weights file."""
        return {f"{self.name}.coefficients": (3, self.channels)}

    @property
    def reach(self) -> int:
        """It looks at no neighbour."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Rescale(_Even):
    """x * factor + offset: pixels in [0, 1] <-> [-1, 1]."""

    factor: float
    offset: float
    channels: int = 3

    @property
    def tensors(self) -> dict[str, Shape]:
        """None."""
        return {}

    @property
    def reach(self) -> int:
        """It looks at no neighbour."""
        return 0


Layer: TypeAlias = Conv | Down | Block | Modulation | Gain | Rescale


def blocks(name: str, count: int, channels: int, register: str = "x") -> list[Layer]:
    """`count` residual blocks in a row on one register, name.0, name.1, ..."""
    return [
        Block(name=f"{name}.{number}", channels=channels, source=register, target=register)
        for number in range(count)
    ]


@dataclass(frozen=True)
class Network:
    """A list of layers, the registers it begins with (by positions a code position), its outputs.

    scales: of every input register, positions along each axis for one code position; 16 for pixels.
    """

    layers: Sequence[Layer]
    scales: dict[str, int]
    outputs: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Shape]:
        """Names and shapes of all tensors in the weights file, without the network's prefix."""
        return {name: shape for layer in self.layers for name, shape in layer.tensors.items()}

    def source_scales(self) -> list[int]:
        """Positions per code position of every layer's source, in order."""
        scales = dict(self.scales)
        found = []
        for layer in self.layers:
            scale = scales[layer.source]
            found.append(scale)
            scales[layer.target] = _scale_behind(layer, scale)
        return found

    def margins(self) -> list[int]:
        """Code positions around a window that each layer's source must cover, rounded up.

        So much does the window's output depend on; a window may be cut down to it on the way.
        """
        needed = dict.fromkeys(self.outputs, 0)  # pixels around the window, by register
        margins = []
        for layer, scale in reversed(list(zip(self.layers, self.source_scales(), strict=True))):
            behind = needed.get(layer.target, 0)
            if not layer.adds:
                needed.pop(layer.target, None)
            position = GRID // scale * (layer.unshuffle if isinstance(layer, Conv) else 1)
            pixels = behind + layer.reach * position  # position: its side in pixels
            needed[layer.source] = max(needed.get(layer.source, 0), pixels)
            margins.append(-(-needed[layer.source] // GRID))
        return margins[::-1]

    def done(self) -> list[list[str]]:
        """The registers that nothing reads after each layer: their memory is free again."""
        read_later = set(self.outputs)
        done = []
        for layer in reversed(self.layers):
            used = {layer.source, layer.target} if layer.adds else {layer.source}
            done.append(sorted(used - read_later - {layer.target}))
            if not layer.adds:
                read_later.discard(layer.target)
            read_later |= used
        return done[::-1]

    def work_bytes(self, core: Box) -> int:
        """About what a window with this core takes: its inputs, registers, and a layer's result."""
        given = 0  # numbers, as the others
        held: dict[str, int] = {}
        most = 0
        whole = (core.width + 2 * self.halo) * (core.height + 2 * self.halo)
        steps = zip(self.layers, self.source_scales(), self.margins(), self.done(), strict=True)
        for layer, scale, margin, done in steps:
            positions = (core.width + 2 * margin) * (core.height + 2 * margin)
            inputs, outputs = layer.widths
            if layer.source not in held:
                held[layer.source] = 0
                given += whole * scale**2 * inputs
            result = positions * _scale_behind(layer, scale) ** 2 * outputs
            if not isinstance(layer, Block):  # which writes over what it reads
                most = max(most, sum(held.values()) + result)
                held[layer.target] = result
            for name in done:
                del held[name]
        return (given + most) * np.dtype(np.float32).itemsize + STRIPS_BYTES

    @property
    def halo(self) -> int:
        """Code positions around a window that its output depends on: the receptive field."""
        return max(self.margins(), default=0)


def _scale_behind(layer: Layer, scale: int) -> int:
    if isinstance(layer, Down):
        return scale // 2
    if isinstance(layer, Conv):
        return scale // layer.unshuffle * layer.shuffle
    return scale


def _conv_tensors(name: str, inputs: int, outputs: int, side: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}
