"""Pictures that all tests use; a real photograph, cut small so that the suite stays quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from PIL import Image
from processes import environment

import pillow_cwic
from pillow_cwic.tools.demo import SHIPPED


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """RGB, 88 x 72 pixels: eyes and hair of the demo's picture."""
    with Image.open(SHIPPED) as image:
        return image.convert("RGB").crop((170, 60, 258, 132))


@pytest.fixture(scope="session")
def pixels(photo: Image.Image) -> np.ndarray:
    """`photo`, mirrored to 300 x 220 pixels: several windows, once these are made small."""
    a = np.asarray(photo)
    missing = (0, 220 - a.shape[0]), (0, 300 - a.shape[1]), (0, 0)
    return np.ascontiguousarray(np.pad(a, missing, mode="symmetric"))


@pytest.fixture(scope="session")
def face() -> Image.Image:
    """RGB, 256 x 192 pixels of the demo's picture."""
    with Image.open(SHIPPED) as image:
        return image.convert("RGB").crop((120, 20, 376, 212))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of `tiny_model`: 8 qualities, in no manifest."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    tiny_model.export(path)
    return path


@pytest.fixture(scope="session")
def cwic_bytes(photo: Image.Image) -> bytes:
    """`photo` as a .cwic file, quality 0.3, without metadata."""
    return pillow_cwic.encode(np.asarray(photo), quality=0.3)


@pytest.fixture
def cwic_file(cwic_bytes: bytes, tmp_path: Path) -> Path:
    """`cwic_bytes` on disk."""
    path = tmp_path / "photo.cwic"
    path.write_bytes(cwic_bytes)
    return path


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., str]:
    """Run code in a new interpreter with the same package; its stdout.

    Warnings there are errors, too.
    """

    def run(code: str, *arguments: object) -> str:
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        variables = environment()
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
