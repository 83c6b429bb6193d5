"""The dial: what a file was saved at is what it says.

Wherever it is read, whatever the model's number of qualities.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tiny_model
from PIL import Image

import pillow_cwic
from pillow_cwic.options import quality_index, quality_of
from pillow_cwic.tools.cli import main
from pillow_cwic.weights import cache, models

TINY_COUNT = tiny_model.CONFIG.quality_count


@pytest.mark.parametrize("count", [1, 8, 64])
def test_every_index_has_a_position_that_means_it(count: int) -> None:
    """From index to dial and back is the same index; positions lie in 0..1 and rise."""
    positions = [quality_of(index, count) for index in range(count)]
    assert [quality_index(quality, count) for quality in positions] == list(range(count))
    assert positions == sorted(set(positions))
    assert positions[0] >= 0
    assert positions[-1] <= 1


@pytest.mark.parametrize("count", [2, 8, 64])
def test_the_ends_of_the_dial_are_exact(count: int) -> None:
    """0 is the lowest quality and 1 the highest, both ways."""
    assert [quality_index(quality, count) for quality in (0, 1)] == [0, count - 1]
    assert [quality_of(index, count) for index in (0, count - 1)] == [0, 1]


@pytest.mark.parametrize("tenth", range(11))
def test_a_tenth_of_the_dial_is_said_as_it_was_given(tenth: int) -> None:
    """Of 64 qualities, those that 0, 0.1, ... 1 mean are called 0, 0.1, ...

    1: the shortest decimal.
    """
    assert quality_of(quality_index(tenth / 10, 64), 64) == tenth / 10


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> list[float | None]:
    """The file's quality as Pillow, imageio and the command line have it."""
    with Image.open(path) as image:
        by_pillow = image.info.get("cwic_quality")
    assert main(["info", "--json", str(path)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    return [by_pillow, iio.immeta(path)["quality"], report["quality"]]


@pytest.mark.parametrize("quality", [0, 0.06, 0.3, 0.5, 0.93, 1])
def test_a_model_of_eight_qualities_says_what_was_asked_for(
    quality: float, tiny: Path, photo: Image.Image, tmp_path: Path, capsys
) -> None:
    """Wherever it is read, the file says a position that means the index it was saved at."""
    path = tmp_path / "x.cwic"
    photo.save(path, model=str(tiny), quality=quality)
    index = pillow_cwic.read_header(path).quality_index
    assert index == round(quality * (TINY_COUNT - 1))
    found = shown(path, capsys)
    assert len(set(found)) == 1
    assert quality_index(found[0], TINY_COUNT) == index
    again = pillow_cwic.encode(np.asarray(photo), model=tiny, quality=found[0])
    assert again == path.read_bytes()


def test_a_manifest_tells_what_an_index_means(
    tiny: Path, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A process that never saw the weights knows the dial from the manifest, or says so."""
    path = tmp_path / "x.cwic"
    photo.save(path, model=str(tiny), quality=1.0)
    models.forget()
    assert shown(path, capsys) == [None, None, None]
    assert main(["info", str(path)]) == 0
    assert "quality   unknown (index 7)" in capsys.readouterr().out
    listed = tmp_path / "manifest.json"
    config = json.loads(tiny_model.CONFIG.to_json())
    tiny_model.write_manifest(listed, tiny, sha256=cache.hash_file(tiny), config=config)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(listed))
    assert shown(path, capsys) == [1, 1, 1]


@pytest.mark.parametrize("quality", [0.0, 0.1, 0.3, 0.5, 0.75, 0.9, 1.0])
def test_the_shipped_model_says_what_was_asked_for(
    quality: float, photo: Image.Image, tmp_path: Path, capsys
) -> None:
    """Saved at 0.5, a file says 0.5."""
    path = tmp_path / "x.cwic"
    photo.save(path, quality=quality)
    assert shown(path, capsys) == [quality] * 3


def test_the_default_is_told(photo: Image.Image) -> None:
    """Saved without a quality, a file says 0.4."""
    file = BytesIO()
    photo.save(file, "CWIC")
    assert Image.open(file).info["cwic_quality"] == 0.4
