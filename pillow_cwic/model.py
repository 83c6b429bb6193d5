"""A model: configuration, networks and entropy model wired together, from one weights file.

A weights file is safetensors: float16 tensors `encoder.*` and `decoder.*`, integer tensors `entropy.*`, and the
metadata "pillow-cwic model 1", which holds the configuration. It knows no pictures, no windows and no .cwic bytes.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import networks
from .binarizer import code_integers, code_signs
from .config import ModelConfig
from .entropy_model import EntropyModel
from .errors import WeightsError
from .integer_layer import stored

Network = TypeVar("Network", bound=torch.nn.Module)

FORMAT = "pillow-cwic model 1"


class Model:
    """One loaded model on one device. Entropy coding always runs on the CPU."""

    binarize: Callable[[Tensor], Tensor]  # code features -> codes

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor], device: torch.device, id: str) -> None:
        """WeightsError where tensors are missing, unexpected, misshapen, or break the integer bound."""
        self.config, self.device, self.id = config, device, id
        self.encoder = _build(lambda: networks.Encoder(config), tensors, "encoder.", device)
        self.decoder = _build(lambda: networks.Decoder(config), tensors, "decoder.", device)
        self.binarize = code_signs if config.one_bit else code_integers
        self._tensors = {name: t for name, t in tensors.items() if name.startswith("entropy.")}
        self._entropy = {torch.float32: EntropyModel(self._tensors, config, torch.float32)}

    @property
    def entropy(self) -> EntropyModel:
        """The integer entropy model, in float64 where the caller lowered torch's float32 precision."""
        dtype = torch.float32 if exact_float32() else torch.float64
        if dtype not in self._entropy:
            with torch.device("cpu"):
                self._entropy[dtype] = EntropyModel(self._tensors, self.config, dtype)
        return self._entropy[dtype]


def exact_float32() -> bool:
    """Whether float32 matrix products on this CPU are sure to multiply all 24 bits.

    torch.set_float32_matmul_precision("medium"), and its newer kin for oneDNN, allow bfloat16 products, which round
    integers. Whether a processor then does so depends on it and on the shapes: permission is enough to say no.
    """
    onednn = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    allowed = getattr(onednn, "fp32_precision", "none")
    return torch.get_float32_matmul_precision() == "highest" and allowed in ("none", "ieee")


@contextmanager
def inference() -> Iterator[None]:
    """Run networks without gradients and in full float32, whatever the caller's autocast says."""
    with torch.inference_mode(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextmanager
def differentiable(enabled: bool = True) -> Iterator[None]:
    """Run networks in full float32 with gradients, whatever the caller's autocast, no_grad and inference mode say."""
    full = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with full[0], full[1], torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield


def _build(
    make: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    prefix: str,
    device: torch.device,
) -> Network:
    with torch.device("meta"):
        network = make()
    wanted = {prefix + name: tuple(t.shape) for name, t in network.state_dict().items()}
    for name in tensors:
        if name.startswith(prefix) and name not in wanted:
            raise WeightsError(f"weights file has a tensor {name}, which its configuration has no place for")
    state = {name.removeprefix(prefix): stored(tensors, name, torch.float16, wanted[name]).float() for name in wanted}
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False).eval().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own types
    return network


def load(path: str | os.PathLike[str], device: torch.device, *, id: str) -> Model:
    """Read a weights file (already verified) onto a device; WeightsError says what is wrong with it."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{Path(path).name} is not a readable safetensors file: {error}") from error
    if FORMAT not in metadata:
        raise WeightsError(
            f"{Path(path).name} is not a model of this version: metadata {sorted(metadata)}, expected {FORMAT!r}"
        )
    try:
        values = json.loads(metadata[FORMAT])
        if not isinstance(values, dict):
            raise TypeError(f"expected an object with a model's fields, found {values!r}")
        config = ModelConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{Path(path).name}: bad model configuration: {error}") from error
    # Whatever the caller's default device is; and refinement needs weights that gradients may pass.
    with torch.device("cpu"), torch.inference_mode(False):
        return Model(config, tensors, device, id)


def save(
    path: str | os.PathLike[str], config: ModelConfig, networks: Mapping[str, Tensor], entropy: Mapping[str, Tensor]
) -> None:
    """Write a weights file: networks float (stored as float16, names `encoder.*`, `decoder.*`), entropy integers.

    The same tensors always give the same bytes, hence the same id: metadata is one key, because several come in no
    fixed order.
    """
    tensors = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in networks.items()}
    data = safetensors.torch.save({**tensors, **entropy}, {FORMAT: config.to_json()})
    temporary = Path(path).with_name(f"{Path(path).name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def resolve_device(device: "str | torch.device | None") -> torch.device:
    """Argument, else PILLOW_CWIC_DEVICE, else the GPU if there is one; ValueError names what is wrong."""
    name = str(device) if device is not None else os.environ.get("PILLOW_CWIC_DEVICE") or "auto"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not known; use cpu, cuda, cuda:N or auto") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} asked for, but torch finds {torch.cuda.device_count()} CUDA device(s)")
    return found
