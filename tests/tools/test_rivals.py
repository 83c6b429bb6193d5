"""The one table of rivals: `compare` and `evaluate` write files with the same settings."""

from __future__ import annotations

from collections import defaultdict
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from pillow_cwic.tools import compare, rivals
from pillow_cwic.tools.rivals import CURVES, MEASURED, RIVALS, Rival
from pillow_cwic.training import evaluate, measures

TITLES = {
    "jpeg": "JPEG 4:2:0",
    "jpeg2000": "JPEG 2000",
    "webp": "WebP m6",
    "avif": "AVIF 4:4:4 s4",
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Rival]]:
    """By title, the rivals that wrote files."""
    seen, encode = defaultdict(list), Rival.encode

    def watched(self: Rival, picture: Image.Image, dial: float) -> bytes:
        seen[self.title].append(self)
        return encode(self, picture, dial)

    monkeypatch.setattr(Rival, "encode", watched)
    return seen


def test_the_rivals_have_names_and_titles() -> None:
    """The command line's names, and the titles that say the settings.

    Curves are measured of AVIF by each of its tunes, too.
    """
    assert {name: rival.title for name, rival in RIVALS.items()} == TITLES
    assert evaluate.EvaluateOptions([], [], None).codecs == MEASURED
    assert set(MEASURED) < set(CURVES)


@pytest.mark.parametrize("name", RIVALS)
def test_compare_and_evaluate_share_their_settings(
    name: str, photo: Image.Image, used: dict[str, list[Rival]]
) -> None:
    """One object writes the files of both, so that a setting cannot differ."""
    rival = RIVALS[name]
    if not rival.available:
        pytest.skip(f"this Pillow does not write {rival.title}")
    with tqdm(disable=True) as bar:
        compare.compare_picture("photo", photo, rivals.available(), bar, {"quality": 1.0})
    by_compare = used.pop(rival.title)
    list(measures.measure(name, "photo", np.asarray(photo)))
    by_evaluate = used.pop(rival.title)
    assert {id(one) for one in by_compare} == {id(one) for one in by_evaluate} == {id(rival)}
    assert len(by_evaluate) == len(rival.curve)


@pytest.mark.parametrize(
    ("name", "dial", "settings"),
    [
        ("jpeg", 35, {"quality": 35, "subsampling": "4:2:0", "optimize": True}),
        ("jpeg2000", 0.5, {"quality_mode": "rates", "quality_layers": [48.0], "mct": 1}),
        ("webp", 40, {"quality": 40, "method": 6}),
        ("avif", 42, {"quality": 42, "subsampling": "4:4:4", "speed": 4}),
    ],
)
def test_the_settings_are_those_of_the_title(
    name: str, dial: float, settings: dict[str, Any]
) -> None:
    """What a title promises is what Pillow's `save` is given."""
    found = RIVALS[name].options(dial)
    assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize("size", [(1, 1), (10, 9), (33, 17)])
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_writes_pictures_of_any_size(
    name: str, size: tuple[int, int], photo: Image.Image
) -> None:
    """From one pixel up, what is written opens as a picture of the same size."""
    rival = RIVALS[name]
    if not rival.available:
        pytest.skip(f"this Pillow does not write {rival.title}")
    data = rival.encode(photo.crop((0, 0, *size)), rival.curve[-1])
    with Image.open(BytesIO(data)) as image:
        assert image.convert("RGB").size == size
