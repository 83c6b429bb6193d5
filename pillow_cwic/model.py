"""A model: configuration, networks and entropy coder wired together, on one device.

It knows no files, no pictures and no .cwic bytes. Invariant: networks take and give NumPy arrays,
whatever device runs them; entropy coding is NumPy's on the processor always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .entropy.tile_coder import TileCoder
from .format.grid import Box
from .format.quality_map import Offsets
from .networks.config import ModelConfig
from .networks.decoder import decoder_network
from .networks.encoder import codes_network, features_network, heads_network, residue_network
from .networks.layers import Network
from .networks.numpy_gradient import NumpyGradient
from .networks.numpy_network import Execution, NumpyNetwork
from .networks.registers import Quality
from .networks.tensors import expected_tensor, refuse_unexpected
from .runtime.blas import one_blas_thread
from .runtime.devices import NUMPY
from .runtime.forks import ForkedLock

Tensors = dict[str, NDArray[Any]]


class Model:
    """One loaded model on one device; each network is built at its first use."""

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, NDArray[Any]], device: str, id: str
    ) -> None:
        """device: as `resolve_device` names it.

        WeightsError where tensors are missing, unexpected, misshapen, or break the integer bound.
        """
        self.config = config
        self.device = device
        self.id = id
        self.entropy = TileCoder(tensors, config)
        self._building = ForkedLock()
        self._executions: dict[tuple[str, int | None], Execution] = {}
        self._gradients: dict[int, NumpyGradient] = {}
        self._networks = {
            "features": features_network(config),
            "heads": heads_network(config),
            "decoder": decoder_network(config),
        }
        encoder_shapes = (
            self._networks["features"].tensors
            | self._networks["heads"].tensors
            | codes_network(config).tensors
        )
        self._encoder_tensors = _stored(tensors, "encoder.", encoder_shapes)
        decoder_shapes = self._networks["decoder"].tensors
        self._decoder_tensors = _stored(tensors, "decoder.", decoder_shapes)

    @property
    def features(self) -> Execution:
        """The half of the encoder that no quality changes: {"pixels"} -> trunk."""
        return self._execution("features")

    @property
    def heads(self) -> Execution:
        """The other half: {"trunk"} -> x, importance."""
        return self._execution("heads")

    def codes(self, channels: int) -> Execution:
        """The encoder's end: {"x", "pixels"} -> the first `channels` code features."""
        return self._execution("codes", channels)

    def residue(self, channels: int) -> Execution:
        """The encoder's block transform alone, of the difference of two pictures in [0, 1].

        {"pixels"} -> the difference of the first `channels` code features.
        """
        return self._execution("residue", channels)

    @property
    def decoder(self) -> Execution:
        """{"codes"} -> picture."""
        return self._execution("decoder")

    def decoder_gradient(self, channels: int) -> NumpyGradient:
        """The decoder of the first `channels` codes, with its way back: on the processor always."""
        with self._building.held:
            if channels not in self._gradients:
                network = decoder_network(self.config, channels)
                tensors = _first_channels(self._decoder_tensors, network)
                with one_blas_thread():
                    gradient = NumpyGradient(network, tensors, self.config.quality_count)
                self._gradients[channels] = gradient
            return self._gradients[channels]

    @property
    def is_light(self) -> bool:
        """Whether the decoder is the smaller half: a run of it is little beside the encoder's."""
        decoder, encoder = (
            sum(tensor.size for tensor in tensors.values())
            for tensors in (self._decoder_tensors, self._encoder_tensors)
        )
        return decoder < encoder

    def _execution(self, name: str, channels: int | None = None) -> Execution:
        """A network, or one of so many first channels; there are no more of these than levels."""
        with self._building.held:
            if (name, channels) not in self._executions:
                self._executions[name, channels] = self._built(name, channels)
            return self._executions[name, channels]

    def _built(self, name: str, channels: int | None) -> Execution:
        if channels is None:
            network = self._networks[name]
        elif name == "codes":
            network = codes_network(self.config, channels)
        else:
            network = residue_network(channels)
        stored = self._decoder_tensors if name == "decoder" else self._encoder_tensors
        tensors = _first_channels(stored, network)
        if name == "residue":
            tensors["shortcut.bias"] = np.zeros_like(tensors["shortcut.bias"])

        if self.device == NUMPY:
            with one_blas_thread():  # BLAS's own threads and a fork don't get along
                return NumpyNetwork(network, tensors, self.config.quality_count)
        from .networks.torch_network import TorchExecution, TorchNetwork, load_module

        def module(config: ModelConfig) -> TorchNetwork:
            return TorchNetwork(config, network)

        return TorchExecution(network, load_module(module, self.config, tensors, self.device))

    def quality_input(self, quality_index: int, offsets: Offsets | None, window: Box) -> Quality:
        """The networks' quality in a window of the offsets: a number, or float32 [h,w] with them.

        (Without a quality map there are none.)
        """
        if offsets is None:
            return float(quality_index)
        index = offsets[window.slices] + np.float32(quality_index)
        return index.clip(0, self.config.quality_count - 1)


def _first_channels(tensors: Tensors, network: Network) -> Tensors:
    """The tensors that a network has, of the first channels if it has no more."""
    return {
        name: tensors[name][tuple(slice(count) for count in shape)]
        for name, shape in network.tensors.items()
    }


def _stored(
    tensors: Mapping[str, NDArray[Any]], prefix: str, shapes: Mapping[str, tuple[int, ...]]
) -> Tensors:
    """A network's tensors from a weights file, by their names without the prefix."""
    refuse_unexpected(tensors, prefix, shapes)
    return {
        name: expected_tensor(tensors, prefix + name, np.float16, shape)
        for name, shape in shapes.items()
    }
