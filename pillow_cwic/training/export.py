"""A trained joint codec -> a weights file that the codec loads."""

import os
from pathlib import Path

import torch

from .. import cache, model
from .joint import JointCodec
from .quantize import quantize


def export_weights(joint: JointCodec, path: str | os.PathLike[str]) -> str:
    """Write the weights file of a joint codec and return its SHA-256 (64 hex digits).

    Loading it back proves the accumulator bound: a WeightsError says which layer breaks it.
    """
    networks = {n: t for n, t in joint.state_dict().items() if n.startswith(("encoder.", "decoder."))}
    model.save(path, joint.config, networks, quantize(joint.planes, joint.maps, joint.config.ladder))
    sha256 = cache.hash_file(Path(path))
    model.load(path, torch.device("cpu"), id=sha256[:16])
    return sha256
