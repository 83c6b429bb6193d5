"""Gradients back through a network in NumPy: its layers in reverse, each of them transposed.

The transpose of a layer is a layer of the same kind, with other weights and without biases. A
block's ReLUs let through what they let through when the network ran. So the way back is a run of
layers like any other. Kinds that no decoder has are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box
from .layers import Block, Conv, Gain, Layer, Modulation, Network, Rescale
from .numpy_layers import Run, prepare
from .numpy_network import NumpyNetwork, quality_in
from .registers import Floats, Gate, Quality, Register, Relu, Workspace
from .winograd import SIDE, scatter

Tensors = dict[str, NDArray[Any]]


class Passed(NamedTuple):
    """What a forward pass leaves for the way back."""

    channels: int
    quality: Quality
    whole: Box
    core: Box
    areas: list[Box]  # that every layer read, in their order
    gates: list[Gate]  # of every layer, for the way back


class NumpyGradient:
    """A network of one input and one output whose gradient is wanted; threads may share one."""

    def __init__(
        self, network: Network, tensors: Mapping[str, NDArray[Any]], quality_count: int
    ) -> None:
        """tensors: by the names of `network.tensors`, of the shapes that it gives."""
        self.network = network
        (self.input,) = network.scales
        (self.output,) = network.outputs
        self._tensors = tensors
        self._quality_count = quality_count
        self._forward = NumpyNetwork(network, tensors, quality_count)
        # Layers that read the input have as many channels to go back to as a run was given.
        self._backward = {
            number: self._transposed(layer)
            for number, layer in enumerate(network.layers)
            if layer.source != self.input
        }

    def run(self, x: NDArray[Any], quality: Quality, area: Box, core: Box) -> tuple[Floats, Passed]:
        """As `Execution`, of the one input; and what `pull_back` needs of this run."""
        passed = Passed(x.shape[2], quality, area, core, [], [])

        def gate_of(layer: Layer, source: Register) -> Gate:
            passed.areas.append(source.area)
            if isinstance(layer, Block):
                height, width, _ = source.x.shape
                gate = Recording(height, width, layer.half)
                passed.gates.append(gate.backward())
                return gate
            passed.gates.append(Relu())
            return Relu()

        (y,) = self._forward({self.input: x}, quality, area, core, gate_of)
        return y, passed

    def pull_back(self, gradient: Floats, passed: Passed) -> Floats:
        """A gradient in the output, of a run's core -> in the input, of its whole area."""
        space = Workspace()
        scale = gradient.shape[0] // passed.core.height
        gradients = {self.output: Register(gradient, passed.core, scale, is_given=True)}
        steps = zip(self.network.layers, passed.areas, passed.gates, strict=True)
        for number, (layer, area, gate) in reversed(list(enumerate(steps))):
            run = self._backward.get(number) or self._transposed(layer, passed.channels)
            behind = gradients[layer.target].spread(area)
            if not layer.adds:
                del gradients[layer.target]
            space.gate = gate
            quality = quality_in(passed.quality, passed.whole, area)
            own = run(behind, quality, space)
            if layer.source in gradients:
                own = _sum(own, gradients[layer.source])
            gradients[layer.source] = own
        return gradients[self.input].spread(passed.whole).x

    def _transposed(self, layer: Layer, channels: int | None = None) -> Run:
        """A layer on the way back; channels: so many first ones of its input alone."""
        tensors = _transposed_tensors(layer, self._tensors)
        back = _transposed(layer)
        if isinstance(back, Conv) and channels is not None:
            back = replace(back, outputs=channels)
            tensors = {name: tensor[:channels] for name, tensor in tensors.items()}
        return prepare(back, tensors, self._quality_count)


def _sum(one: Register, other: Register) -> Register:
    """Both, where either is, in the memory of the larger, whose area holds the other's."""
    larger, smaller = (one, other) if one.x.size >= other.x.size else (other, one)
    inside = smaller.area.within(larger.area).scale(larger.scale).slices
    larger.x[inside] += smaller.x
    return larger


def _transposed(layer: Layer) -> Layer:
    match layer:
        case Conv(relu=False):
            return replace(
                layer,
                inputs=layer.outputs,
                outputs=layer.inputs,
                unshuffle=layer.shuffle,
                shuffle=layer.unshuffle,
                sparse=False,
            )
        case Rescale():
            return replace(layer, offset=0)
        case Block() | Modulation() | Gain():
            return layer
    raise TypeError(f"no gradient goes back through {layer}")


def _transposed_tensors(layer: Layer, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """A layer's tensors for the way back, by the names that it reads them by."""
    match layer:
        case Conv():
            return _transposed_conv(layer.name, layer.name, tensors)
        case Block():
            return (
                _transposed_conv(f"{layer.name}.reduce", f"{layer.name}.expand", tensors)
                | _transposed_conv(f"{layer.name}.conv", f"{layer.name}.conv", tensors)
                | _transposed_conv(f"{layer.name}.expand", f"{layer.name}.reduce", tensors)
            )
        case Modulation():
            scales_alone = np.arange(2 * layer.channels) < layer.channels
            last = f"{layer.name}.out"
            weight, bias = tensors[f"{last}.weight"], tensors[f"{last}.bias"]
            return {
                **{name: tensors[name] for name in layer.tensors},
                f"{last}.weight": weight * scales_alone[:, None],
                f"{last}.bias": bias * scales_alone,
            }
    return {name: tensors[name] for name in layer.tensors}


def _transposed_conv(name: str, other: str, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """The transpose of the convolution `other`, under a name."""
    weight = tensors[f"{other}.weight"]
    return {
        f"{name}.weight": weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1],
        f"{name}.bias": np.zeros(weight.shape[1], np.float32),
    }


class Recording:
    """A block's ReLUs, remembering where they let through."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self._opened = np.empty((2, height, width, channels), np.bool_)

    def first(self, rows: Floats, top: int) -> None:
        """As `Gate`."""
        np.maximum(rows, 0, out=rows)
        np.greater(rows, 0, out=self._opened[0, top : top + len(rows)])

    def second(self, tiled: Floats, top: int) -> None:
        """As `Gate`."""
        np.maximum(tiled, 0, out=tiled)
        scatter(tiled > 0, self._opened[1, top : top + SIDE * tiled.shape[2]])

    def backward(self) -> Gate:
        """The same gates on the way back, where the second comes first."""
        return _Replay(self._opened)


class _Replay:
    """Nothing passes where a `Recording` found a gate shut."""

    def __init__(self, opened: NDArray[np.bool_]) -> None:
        self._opened = opened

    def first(self, rows: Floats, top: int) -> None:
        """As `Gate`."""
        rows *= self._opened[1, top : top + len(rows)]

    def second(self, tiled: Floats, top: int) -> None:
        """As `Gate`."""
        opened = self._opened[0, top : top + SIDE * tiled.shape[2]]
        for row in range(SIDE):
            for column in range(SIDE):
                there = opened[row::SIDE, column::SIDE]
                tiled[row, column, : there.shape[0], : there.shape[1]] *= there
