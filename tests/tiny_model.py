"""A real model of 1.7 MB, exported from untrained networks: other weights than the shipped ones, the same code."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pillow_cwic.config import ModelConfig
from pillow_cwic.training.export import export_weights
from pillow_cwic.training.joint import JointCodec

CONFIG = ModelConfig(
    quarter_channels=8,
    eighth_channels=16,
    encoder_quarter_blocks=1,
    encoder_eighth_blocks=1,
    decoder_quarter_blocks=1,
    decoder_eighth_blocks=1,
)


def export(path: Path, seed: int = 5) -> str:
    """Writes the weights file and returns its SHA-256; the same seed gives the same bytes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return export_weights(JointCodec(CONFIG), path)


def write_manifest(path: Path, file: Path, *, sha256: str, **fields: object) -> None:
    """A manifest beside one model file, as a team would publish it."""
    model = {"name": file.stem, "file": file.name, "sha256": sha256, "bytes": file.stat().st_size, **fields}
    path.write_text(json.dumps({"schema": 1, "models": [model]}))
