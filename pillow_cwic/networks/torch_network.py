"""The networks in PyTorch, for training, refinement and GPUs: the same list of layers as modules.

Maps are [B,c,h,w], channels last in memory. Modules bear the names of the tensors in the weights
file. This is the only module of inference that imports torch. Invariant: the caller's autocast,
default device and gradient modes neither change nor matter where `inference` or `differentiable`
says so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..format.grid import Box
from ..runtime.devices import DEVICE_VARIABLE, resolve_device
from .config import ModelConfig
from .decoder import decoder_network
from .encoder import FEATURES, features_network, heads_network
from .layers import MODULATION_HIDDEN, Block, Conv, Down, Gain, Layer, Modulation, Network, Rescale
from .numpy_layers import Quality
from .registers import Floats
from .torch_precision import full_precision

FIRST_GAIN = 4.0
"""Gain of every channel at the middle quality before training."""


def gain_slope(config: ModelConfig) -> float:
    """How far the logarithm of a gain grows from the middle quality to the highest, at first.

    The step size falls as lambda^(-1/2) does.
    """
    return 0.25 * math.log(config.lambda_max / config.lambda_min)


OPEN_LOGIT = 3.0
"""First bias of the importance map: all positions start at the highest level.

The rate closes what it can.
"""


@contextmanager
def inference() -> Iterator[None]:
    """Run networks without gradients and in full float32, whatever the caller's settings say."""
    full = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with torch.inference_mode(), full[0], full[1], full_precision():
        yield


@contextmanager
def differentiable(enabled: bool = True) -> Iterator[None]:
    """Run networks in full float32 with gradients, whatever the caller's contexts say."""
    full = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    gradients = torch.inference_mode(False), torch.set_grad_enabled(enabled)
    with full[0], full[1], full_precision(), gradients[0], gradients[1]:
        yield


def training_device(device: str | None) -> torch.device:
    """Where training runs: a GPU if there is one, unless `device` names another.

    "cpu" and "torch" are both PyTorch on the processor. ValueError as `resolve_device`.
    """
    name = device or os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = resolve_device(name)
    return torch.device("cpu" if resolved == "torch" else resolved)


