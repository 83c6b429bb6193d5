"""A tiny model, untrained but not indifferent: its entropy networks answer to their inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.training.integer_weights import export_weights
from pillow_cwic.training.joint_codec import JointCodec

CONFIG = ModelConfig(
    kept_planes=(0, 3, 8, 16),
    quality_count=8,
    encoder_channels=(8, 12, 16),
    encoder_blocks=(1, 1, 1),
    decoder_channels=(8, 12, 16),
    decoder_blocks=(2, 1, 1),
    outer_side=3,
    importance_channels=8,
    context_features=24,
    context_layers=2,
    map_features=8,
    map_channels=8,
    ladder=31,
    lambda_min=0.0006,
    lambda_max=0.08,
    ms_ssim_weight=(0.0, 0.0),
    ssim_weight=(0.0, 0.0),
)

ONE_BIT = replace(CONFIG, ladder=0)
"""The same with one threshold: codes are -1 and +1."""

RECIPE = """
name = "tiny"
description = "for tests"
minutes = 1.0
seed = 1
[model]
kept_planes = [0, 3, 8, 16]
quality_count = 8
encoder_channels = [8, 12, 16]
encoder_blocks = [1, 1, 1]
decoder_channels = [8, 12, 16]
decoder_blocks = [1, 1, 1]
outer_side = 3
importance_channels = 8
context_features = 16
context_layers = 2
map_features = 8
map_channels = 8
ladder = 31
lambda_min = 0.0006
lambda_max = 0.08
ms_ssim_weight = [0.0, 0.0]
ssim_weight = [0.0, 0.0]
[data]
crop = 48
batch = 2
min_pictures = 4
validation_pictures = 1
[watch]
log_every = 5
validations = 1
validation_qualities = [0, 7]
plots = false
[[stages]]
name = "first"
share = 0.5
learning_rate = 2e-3
final_learning_rate = 2e-3
importance = false
[[stages]]
name = "second"
share = 0.5
learning_rate = 2e-3
final_learning_rate = 1e-3
"""
"""A run of a model as small, in two stages."""


def joint(seed: int = 5, config: ModelConfig = CONFIG) -> JointCodec:
    """The joint codec; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        codec = JointCodec(config).eval()
        for parameter in codec.planes.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if parameter.dim() == 1 else 0.1))
        for parameter in codec.maps.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        if config.one_bit:
            for step in codec.planes.step:
                step.out.weight.mul_(2.0)  # means past the end of the one threshold's table
        last = dict(codec.encoder.named_parameters())
        last["importance.3.weight"].mul_(300.0)  # levels that differ from place to place
        last["importance.3.bias"].fill_(1.0)
        return codec


def export(path: Path, seed: int = 5, config: ModelConfig = CONFIG) -> str:
    """Writes the weights file and returns its SHA-256."""
    return export_weights(joint(seed, config), path)


def write_manifest(path: Path, file: Path, *, sha256: str, **fields: object) -> None:
    """A manifest beside one model file, as a team would publish it."""
    model = {
        "name": file.stem,
        "file": file.name,
        "sha256": sha256,
        "bytes": file.stat().st_size,
        **fields,
    }
    path.write_text(json.dumps({"schema": 1, "models": [model]}))
