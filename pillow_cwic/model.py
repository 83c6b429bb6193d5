"""A model: configuration, networks and entropy model wired together.

It knows no files, no pictures and no .cwic bytes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .entropy.tile_coder import TileCoder
from .format.grid import Box
from .format.quality_map import Offsets
from .networks.binarizer import code_integers, code_signs
from .networks.config import ModelConfig
from .networks.decoder import Decoder
from .networks.encoder import Encoder
from .networks.tensors import built
from .runtime.devices import exact_float32


class Model:
    """One loaded model on one device. Entropy coding always runs on the CPU."""

    binarize: Callable[[Tensor], Tensor]  # code features -> codes

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Tensor], device: torch.device, id: str
    ) -> None:
        """WeightsError where tensors are missing, unexpected, misshapen, or break the integer bound."""
        self.config, self.device, self.id = config, device, id
        self.encoder = built(lambda: Encoder(config), tensors, "encoder.", device)
        self.decoder = built(lambda: Decoder(config), tensors, "decoder.", device)
        self.binarize = code_signs if config.one_bit else code_integers
        self._tensors = {name: t for name, t in tensors.items() if name.startswith("entropy.")}
        self._entropy = {torch.float32: TileCoder(self._tensors, config, torch.float32)}

    @property
    def entropy(self) -> TileCoder:
        """The integer entropy model, in float64 where the caller lowered torch's float32 precision."""
        dtype = torch.float32 if exact_float32() else torch.float64
        if dtype not in self._entropy:
            with torch.device("cpu"):
                self._entropy[dtype] = TileCoder(self._tensors, self.config, dtype)
        return self._entropy[dtype]

    def quality_input(self, quality_index: int, offsets: Offsets | None, window: Box) -> Tensor:
        """The networks' quality input in a window: [1], or [1,h,w] where a quality map differs."""
        if offsets is None:
            return torch.tensor([quality_index], device=self.device)
        index = torch.from_numpy(offsets[window.slices]) + quality_index
        return index.clamp(0, self.config.quality_count - 1)[None].to(self.device)