class ConvModule(nn.Conv2d):
    """`layers.Conv`."""

    def __init__(self, layer: Conv) -> None:
        super().__init__(layer.inputs, layer.outputs, layer.side, padding=layer.side // 2)
        self.layer = layer

    def forward(self, input: Tensor, quality: Tensor | None = None) -> Tensor:
        """[B,c,h,w] -> [B,c',h',w']; of channels that are 0 the last ones may be left out."""
        layer = self.layer
        x = input if layer.unshuffle == 1 else unshuffled(input, layer.unshuffle)
        weight = self.weight[:, : x.shape[1]]
        if layer.full_precision:
            with torch.autocast(x.device.type, enabled=False):
                x = self._conv_forward(x.float(), weight, self.bias)
        else:
            x = self._conv_forward(x, weight, self.bias)
        if layer.relu:
            x = F.relu(x, inplace=True)
        return x if layer.shuffle == 1 else F.pixel_shuffle(x, layer.shuffle)


class DownModule(nn.Conv2d):
    """`layers.Down`."""

    def __init__(self, layer: Down) -> None:
        super().__init__(layer.inputs, layer.outputs, 4, 2, 1)

    def forward(self, input: Tensor, quality: Tensor | None = None) -> Tensor:
        """[B,c,h,w] -> [B,c',h/2,w/2]."""
        return super().forward(input)


class BlockModule(nn.Module):
    """`layers.Block`; starts near the identity."""

    def __init__(self, layer: Block) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(layer.channels, layer.half, 1)
        self.conv = nn.Conv2d(layer.half, layer.half, 3, padding=1)
        self.expand = nn.Conv2d(layer.half, layer.channels, 1)
        _start(self.expand, std=0.02, bias=0.0)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        h = F.relu(self.reduce(x), inplace=True)
        return x + self.expand(F.relu(self.conv(h), inplace=True))


class ModulationModule(nn.Module):
    """`layers.Modulation`; starts as the identity."""

    def __init__(self, layer: Modulation, quality_count: int) -> None:
        super().__init__()
        self.last = max(1, quality_count - 1)
        self.hidden = nn.Linear(3, MODULATION_HIDDEN)
        self.out = nn.Linear(MODULATION_HIDDEN, 2 * layer.channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x [B,c,h,w], quality [B], or [B,h',w'] at a coarser grid -> [B,c,h,w]."""
        t = quality.float() / self.last * 2 - 1  # -1..1
        basis = torch.stack([t, t * t, t**3], -1)  # [B,3] or [B,h',w',3]
        both = self.out(F.gelu(self.hidden(basis))).to(x.dtype)  # [B,2c] or [B,h',w',2c]
        scale, shift = spread(both, x).chunk(2, 1)
        return x * (1 + scale) + shift


class GainModule(nn.Module):
    """`layers.Gain`, in float32."""

    def __init__(self, layer: Gain, config: ModelConfig) -> None:
        super().__init__()
        self.divides = layer.divides
        self.last = max(1, config.quality_count - 1)
        start = torch.tensor([[math.log(FIRST_GAIN)], [gain_slope(config)], [0.0]])
        if config.one_bit:
            start = torch.zeros(3, 1)  # a sign has no steps to make finer
        self.coefficients = nn.Parameter(start.repeat(1, layer.channels))

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """x [B,c,h,w], quality [B] or [B,h,w] -> float32 [B,c,h,w]."""
        with torch.autocast(x.device.type, enabled=False):
            t = quality.float() / self.last * 2 - 1  # -1..1
            basis = torch.stack([torch.ones_like(t), t, t * t], -1)  # [B,3] or [B,h,w,3]
            gain = spread((basis @ self.coefficients[:, : x.shape[1]]).exp(), x)
            return x.float() / gain if self.divides else x.float() * gain


class RescaleModule(nn.Module):
    """`layers.Rescale`."""

    def __init__(self, layer: Rescale) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Of any shape."""
        return x * self.layer.factor + self.layer.offset


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """`pixel_unshuffle` that leaves channels last in memory: [B,c,H,W] -> [B,c*f*f,H/f,W/f]."""
    batch, channels, height, width = x.shape
    rows, columns = height // factor, width // factor
    blocks = x.permute(0, 2, 3, 1).reshape(batch, rows, factor, columns, factor, channels)
    gathered = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, rows, columns, -1)
    return gathered.permute(0, 3, 1, 2)  # [B,c*f*f,H/f,W/f]


def spread(values: Tensor, x: Tensor) -> Tensor:
    """values [B,c] or [B,h',w',c] at a coarser grid -> as wide as x [B,c,h,w] has them."""
    if values.dim() == 2:
        return values[:, :, None, None]
    factor = x.shape[2] // values.shape[1]
    fine = values.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return fine.permute(0, 3, 1, 2)


def _start(conv: nn.Conv2d, std: float, bias: float) -> None:
    if not conv.weight.is_meta:  # weights from a file will take their place
        nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]


class TorchNetwork(nn.Module):
    """The layers of one or more networks as modules, by the names of their tensors."""

    def __init__(self, config: ModelConfig, *networks: Network) -> None:
        super().__init__()
        self.config = config
        for network in networks:
            for layer in network.layers:
                if layer.tensors:
                    self._adopt(getattr(layer, "name", ""), _module(layer, config))

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
        return _module(layer, self.config)

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
            result = self._module_of(layer)(x, index)
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


def _module(layer: Layer, config: ModelConfig) -> nn.Module:
    match layer:
        case Conv():
            return ConvModule(layer)
        case Down():
            return DownModule(layer)
        case Block():
            return BlockModule(layer)
        case Modulation():
            return ModulationModule(layer, config.quality_count)
        case Gain():
            return GainModule(layer, config)
        case Rescale():
            return RescaleModule(layer)


class Encoder(TorchNetwork):
    """Pixels -> features of the codes and of the importance map."""

    def __init__(self, config: ModelConfig) -> None:
        self.features_network = features_network(config)
        self.heads_network = heads_network(config)
        super().__init__(config, self.features_network, self.heads_network)
        _start(self.convolution("importance.3"), std=0.01, bias=OPEN_LOGIT)

    def forward(self, x: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """x [B,3,16h,16w] in [0,1], quality_index [B] or [B,h,w] -> code features [B,n,h,w].

        And the importance [B,1,h,w] before its sigmoid; both float32. The binarizer takes the code
        features as they are.
        """
        features = self.run(self.features_network, {"pixels": x}, quality_index)
        inputs = dict(zip(FEATURES, features, strict=True))
        inputs["trunk"] = inputs["trunk"].float()
        codes, importance = self.run(self.heads_network, inputs, quality_index)
        return codes, importance.float()


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
