"""A model: configuration, networks and entropy coder wired together, on one device.

It knows no files, no pictures and no .cwic bytes. Invariant: networks take and give NumPy arrays,
whatever device runs them; entropy coding is NumPy's on the processor always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .entropy.tile_coder import TileCoder
from .format.grid import Box
from .format.quality_map import Offsets
from .networks.config import ModelConfig
from .networks.decoder import decoder_network
from .networks.encoder import features_network, heads_network
from .networks.numpy_network import Execution, NumpyNetwork, Quality
from .networks.tensors import expected_tensor, refuse_unexpected
from .runtime.devices import NUMPY

if TYPE_CHECKING:
    from .networks.torch_network import Decoder

Tensors = dict[str, NDArray[Any]]


class Model:
    """One loaded model on one device."""

    features: Execution  # {"pixels"} -> trunk, linear
    heads: Execution  # {"trunk", "linear"} -> code features, importance
    decoder: Execution  # {"codes"} -> picture

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
        features = features_network(config)
        heads = heads_network(config)
        decoder = decoder_network(config)
        encoder_tensors = _stored(tensors, "encoder.", features.tensors | heads.tensors)
        self._decoder_tensors = _stored(tensors, "decoder.", decoder.tensors)
        self._torch_decoder: Decoder | None = None
        if device == NUMPY:
            count = config.quality_count
            self.features = NumpyNetwork(features, encoder_tensors, count)
            self.heads = NumpyNetwork(heads, encoder_tensors, count)
            self.decoder = NumpyNetwork(decoder, self._decoder_tensors, count)
        else:
            from .networks.torch_network import Encoder, TorchExecution, load_module

            encoder = load_module(Encoder, config, encoder_tensors, device)
            self.features = TorchExecution(features, encoder)
            self.heads = TorchExecution(heads, encoder)
            self.decoder = TorchExecution(decoder, self.torch_decoder())

    def quality_input(self, quality_index: int, offsets: Offsets | None, window: Box) -> Quality:
        """The networks' quality in a window: a number, or float32 [h,w] with a quality map."""
        if offsets is None:
            return float(quality_index)
        index = offsets[window.slices] + np.float32(quality_index)
        return index.clip(0, self.config.quality_count - 1)

    def torch_decoder(self) -> Decoder:
        """The decoder as a PyTorch module, for gradients; on the processor if NumPy runs here."""
        if self._torch_decoder is None:
            from .networks.torch_network import Decoder, load_module

            device = "torch" if self.device == NUMPY else self.device
            self._torch_decoder = load_module(Decoder, self.config, self._decoder_tensors, device)
        return self._torch_decoder


def _stored(
    tensors: Mapping[str, NDArray[Any]], prefix: str, shapes: Mapping[str, tuple[int, ...]]
) -> Tensors:
    """A network's tensors from a weights file, by their names without the prefix."""
    refuse_unexpected(tensors, prefix, shapes)
    return {
        name: expected_tensor(tensors, prefix + name, np.float16, shape)
        for name, shape in shapes.items()
    }
