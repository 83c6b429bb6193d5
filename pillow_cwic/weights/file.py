"""A weights file <-> a model: safetensors.

The tensors `encoder.*` and `decoder.*` are float16, `entropy.*` are integers; the metadata key
"pillow-cwic model 1" holds the configuration. Invariant: the same tensors always give the same
bytes. This module knows no places and no hashes: whoever calls has checked the file's.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from ..model import Model
from ..networks.config import ModelConfig
from ..runtime.files import write_atomically

FORMAT = "pillow-cwic model 1"

Tensors = dict[str, NDArray[Any]]


def read_model(path: str | PathLike[str], device: str, *, id: str) -> Model:
    """Read a weights file (already verified) onto a device, as `resolve_device` names it.

    WeightsError says what is wrong with it.
    """
    metadata, tensors = _read(path, with_tensors=True)
    return Model(_config(Path(path).name, metadata), tensors, device, id)


def read_config(path: str | PathLike[str]) -> ModelConfig:
    """The configuration in a weights file, without its tensors; WeightsError as `read_model`."""
    metadata, _ = _read(path, with_tensors=False)
    return _config(Path(path).name, metadata)


def _read(path: str | PathLike[str], *, with_tensors: bool) -> tuple[dict[str, str], Tensors]:
    """Metadata and tensors; these are copies, so that the file may go afterwards."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys()) if with_tensors else []
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{Path(path).name} is not a readable safetensors file: {error}"
        ) from error


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
    path: str | PathLike[str],
    config: ModelConfig,
    networks: Mapping[str, NDArray[Any]],
    entropy: Mapping[str, NDArray[Any]],
) -> None:
    """Write a weights file.

    networks: float tensors `encoder.*` and `decoder.*`, stored as float16; entropy: integers. The
    same tensors always give the same bytes, hence the same id: metadata is one key, because
    several come in no fixed order.
    """
    floats = {name: np.ascontiguousarray(t, np.float16) for name, t in networks.items()}
    data = safetensors.numpy.save({**floats, **entropy}, {FORMAT: config.to_json()})
    write_atomically(Path(path), data)
