"""docs/format.md is enough.

A decoder written from it alone finds what the package finds, and writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import independent_decoder
import numpy as np
import pytest
from both_decoders import agree
from coding import CPU, encode_in_tiles, partly_exact
from independent_decoder import File, exact_blocks
from independent_entropy import Model
from independent_tile import Tile
from PIL import Image
from places import GOLDEN

import pillow_cwic
from pillow_cwic.model import Model as PackageModel
from pillow_cwic.networks.binarizer import LARGEST
from pillow_cwic.weights import models

DEFAULT = sorted(GOLDEN.glob("*.cwic"))
TINY = sorted((GOLDEN / "tiny").glob("*.cwic"))


@pytest.fixture(scope="module")
def default() -> Model:
    """The default model's weights file, in the independent decoder's hands."""
    return Model(models.locate(models.find(None)).read_bytes())


@pytest.fixture(scope="module")
def golden() -> Model:
    """The golden files' tiny model in the same hands; the package knows it, too."""
    path = GOLDEN / "tiny" / "tiny.safetensors"
    models.load(path, CPU)
    return Model(path.read_bytes())


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    """Another model, of other widths, in the independent decoder's hands."""
    return Model(tiny.read_bytes())


@pytest.fixture(scope="module")
def package(tiny: Path) -> PackageModel:
    """The same as the package loads it."""
    return models.load(tiny, CPU)


