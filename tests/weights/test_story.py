"""The user story of docs/weights.md.

A team's model, from its folder to a colleague's machine, in real processes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_model
from machines import ENCODE, OPEN, Machine, http_server
from PIL import Image

from pillow_cwic.weights import cache


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The team's folder: a model exported by the project's own code, and its manifest."""
    folder = tmp_path_factory.mktemp("team")
    sha256 = tiny_model.export(folder / "ours.safetensors")
    tiny_model.write_manifest(
        folder / "manifest.json", folder / "ours.safetensors", sha256=sha256, licence="MIT"
    )
    return folder


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, team: Path) -> tuple[Path, Path]:
    """A picture encoded on machine A with the team's model, given by path.

    And its pixels as A decodes them.
    """
    tmp_path = tmp_path_factory.mktemp("a")
    ramp = np.linspace(0, 255, 128, dtype=np.uint8)
    pixels = np.stack(
        [
            np.tile(ramp, (96, 1)),
            np.tile(ramp[:96, None], (1, 128)),
            np.full((96, 128), 90, np.uint8),
        ],
        -1,
    )
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    machine = Machine(tmp_path / "home")
    file, decoded = tmp_path / "picture.cwic", tmp_path / "a.png"
    done = machine.python(
        "-c", ENCODE, tmp_path / "picture.png", team / "ours.safetensors", file, decoded
    )
    assert done.returncode == 0, done.stderr
    assert not machine.cache.exists()
    return file, decoded


def same_pixels(first: Path, second: Path) -> bool:
    with Image.open(first) as one, Image.open(second) as other:
        return one.mode == other.mode == "RGB" and np.array_equal(
            np.asarray(one), np.asarray(other)
        )


def test_a_colleague_opens_the_picture_without_thinking_about_models(
    tmp_path: Path, team: Path, encoded: tuple[Path, Path]
) -> None:
    """Machine B has an empty cache and a manifest URL.

    The picture opens, and the second time without any server.
    """
    file, expected = encoded
    with http_server(team) as url:
        machine = Machine(tmp_path / "b", PILLOW_CWIC_MANIFEST=f"{url}/manifest.json")
        first = machine.python("-c", OPEN, file, tmp_path / "first.png")
    assert (first.returncode, first.stderr) == (0, "")
    assert same_pixels(tmp_path / "first.png", expected)
    second = machine.python("-c", OPEN, file, tmp_path / "second.png")
    assert (second.returncode, second.stderr) == (0, "")
    assert same_pixels(tmp_path / "second.png", expected)


def test_without_the_manifest_the_error_says_what_to_do(
    tmp_path: Path, team: Path, encoded: tuple[Path, Path]
) -> None:
    """A machine that knows nothing of the team's model names its id and the remedy.

    The remedy works.
    """
    file, expected = encoded
    machine = Machine(tmp_path / "c")
    refused = machine.python("-c", OPEN, file, tmp_path / "c.png")
    sha256 = cache.hash_file(team / "ours.safetensors")
    assert refused.returncode == 1
    assert f"WeightsError: the model with id {sha256[:16]} is not known here" in refused.stderr
    assert "pillow-cwic weights add MANIFEST" in refused.stderr
    with http_server(team) as url:
        added = machine.python("-m", "pillow_cwic", "weights", "add", f"{url}/manifest.json")
        fetched = machine.python("-m", "pillow_cwic", "weights", "fetch", "ours")
    assert (added.returncode, fetched.returncode) == (0, 0), added.stderr + fetched.stderr
    assert machine.python("-c", OPEN, file, tmp_path / "c.png").returncode == 0
    assert same_pixels(tmp_path / "c.png", expected)


def test_an_air_gapped_machine_works_from_a_copied_cache_or_a_mirror(
    tmp_path: Path, team: Path, encoded: tuple[Path, Path]
) -> None:
    """Offline, a copied cache file opens the picture.

    Elsewhere a mirror of bare files serves a local manifest.
    """
    file, expected = encoded
    offline = Machine(tmp_path / "d", PILLOW_CWIC_OFFLINE="1")
    offline.cache.mkdir()
    name = f"{cache.hash_file(team / 'ours.safetensors')}.safetensors"
    (offline.cache / name).write_bytes((team / "ours.safetensors").read_bytes())
    assert offline.python("-c", OPEN, file, tmp_path / "d.png").returncode == 0
    assert same_pixels(tmp_path / "d.png", expected)
    (tmp_path / "manifest.json").write_bytes(
        (team / "manifest.json").read_bytes()
    )  # without the model beside it
    with http_server(team) as url:
        variables = {
            "PILLOW_CWIC_MANIFEST": str(tmp_path / "manifest.json"),
            "PILLOW_CWIC_WEIGHTS_URL": url,
        }
        mirrored = Machine(tmp_path / "e", **variables).python("-c", OPEN, file, tmp_path / "e.png")
    assert mirrored.returncode == 0, mirrored.stderr
    assert same_pixels(tmp_path / "e.png", expected)
