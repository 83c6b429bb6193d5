"""Pictures that all tests use; a real photograph, cut small so that the suite stays quick."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.demo import SHIPPED


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """RGB, 88 x 72 pixels: eyes and hair of the demo's picture."""
    with Image.open(SHIPPED) as image:
        return image.convert("RGB").crop((170, 60, 258, 132))


@pytest.fixture(scope="session")
def cwic_bytes(photo: Image.Image) -> bytes:
    """`photo` as a .cwic file, quality 0.3, without metadata."""
    import numpy as np

    return pillow_cwic.encode(np.asarray(photo), quality=0.3)


@pytest.fixture
def cwic_file(cwic_bytes: bytes, tmp_path: Path) -> Path:
    """`cwic_bytes` on disk."""
    path = tmp_path / "photo.cwic"
    path.write_bytes(cwic_bytes)
    return path


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., str]:
    """Run code in a new interpreter with the same package; its stdout. Warnings there are errors, too."""

    def run(code: str, *arguments: object) -> str:
        root = Path(pillow_cwic.__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
