"""Checkpoints: all that a run needs to go on.

Invariant: a crash at any moment leaves a whole checkpoint behind, this one or the one before. One
checkpoint is one uncompressed tar (weights and moving average as safetensors, the rest as a torch
file read back with `weights_only=True`), stored as one file or cut into parts. `checkpoint.json`
lists the parts with their SHA-256; renaming it into place is what makes a checkpoint exist. Older
parts are removed after that. This module knows neither the recipe nor what `extra` means.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ..runtime.files import write_atomically
from .schedule import Progress
from .step import Step

INDEX = "checkpoint.json"


@dataclass(frozen=True)
class RunState:
    """What a checkpoint holds beside the networks."""

    optimizer: dict[str, Any]
    """Not asked of the step by `save`: every rank has a part of it, and only the first writes."""

    progress: Progress
    extra: dict[str, Any]  # plain values and tensors of the caller's


def save(folder: Path, step: Step, state: RunState, part_bytes: int = 0) -> None:
    """Write a checkpoint into `folder`, in parts of at most `part_bytes` (0: one file)."""
    data = _pack(step, state)
    size = part_bytes or len(data)
    stem = f"checkpoint-{state.progress.step:08d}"

    # The parts first: until the index names them, the checkpoint before is the newest.
    parts = []
    for number, start in enumerate(range(0, len(data), size)):
        name = f"{stem}.part{number}" if part_bytes else f"{stem}.tar"
        piece = data[start : start + size]
        write_atomically(folder / name, piece)
        parts.append(
            {"name": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
        )
    index = {"step": state.progress.step, "parts": parts}
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())

    # Nothing points at older parts any more.
    kept_names = {part["name"] for part in parts}
    for old in folder.glob("checkpoint-*"):
        if old.name not in kept_names:
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
    """Copy what fits by name and shape from a safetensors file into a fresh step.

    Says how much did, for the records. ValueError if nothing fits; OSError if the file cannot be
    read.
    """
    data = weights.read_bytes()
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a safetensors file: {error}") from None

    # A larger model may begin with a smaller one's weights, so not all must fit.
    own = step.joint.state_dict()
    fitting = {
        name: tensor.float()
        for name, tensor in tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not fitting:
        raise ValueError(
            f"{weights} has no tensor with the name and shape of one of the recipe's model"
        )

    # The average follows from the same point.
    for module in (step.joint, step.average):
        module.load_state_dict(fitting, strict=False)
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"{len(fitting)} of {len(own)} tensors from {weights.name} (SHA-256 {digest[:16]}), "
        f"{len(tensors)} there"
    )


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


def float_weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's state as contiguous tensors on the processor."""
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
    }


def _pack(step: Step, state: RunState) -> bytes:
    # All but the weights: safetensors holds tensors only.
    content = {
        "optimizer": state.optimizer,
        "sums": step.sums,
        "progress": asdict(state.progress),
        "extra": state.extra,
    }
    pickled = io.BytesIO()
    torch.save(content, pickled)
    members = {
        "weights.safetensors": save_safetensors(float_weights(step.joint)),
        "average.safetensors": save_safetensors(float_weights(step.average)),
        "state.pt": pickled.getvalue(),
    }

    # Uncompressed: weights do not shrink.
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _join(folder: Path) -> bytes:
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise OSError(
            f"no readable checkpoint in {folder} ({error}); start the run without --resume"
        ) from error

    # A part that is missing or damaged is named: parts may be brought back one by one.
    pieces = []
    for part in index["parts"]:
        path = folder / part["name"]
        if not path.is_file():
            raise OSError(
                f"the checkpoint in {folder} lacks {part['name']} ({part['bytes']} bytes): bring "
                "it back"
            )
        piece = path.read_bytes()
        digest = hashlib.sha256(piece).hexdigest()
        if digest != part["sha256"]:
            raise OSError(f"{path} is damaged: its SHA-256 is {digest}, expected {part['sha256']}")
        pieces.append(piece)
    return b"".join(pieces)


def _unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            member.name: file.read()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }
