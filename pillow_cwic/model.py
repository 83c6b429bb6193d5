"""A model: configuration, networks and entropy coder wired together, on one device.

It knows no files, no pictures and no .cwic bytes. Invariant: networks take and give NumPy arrays,
whatever device runs them; entropy coding is NumPy's on the processor always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .entropy.tile_coder import TileCoder
from .format.grid import Box
from .format.quality_map import Offsets
from .networks.config import ModelConfig
from .networks.decoder import decoder_network
from .networks.encoder import codes_network, features_network, heads_network, residue_network
from .networks.layers import Network
from .networks.numpy_network import Execution, NumpyNetwork
from .networks.registers import Quality
from .networks.tensors import expected_tensor, refuse_unexpected
from .runtime.blas import one_blas_thread
from .runtime.devices import NUMPY
from .runtime.forks import ForkedLock
from .runtime.threads import another_thread_calls

if TYPE_CHECKING:
    from .networks.numpy_gradient import NumpyGradient

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
        self._executions: dict[str, Execution] = {}
        self._gradient: NumpyGradient | None = None
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
        """The encoder's end: {"x", "pixels"} -> the first `channels` code features.

        Made anew at each call, as `residue` is: one for each number of channels would fill memory.
        """
        network = codes_network(self.config, channels)
        return self._executed(network, _first_channels(self._encoder_tensors, network))

    def residue(self, channels: int) -> Execution:
        """The encoder's block transform alone, of the difference of two pictures in [0, 1].

        {"pixels"} -> the difference of the first `channels` code features.
        """
        network = residue_network(channels)
        tensors = _first_channels(self._encoder_tensors, network)
        tensors["shortcut.bias"] = np.zeros_like(tensors["shortcut.bias"])
        return self._executed(network, tensors)

    @property
    def decoder(self) -> Execution:
        """{"codes"} -> picture."""
        return self._execution("decoder")

    @property
    def halo(self) -> int:
        """Code positions around a window that the decoder's output depends on."""
        return self._networks["decoder"].halo

    @contextmanager
    def building_decoder(self) -> Iterator[None]:
        """The decoder is built by another thread meanwhile, where there is one and need of it."""
        if "decoder" in self._executions:
            yield
        else:
            with another_thread_calls(lambda: self.decoder):
                yield

    @property
    def decoder_gradient(self) -> NumpyGradient:
        """The decoder with its way back, on the processor whatever the device."""
        from .networks.numpy_gradient import NumpyGradient

        with self._building.held:
            if self._gradient is None:
                network = self._networks["decoder"]
                with one_blas_thread():
                    self._gradient = NumpyGradient(
                        network, self._decoder_tensors, self.config.quality_count
                    )
            return self._gradient

    def _execution(self, name: str) -> Execution:
        with self._building.held:
            if name not in self._executions:
                tensors = self._decoder_tensors if name == "decoder" else self._encoder_tensors
                network = self._networks[name]
                own = {tensor: tensors[tensor] for tensor in network.tensors}
                self._executions[name] = self._executed(network, own)
            return self._executions[name]

    def _executed(self, network: Network, tensors: Tensors) -> Execution:
        """A network with its tensors on the model's device."""
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
    """The tensors of a network that has the first channels of what these are for."""
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