def test_the_independent_decoder_is_independent(fresh_python):
    """It imports neither the package nor torch nor constriction."""
    folder = str(Path(independent_decoder.__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import independent_decoder;"
    code += "print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in fresh_python(code).split()}
    assert {"independent_entropy", "independent_tile", "independent_network"} <= loaded
    assert loaded.isdisjoint({"pillow_cwic", "torch", "constriction", "safetensors"})


def reads(path: Path, model: Model) -> None:
    """A golden file comes out as the package decodes it, and its bits give the same bytes again."""
    file = File(path.read_bytes(), model)
    assert file.tiles
    agree(file, path.read_bytes(), np.asarray(Image.open(path.with_suffix(".png"))))
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")


@pytest.mark.parametrize("path", DEFAULT, ids=lambda path: path.stem)
def test_it_reads_the_default_models_golden_files(path, default):
    """Levels and codes equal the package's, pixels are within 1 of the stored picture.

    The bits give the same bytes.
    """
    reads(path, default)


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_it_reads_the_tiny_models_golden_files(path, golden):
    """The same; what these hold is more varied, and in the document's test vectors."""
    reads(path, golden)


def test_the_tiny_models_golden_files_go_everywhere(golden):
    """The golden files reach every level, many means and scales, and codes out of the ordinary.

    Feet off zero, codes beyond what counts as context, escapes.
    """
    tiles = [tile for path in TINY for tile in File(path.read_bytes(), golden).tiles]
    read = [code for tile in tiles for code in tile.read]
    assert set(np.concatenate([tile.level.ravel() for tile in tiles])) == {0, 1, 2, 3}
    assert len({code.mean for code in read}) > 90
    assert len({tuple(code.table) for code in read}) > 50
    assert {code.foot for code in read} >= set(range(-5, 5))
    assert {code.sign for code in read if code.size > 15} == {-1, 1}
    asked = {bit.question for tile in tiles for bit in tile.bits[tile.level_bits :]}
    assert {"more than 3", "longer than 6", "digit 5"} <= asked


@pytest.mark.parametrize(
    ("size", "quality"), [((1, 1), 0.5), ((17, 9), 1.0), ((64, 48), 0.0), ((50, 95), 0.7)]
)
def test_pictures_of_any_size_are_read_as_the_document_says(size, quality, tiny, model, photo):
    """Colour with alpha and grey without, sizes on and off the grid.

    Same levels, codes and pixels in both decoders.
    """
    colour = np.asarray(photo.resize(size[::-1]))
    alpha = np.arange(size[0] * size[1], dtype=np.uint8).reshape(*size, 1)
    for picture in (np.concatenate([colour, alpha], 2), colour[:, :, 1]):
        data = pillow_cwic.encode(picture, quality=quality, model=tiny, device="cpu")
        agree(File(data, model), data, pillow_cwic.decode(data, device="cpu"))


def test_tiles_and_the_quality_map_are_read_as_the_document_says(tiny, model, photo):
    """Six tiles, ragged at both borders, with a quality map.

    Same levels, codes and pixels, and the same bytes.
    """
    picture = np.asarray(photo.resize((147, 101)))
    importance = np.random.default_rng(0).integers(0, 256, (7, 10)).astype(np.uint8)
    options = {"quality": 0.6, "importance": importance, "model": tiny, "device": "cpu"}
    data = encode_in_tiles(picture, **options)
    file = File(data, model)
    assert len(file.tiles) == 6
    assert file.tiles[-1].level.shape == (3, 2)
    assert len(np.unique(file.qualities())) > 10
    agree(file, data, pillow_cwic.decode(data, device="cpu"))
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")


@pytest.mark.parametrize("shape", [(147, 101, 3), (5, 70, 4), (66, 64), (1, 1, 2)])
def test_lossless_files_are_read_as_the_document_says(shape, tiny, model):
    """Every mode, in one tile and in several: the pixels that were given, in both decoders."""
    picture = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    data = encode_in_tiles(picture, lossless=True, model=tiny)
    file = File(data, model)
    assert file.exact.all()
    assert not file.tiles
    assert np.array_equal(file.pixels(), picture.reshape(*shape[:2], -1))
    assert np.array_equal(pillow_cwic.decode(data), picture)


@pytest.mark.parametrize("bands", [1, 3])
def test_tiles_of_all_kinds_are_read_as_the_document_says(bands, tiny, model, package, photo):
    """Tiles with some exact blocks, all or none: the same levels, codes and pixels in both.

    The bits give the same bytes.
    """
    picture = np.asarray(photo.resize((147, 101)))[:, :, :bands]
    data = partly_exact(picture, package, chance=0.4)
    file = File(data, model)
    assert 0.2 < file.exact.mean() < 0.8
    shown = pillow_cwic.decode(data, device="cpu")
    agree(file, data, shown)
    seen = file.exact.repeat(16, 0).repeat(16, 1)[:101, :147]
    assert np.array_equal(shown.reshape(picture.shape)[seen], picture[seen])
    first = exact_blocks(file.payloads("TILE")[0], (4, 4))
    assert file.tiles[0].rewritten() == first.stream


@pytest.mark.parametrize("shape", [(3, 3), (1, 5), (13, 10)])
def test_codes_of_every_size_are_read_as_the_document_says(shape, model, package):
    """Codes up to the largest and beyond come back from the package's stream.

    With escapes of every length.
    """
    generator = np.random.default_rng(sum(shape))
    level = np.full(shape, 3, np.uint8)
    level.reshape(-1)[::5] = 1
    spread = np.logspace(3.2, -0.5, 16)
    codes = np.rint(generator.normal(size=(*shape, 16)) * spread).clip(-LARGEST, LARGEST)
    codes[0, -1, :4] = [LARGEST, -LARGEST, 6000, -33]  # one that no writer may write
    codes *= np.arange(16) < np.array(package.config.kept_planes)[level][..., None]
    codes = codes.astype(np.int16)
    stream = package.entropy.encode(codes, level, 6)
    tile = Tile(model, 6, shape, stream)
    assert np.array_equal(tile.level, level)
    assert np.array_equal(tile.codes, codes)
    assert tile.rewritten() == stream
    asked = {bit.question for bit in tile.bits[tile.level_bits :]}
    assert asked >= {
        "zero",
        "sign",
        *(f"more than {j}" for j in range(1, 32)),
        *(f"longer than {b}" for b in (4, 11)),
    }
    assert asked >= {f"digit {b}" for b in range(12)}
