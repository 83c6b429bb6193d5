"""The networks in NumPy, for processors: a list of layers, executed one after the other.

Maps are [h,w,c] float32. Buffers are used again from layer to layer. Invariant: what lies around
the picture is zero, as `torch_network` has it; results of the two differ by float rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box
from .layers import Layer, Network
from .numpy_layers import prepare
from .registers import Floats, Gate, Quality, Register, Relu, Workspace


class Execution(Protocol):
    """A network that is ready to run, whatever computes it."""

    @property
    def network(self) -> Network:
        """Its layers."""

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], quality: Quality, area: Box, core: Box
    ) -> list[Floats]:
        """Run the layers -> the outputs at the code positions of `core`, in the network's order.

        inputs: by register, the maps [h*scale,w*scale,c] of `area`, float32, or int16 for codes,
        whose last channels may be left out where they are 0. `area` holds `core` and around it a
        halo, or all that the picture has there. quality: a number, or [h,w] of `area`.
        """


GateOf = Callable[[Layer, Register], Gate]


def _relu(layer: Layer, source: Register) -> Gate:
    return Relu()


class NumpyNetwork:
    """A network's layers with their weights, ready to run on any map; threads may share one."""

    def __init__(
        self, network: Network, tensors: Mapping[str, NDArray[Any]], quality_count: int
    ) -> None:
        """tensors: by the names of `network.tensors`, of the shapes that it gives."""
        self.network = network
        self.margins = network.margins()
        self.done = network.done()
        self._layers = [prepare(layer, tensors, quality_count) for layer in network.layers]

    def __call__(
        self,
        inputs: Mapping[str, NDArray[Any]],
        quality: Quality,
        area: Box,
        core: Box,
        gate_of: GateOf = _relu,
    ) -> list[Floats]:
        """As `Execution`; on the way, maps are cut down to what `core` depends on.

        gate_of: is told of every layer and what it reads, and says what its ReLUs are.
        """
        scales = self.network.scales
        registers = {
            name: Register(x, area, scales[name], is_given=True) for name, x in inputs.items()
        }
        space = Workspace()
        steps = zip(self.network.layers, self._layers, self.margins, self.done, strict=True)
        for layer, run, margin, done in steps:
            source = registers[layer.source]
            source = source.cropped(core.grow(margin, source.area))
            space.gate = gate_of(layer, source)
            result = run(source, quality_in(quality, area, source.area), space)
            if layer.adds:
                result = _sum(registers[layer.target], result)
            registers[layer.target] = result
            for name in done:
                del registers[name]
        return [registers[name].cropped(core).x for name in self.network.outputs]


def _sum(target: Register, result: Register) -> Register:
    """Both, where both are, in the memory of the result."""
    area = target.area.intersection(result.area)
    total = result.cropped(area)
    np.add(total.x, target.cropped(area).x, out=total.x)
    return total


def quality_in(quality: Quality, area: Box, part: Box) -> Quality:
    """The quality of an area -> of a part of it."""
    return quality if isinstance(quality, float) else quality[part.within(area).slices]
