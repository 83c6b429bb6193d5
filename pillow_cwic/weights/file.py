"""A weights file <-> a model: safetensors.

The tensors `encoder.*` and `decoder.*` are float16, `entropy.*` are integers; the metadata key
"pillow-cwic model 1" holds the configuration. Invariant: the same tensors always give the same
bytes. This module knows no places and no hashes: whoever calls has checked the file's.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..errors import WeightsError
from ..model import Model
from ..networks.config import ModelConfig
from ..runtime.files import open_regular, write_atomically

FORMAT = "pillow-cwic model 1"

MOST_HEADER_BYTES = 1 << 24


def read_model(path: str | PathLike[str], device: str, *, id: str) -> Model:
    """Read a weights file (already verified) onto a device, as `resolve_device` names it.

    WeightsError says what is wrong with it.
    """
    name = Path(path).name
    with _reading(name), open_regular(Path(path)) as file:
        data = file.read()
    return parse_model(data, name, device, id=id)


def parse_model(data: bytes, name: str, device: str, *, id: str) -> Model:
    """As `read_model`, from the bytes of a file called `name`; they may go afterwards."""
    with _reading(name):
        metadata = _metadata(io.BytesIO(data), len(data))
        config = _config(name, metadata)
        tensors = safetensors.numpy.load(data)
    return Model(config, tensors, device, id)


def read_config(path: str | PathLike[str]) -> ModelConfig:
    """The configuration in a weights file, without its tensors; WeightsError as `read_model`."""
    name = Path(path).name
    with _reading(name), open_regular(Path(path)) as file:
        return _config(name, _metadata(file, os.fstat(file.fileno()).st_size))


def _metadata(file: BinaryIO, size: int) -> dict[str, str]:
    """What the header says beside the tensors: its length in 8 bytes, then JSON."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise ValueError(f"a header of {length} bytes, in a file of {size}")
    header = json.loads(file.read(length))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever is wrong with the bytes as a WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{name} is not a readable safetensors file: {reason}") from error


def _config(name: str, metadata: dict[str, str]) -> ModelConfig:
    if FORMAT not in metadata:
        raise WeightsError(
            f"{name} is not a model of this version: metadata {sorted(metadata)}, "
            f"expected {FORMAT!r}"
        )
    try:
        values = json.loads(metadata[FORMAT])
        if not isinstance(values, dict):
            raise TypeError(f"expected an object with a model's fields, found {values!r:.60}")
        return ModelConfig.from_dict(values)
    except (ValueError, TypeError, RecursionError) as error:
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
