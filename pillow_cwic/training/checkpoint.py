"""Checkpoints: all that a run needs to go on, written so that a crash at any moment leaves a whole one behind.

One checkpoint is one uncompressed tar (weights and moving average as safetensors, the rest as a torch file read back
with `weights_only=True`), stored as one file or cut into parts. `checkpoint.json` lists the parts with their
SHA-256; renaming it into place is what makes a checkpoint exist. Older parts are removed after that.
"""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from .schedule import Progress
from .step import Step

INDEX = "checkpoint.json"


def save(
    folder: Path, step: Step, optimizer: dict[str, Any], progress: Progress, extra: dict[str, Any], part_bytes: int = 0
) -> None:
    """Write a checkpoint into `folder`, in parts of at most `part_bytes` (0: one file).

    optimizer: its state, from `step`; not asked for here, as every rank has a part of it and only the first one writes.
    """
    data = _pack(step, optimizer, progress, extra)
    size = part_bytes or len(data)
    parts = []
    for number, start in enumerate(range(0, len(data), size)):
        piece = data[start : start + size]
        name = f"checkpoint-{progress.step:08d}.part{number}" if part_bytes else f"checkpoint-{progress.step:08d}.tar"
        write_atomically(folder / name, piece)
        parts.append({"name": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    index = {"step": progress.step, "parts": parts}
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())
    kept = {part["name"] for part in parts}
    for old in folder.glob("checkpoint-*"):
        if old.name not in kept:
            old.unlink()


def exists(folder: Path) -> bool:
    """True if `folder` holds a checkpoint."""
    return (folder / INDEX).is_file()


def load(folder: Path, step: Step) -> tuple[Progress, dict[str, Any]]:
    """Put the newest checkpoint's state into `step`; OSError if a part is missing or damaged."""
    files = _unpack(_join(folder))
    step.joint.load_state_dict(load_safetensors(files["weights.safetensors"]))
    step.average.load_state_dict(load_safetensors(files["average.safetensors"]))
    state = torch.load(io.BytesIO(files["state.pt"]), map_location="cpu", weights_only=True)
    rate = step.rate
    step.optimizer.load_state_dict(state["optimizer"])
    for group in step.optimizer.param_groups:
        rate.copy_(torch.as_tensor(group["lr"]))
        group["lr"] = rate  # the one that the schedule sets
    step.sums.copy_(state["sums"])
    progress = Progress(**state["progress"])
    step.taken.fill_(progress.step)
    return progress, state["extra"]


def start_from(weights: Path, step: Step) -> str:
    """Copy what fits by name and shape from a safetensors file into a fresh step; says how much did, for the records.

    ValueError if nothing fits; OSError if the file cannot be read.
    """
    data = weights.read_bytes()
    try:
        given = load_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a safetensors file: {error}") from None
    own = step.joint.state_dict()
    fitting = {
        name: tensor.float() for name, tensor in given.items() if name in own and own[name].shape == tensor.shape
    }
    if not fitting:
        raise ValueError(f"{weights} has no tensor with the name and shape of one of the recipe's model")
    for module in (step.joint, step.average):
        module.load_state_dict(fitting, strict=False)
    digest = hashlib.sha256(data).hexdigest()
    return f"{len(fitting)} of {len(own)} tensors from {weights.name} (SHA-256 {digest[:16]}), {len(given)} there"


def random_state(device: torch.device) -> dict[str, Tensor]:
    """This process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put the generators back; a checkpoint from another kind of device restores what both have."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, rename."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def float_weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's state as contiguous tensors on the processor."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _pack(step: Step, optimizer: dict[str, Any], progress: Progress, extra: dict[str, Any]) -> bytes:
    state = io.BytesIO()
    content = {
        "optimizer": optimizer,
        "sums": step.sums,
        "progress": asdict(progress),
        "extra": extra,
    }
    torch.save(content, state)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (
            ("weights.safetensors", save_safetensors(float_weights(step.joint))),
            ("average.safetensors", save_safetensors(float_weights(step.average))),
            ("state.pt", state.getvalue()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _join(folder: Path) -> bytes:
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise OSError(f"no readable checkpoint in {folder} ({error}); start the run without --resume") from error
    pieces = []
    for part in index["parts"]:
        path = folder / part["name"]
        if not path.is_file():
            raise OSError(f"the checkpoint in {folder} lacks {part['name']} ({part['bytes']} bytes): bring it back")
        piece = path.read_bytes()
        found = hashlib.sha256(piece).hexdigest()
        if found != part["sha256"]:
            raise OSError(f"{path} is damaged: its SHA-256 is {found}, expected {part['sha256']}")
        pieces.append(piece)
    return b"".join(pieces)


def _unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: file.read() for m in tar if (file := tar.extractfile(m)) is not None}
