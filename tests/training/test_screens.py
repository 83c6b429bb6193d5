"""`screens` draws pictures that training takes, the same ones each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pillow_cwic.training.__main__ import main
from pillow_cwic.training.screens import SIDE, find_fonts


def test_screens_are_drawn_again_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs give the same files; each is sharp, flat and different from the others."""
    for folder in ("a", "b"):
        assert main(["screens", "--out", str(tmp_path / folder), "--count", "6"]) == 0
    assert "6 pictures in" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"screen-{number:05}.png" for number in range(6)]
    pictures = []
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        with Image.open(tmp_path / "a" / name) as image:
            assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
            pictures.append(np.asarray(image).astype(int))
    for picture in pictures:
        steps = np.abs(np.diff(picture, axis=1)).max(2)
        assert (steps == 0).mean() > 0.5  # flat ground
        assert (steps > 60).mean() > 0.002  # sharp edges
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_fonts_are_found_everywhere() -> None:
    """At least matplotlib's own, whatever the system has."""
    assert any("DejaVu" in font for font in find_fonts())


def test_none_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A count below one is refused by name."""
    assert main(["screens", "--out", str(tmp_path), "--count", "0"]) == 1
    assert "--count must be 1 or more, found 0" in capsys.readouterr().err
