"""Weights files of tiny models, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import coders
import pytest
import tiny_model

from pillow_cwic.entropy.tile_coder import TileCoder
from pillow_cwic.training.integer_weights import integer_weights

WIDE = replace(tiny_model.CONFIG, kept_planes=(0, 3, 16, 32))
"""A model in which a tile may have no, half or all of its channels."""


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's weights file."""
    path = tmp_path_factory.mktemp("entropy") / "tiny.safetensors"
    tiny_model.export(path)
    return path


@pytest.fixture(scope="session")
def one_bit_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of the tiny model with one threshold."""
    path = tmp_path_factory.mktemp("entropy") / "one-bit.safetensors"
    tiny_model.export(path, config=tiny_model.ONE_BIT)
    return path


@pytest.fixture(scope="session")
def tiny(path: Path) -> TileCoder:
    """The tiny model's tile coder."""
    return coders.coder_of(path)


@pytest.fixture(scope="session")
def one_bit(one_bit_path: Path) -> TileCoder:
    """The tile coder of the tiny model with one threshold."""
    return coders.coder_of(one_bit_path)


@pytest.fixture(scope="session")
def wide() -> TileCoder:
    """The tile coder of a model with twice the channels."""
    joint = tiny_model.joint(config=WIDE)
    return TileCoder(integer_weights(joint.planes, joint.maps, WIDE), WIDE)
