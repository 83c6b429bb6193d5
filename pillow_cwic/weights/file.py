"""A weights file <-> a model: safetensors.

The tensors `encoder.*` and `decoder.*` are float16, `entropy.*` are integers; the metadata key
"pillow-cwic model 1" holds the configuration. Invariant: the same tensors always give the same
bytes. This module knows no places and no hashes: whoever calls has checked the file's.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import WeightsError
from ..model import Model
from ..networks.config import ModelConfig
from ..runtime.files import write_atomically

FORMAT = "pillow-cwic model 1"


def read_model(path: str | os.PathLike[str], device: torch.device, *, id: str) -> Model:
    """Read a weights file (already verified) onto a device.

    WeightsError says what is wrong with it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{Path(path).name} is not a readable safetensors file: {error}"
        ) from error
    config = _config(Path(path).name, metadata)
    # Whatever the caller's default device is; and refinement needs weights that gradients may pass.
    with torch.device("cpu"), torch.inference_mode(False):
        return Model(config, tensors, device, id)


def read_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The configuration in a weights file, without its tensors; WeightsError as `read_model`."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{Path(path).name} is not a readable safetensors file: {error}"
        ) from error
    return _config(Path(path).name, metadata)


def _config(name: str, metadata: dict[str, str]) -> ModelConfig:
    if FORMAT not in metadata:
        raise WeightsError(
            f"{name} is not a model of this version: metadata {sorted(metadata)}, "
            f"expected {FORMAT!r}"
        )
    try:
        values = json.loads(metadata[FORMAT])
        if not isinstance(values, dict):
            raise TypeError(f"expected an object with a model's fields, found {values!r}")
        return ModelConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{name}: bad model configuration: {error}") from error


def write_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    networks: Mapping[str, Tensor],
    entropy: Mapping[str, Tensor],
) -> None:
    """Write a weights file.

    networks: float tensors `encoder.*` and `decoder.*`, stored as float16; entropy: integers. The
    same tensors always give the same bytes, hence the same id: metadata is one key, because
    several come in no fixed order.
    """
    tensors = {
        name: t.detach().to("cpu", torch.float16).contiguous() for name, t in networks.items()
    }
    data = safetensors.torch.save({**tensors, **entropy}, {FORMAT: config.to_json()})
    write_atomically(Path(path), data)
