"""The networks in PyTorch, for training, refinement and GPUs: the same list of layers as modules.

Maps are [B,c,h,w], channels last in memory. Modules bear the names of the tensors in the weights
file. Invariant: the caller's autocast, default device and gradient modes neither change nor matter
where `torch_precision`'s contexts say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..format.grid import Box
from ..runtime.devices import DEVICE_VARIABLE, resolve_device
from .config import ModelConfig
from .decoder import decoder_network
from .encoder import codes_network, features_network, heads_network
from .layers import Conv, Layer, Network
from .registers import Floats, Quality
from .torch_layers import prepare, start
from .torch_precision import inference

OPEN_LOGIT = 3.0
"""First bias of the importance map: all positions start at the highest level.

The rate closes what it can.
"""


def training_device(device: str | None) -> torch.device:
    """Where training runs: a GPU if there is one, unless `device` names another.

    "cpu" and "torch" are both PyTorch on the processor. ValueError as `resolve_device`.
    """
    name = device or os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = resolve_device(name)
    return torch.device("cpu" if resolved == "torch" else resolved)


class TorchNetwork(nn.Module):
    """The layers of one or more networks as modules, by the names of their tensors."""

    def __init__(self, config: ModelConfig, *networks: Network) -> None:
        super().__init__()
        self.config = config
        for network in networks:
            for layer in network.layers:
                if layer.tensors:
                    self._adopt(getattr(layer, "name", ""), prepare(layer, config))

    def _adopt(self, path: str, module: nn.Module) -> None:
        """Make a module a child by a dotted name, with containers on the way."""
        parent: nn.Module = self
        *containers, last = path.split(".")
        for name in containers:
            if name not in parent._modules:
                parent.add_module(name, nn.ModuleDict())
            parent = parent._modules[name]  # type: ignore[assignment]
        parent.add_module(last, module)

    def _module_of(self, layer: Layer) -> nn.Module:
        """What computes a layer: the child of its name, which only layers with tensors have."""
        if layer.tensors:
            return self.get_submodule(getattr(layer, "name", ""))
        return prepare(layer, self.config)

    def convolution(self, name: str) -> nn.Conv2d:
        """A layer by its name in the weights file; KeyError if it is no convolution."""
        module = self.get_submodule(name)
        if not isinstance(module, nn.Conv2d):
            raise KeyError(f"{name} is no convolution")
        return module

    def run(
        self,
        network: Network,
        inputs: Mapping[str, Tensor],
        quality: Tensor,
        core: Box | None = None,
    ) -> list[Tensor]:
        """Run a network of layers that these have -> its outputs, from maps [B,c,h,w].

        quality: [B], or [B,h,w] at the code grid. With `core`, a part of the code positions, only
        of these: maps are cut down on the way to what they depend on.
        """
        name, scale = next(iter(network.scales.items()))
        whole = Box(0, 0, inputs[name].shape[3] // scale, inputs[name].shape[2] // scale)
        core = core or whole
        areas = dict.fromkeys(inputs, whole)
        registers = dict(inputs)
        steps = zip(network.layers, network.margins(), network.source_scales(), strict=True)
        for layer, margin, scale in steps:
            area = core.grow(margin, areas[layer.source])
            x = _cut(registers[layer.source], areas[layer.source], area, scale)
            index = quality if quality.dim() == 1 else _cut(quality, whole, area, 1)
            module = self._module_of(layer)
            first = (layer.outputs,) if isinstance(layer, Conv) else ()  # channels that are wanted
            result = module(x, index, *first)
            if layer.adds:
                target = areas[layer.target]
                finer = result.shape[3] // area.width
                both = target.grow(0, area)
                result = _cut(result, area, both, finer) + _cut(
                    registers[layer.target], target, both, finer
                )
                area = both
            registers[layer.target] = result
            areas[layer.target] = area
        return [
            _cut(registers[name], areas[name], core, registers[name].shape[3] // areas[name].width)
            for name in network.outputs
        ]


def _cut(x: Tensor, area: Box, part: Box, scale: int) -> Tensor:
    """The part [...,h,w] of a map that lies in `area`, at `scale` positions a code position."""
    if part == area:
        return x
    rows, columns = part.within(area).scale(scale).slices
    return x[..., rows, columns]


class Encoder(TorchNetwork):
    """Pixels -> features of the codes and of the importance map."""

    def __init__(self, config: ModelConfig) -> None:
        self.features_network = features_network(config)
        self.heads_network = heads_network(config)
        every = codes_network(config)
        super().__init__(config, self.features_network, every, self.heads_network)
        start(self.convolution("importance.3"), std=0.01, bias=OPEN_LOGIT)

    def forward(self, x: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """x [B,3,16h,16w] in [0,1], quality_index [B] or [B,h,w] -> code features [B,n,h,w].

        And the importance [B,1,h,w] before its sigmoid; both float32. The binarizer takes the code
        features as they are.
        """
        trunk, importance = self.heads(x, quality_index)
        return self.code_features(trunk, x, quality_index, self.config.channels), importance

    def heads(self, x: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """The same pixels -> what code features are made of [B,c,h,w], and the importance."""
        (trunk,) = self.run(self.features_network, {"pixels": x}, quality_index)
        trunk, importance = self.run(self.heads_network, {"trunk": trunk.float()}, quality_index)
        return trunk, importance.float()

    def code_features(
        self, trunk: Tensor, x: Tensor, quality_index: Tensor, channels: int
    ) -> Tensor:
        """What `heads` gave, and the pixels -> the first code features [B,channels,h,w]."""
        network = codes_network(self.config, channels)
        (codes,) = self.run(network, {"x": trunk, "pixels": x}, quality_index)
        return codes


class Decoder(TorchNetwork):
    """Integer codes -> pixels."""

    def __init__(self, config: ModelConfig) -> None:
        self.network = decoder_network(config)
        super().__init__(config, self.network)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    def forward(self, codes: Tensor, quality_index: Tensor, core: Box | None = None) -> Tensor:
        """codes [B,n,h,w], quality_index [B] or [B,h,w] -> [B,3,16h,16w] float32, not clamped.

        Nominally in [0,1]. With `core`, a part of the code positions, only its pixels.
        """
        (picture,) = self.run(self.network, {"codes": codes}, quality_index, core)
        return picture.float()


Loaded = TypeVar("Loaded", bound=TorchNetwork)


def load_module(
    kind: Callable[[ModelConfig], Loaded],
    config: ModelConfig,
    tensors: Mapping[str, NDArray[Any]],
    device: str,
) -> Loaded:
    """An encoder or decoder with a weights file's tensors, frozen; device: "torch" or "cuda:N".

    Whatever the caller's default device and gradient modes are: gradients may pass its weights.
    """
    with torch.device("meta"):
        module = kind(config)
    with torch.device("cpu"), torch.inference_mode(False):
        state = {name: torch.from_numpy(t.astype(np.float32)) for name, t in tensors.items()}
        module.load_state_dict(state, assign=True)
        module.requires_grad_(False).eval().to("cpu" if device == "torch" else device)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


class TorchExecution:
    """One network in PyTorch as an `Execution`: arrays in and out."""

    def __init__(self, network: Network, module: TorchNetwork) -> None:
        self.network = network
        self.module = module

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], quality: Quality, area: Box, core: Box
    ) -> list[Floats]:
        """As `Execution`."""
        device = next(self.module.parameters()).device
        with inference(), torch.device("cpu"):
            maps = {
                name: torch.from_numpy(np.ascontiguousarray(x, np.float32))
                .to(device)
                .permute(2, 0, 1)[None]
                for name, x in inputs.items()
            }  # [1,c,h,w] each, channels last in memory
            index = torch.as_tensor(quality, dtype=torch.float32).to(device)[None]
            outputs = self.module.run(self.network, maps, index, core.within(area))
            return [y[0].permute(1, 2, 0).float().cpu().numpy() for y in outputs]
