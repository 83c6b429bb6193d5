"""docs/format.md is enough for the successive family, too: codes, pixels, test vectors, and the weights file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import successive_model
import torch
from both_decoders import agree
from independent_decoder import File
from independent_entropy import Decision, Model
from independent_successive import SuccessiveTile
from PIL import Image

import pillow_cwic
from pillow_cwic import codec, weights
from pillow_cwic.binarizer import LARGEST, code_integers
from pillow_cwic.model import Model as PackageModel

HERE = Path(__file__).parent
FOLDER = HERE / "golden" / "successive"
GOLDEN = sorted(FOLDER.glob("*.cwic"))
DOCUMENT = (HERE.parent / "docs" / "format.md").read_text(encoding="utf-8")
VECTORS = DOCUMENT.split("### Test vectors (successive family)")[1].split("\n## ")[0]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> Model:
    """The golden weights file, in the independent decoder's hands; the package knows it, too."""
    path = FOLDER / "tiny.safetensors"
    weights.load(path, CPU)
    return Model(path.read_bytes())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model's weights file: other widths, and a ladder of the usual length."""
    path = tmp_path_factory.mktemp("format") / "tiny.safetensors"
    successive_model.export(path)
    return path


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    """The same, in the independent decoder's hands."""
    return Model(tiny.read_bytes())


@pytest.fixture(scope="module")
def package(tiny: Path) -> PackageModel:
    """The same as the package loads it."""
    return weights.load(tiny, CPU)


# Files


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_decoder_written_from_the_document_reads_the_golden_files(path, golden):
    """Levels and codes equal the package's, pixels are within 1 of the stored picture; the bits give the same bytes."""
    file = File(path.read_bytes(), golden)
    agree(file, path.read_bytes(), np.asarray(Image.open(path.with_suffix(".png"))))
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")


def test_the_golden_files_go_everywhere(golden):
    """Every level, means and scales of many values, feet off zero, codes beyond what counts as context, escapes."""
    tiles = [tile for path in GOLDEN for tile in File(path.read_bytes(), golden).tiles]
    read = [code for tile in tiles for code in tile.read]
    assert set(np.concatenate([tile.level.ravel() for tile in tiles])) == {0, 1, 2, 3}
    assert len({code.mean for code in read}) > 90
    assert len({tuple(code.table) for code in read}) > 50
    assert {code.foot for code in read} >= {-6, -3, -2, -1, 0, 1, 2, 3}
    assert {code.sign for code in read if code.size > 15} == {-1, 1}
    asked = {bit.question for tile in tiles for bit in tile.bits[tile.level_bits :]}
    assert {"more than 3", "longer than 6", "digit 5"} <= asked


@pytest.mark.parametrize(("size", "quality"), [((1, 1), 0.5), ((17, 9), 1.0), ((64, 48), 0.0), ((50, 95), 0.7)])
def test_pictures_of_any_size_are_read_as_the_document_says(size, quality, tiny, model, photo):
    """Colour with alpha and grey without, sizes on and off the grid: same levels, codes and pixels in both decoders."""
    colour = np.asarray(photo.resize(size[::-1]))
    alpha = np.arange(size[0] * size[1], dtype=np.uint8).reshape(*size, 1)
    for picture in (np.concatenate([colour, alpha], 2), colour[:, :, 1]):
        data = pillow_cwic.encode(picture, quality=quality, model=tiny, device="cpu")
        agree(File(data, model), data, pillow_cwic.decode(data, device="cpu"))


def test_tiles_and_the_quality_map_are_read_as_the_document_says(tiny, model, photo, monkeypatch):
    """Six tiles, ragged at both borders, with a quality map: same levels, codes and pixels, and the same bytes."""
    monkeypatch.setattr(codec, "TILE_SIZE", 64)
    picture = np.asarray(photo.resize((147, 101)))
    importance = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    data = pillow_cwic.encode(picture, quality=0.6, importance=importance, model=tiny, device="cpu")
    file = File(data, model)
    assert len(file.tiles) == 6
    assert file.tiles[-1].level.shape == (3, 2)
    assert len(np.unique(file.qualities())) > 10
    agree(file, data, pillow_cwic.decode(data, device="cpu"))
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")


@pytest.mark.parametrize("shape", [(3, 3), (1, 5), (13, 10)])
def test_codes_of_every_size_are_read_as_the_document_says(shape, model, package):
    """Codes up to the largest and beyond, with escapes of every length, come back from the package's stream."""
    generator = torch.Generator().manual_seed(sum(shape))
    level = torch.full(shape, 3, dtype=torch.uint8)
    level.view(-1)[::5] = 1
    spread = torch.logspace(3.2, -0.5, 16)
    codes = code_integers(torch.randn(*shape, 16, generator=generator) * spread)
    codes[0, -1, :4] = torch.tensor([LARGEST, -LARGEST, 6000, -33])  # one that no writer may write
    codes *= torch.arange(16) < torch.tensor(package.config.kept_planes)[level.long()][..., None]
    stream = package.entropy.encode(codes, level, 6)
    tile = SuccessiveTile(model, 6, shape, stream)
    assert np.array_equal(tile.level, level.numpy())
    assert np.array_equal(tile.codes, codes.numpy())
    assert tile.rewritten() == stream
    asked = {bit.question for bit in tile.bits[tile.level_bits :]}
    assert asked >= {"zero", "sign", *(f"more than {j}" for j in range(1, 32)), *(f"longer than {b}" for b in (4, 11))}
    assert asked >= {f"digit {b}" for b in range(12)}


# The test vectors


def described(name: str) -> str:
    """The paragraphs on one golden file in the document's test vectors."""
    return re.split(r"\*\*\S+\.cwic\*\*: |SHA-256 of levels", VECTORS.split(f"**{name}**: ")[1])[0]


def told(name: str, pattern: str) -> tuple[str, ...]:
    """The groups of a pattern in the prose on a file, whatever its line ends."""
    (found,) = re.findall(pattern, " ".join(described(name).split()))
    return (found,) if isinstance(found, str) else found


def numbers(text: str) -> list[int]:
    """All integers in a text."""
    return [int(digits) for digits in re.findall(r"-?\d+", text)]


def rows(name: str, columns: int) -> list[list[str]]:
    """The rows of the file's table with so many columns, without its head."""
    lines = [line.strip("|").split("|") for line in described(name).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns][1:]


def tile_of(name: str, golden: Model) -> SuccessiveTile:
    """The one tile of a golden file."""
    (tile,) = File((FOLDER / name).read_bytes(), golden).tiles
    return tile


def test_the_documents_codes_are_true(golden):
    """Mean, scale index, foot, remainder, the ladder's number and the code of all codes of step 0 are as printed."""
    name = "one-pixel.cwic"
    tile, table = tile_of(name, golden), golden.tensors["entropy.logistic"].tolist()
    found = []
    for code in tile.read[: int(told(name, r"Step 0 has (\d+) codes")[0])]:
        w = code.sign * code.size
        found.append([*code.place, code.mean, table.index(code.table), code.foot, code.e, w, code.foot + w])
    assert [numbers(" ".join(row)) for row in rows(name, 7)] == found
    zero = [bit.place for bit in tile.bits[tile.level_bits :][: len(found) + 1] if bit.question == "zero"]
    assert zero == [code.place for code in tile.read[: len(found)]]


def test_the_documents_bits_are_true(golden):
    """Pass, part, whole, k, bit and the coder's state after each printed bit; all bits of step 0 for the two codes."""
    name = "one-pixel.cwic"
    tile, printed = tile_of(name, golden), {}
    for number, place, question, part, whole, k, bit, lower, upper in rows(name, 9):
        state = int(lower, 16), int(upper, 16)
        printed[int(number)] = Decision(
            tuple(numbers(place)), question, int(part), int(whole), int(k), int(bit), *state
        )
    places = {decision.place for decision in printed.values()}
    assert len(places) == 2
    coded = enumerate(tile.bits[tile.level_bits :], tile.level_bits)
    assert printed == {n: bit for n, bit in coded if bit.place in places}


def test_the_documents_prose_is_true(golden):
    """Id, sizes, words, levels, counts, the coder's last state, sums and first pixels are as printed."""
    assert f"(id `{golden.id}`)" in VECTORS
    assert numbers(" ".join(VECTORS.split("not trained:")[1].split("**")[0].split())) == [4, 12, 3]
    for path in (FOLDER / "one-pixel.cwic", FOLDER / "rgb.cwic"):
        name, file, tile = path.name, File(path.read_bytes(), golden), tile_of(path.name, golden)
        head, rest = file.header, (tile.level_bits, len(tile.bits) - tile.level_bits)
        sizes = told(name, r"^(\d+) x (\d+) pixels, RGB, quality index (\d+); (\d+) x (\d+) code positions\.")
        assert [int(size) for size in sizes] == [head.width, head.height, head.quality_index, *tile.level.shape[::-1]]
        assert told(name, r"(\d+) bits code the levels and (\d+) the codes\.") == tuple(map(str, rest))
        state = told(name, r"After the last bit `lower` is ([0-9a-f]{16}) and `range` ([0-9a-f]{16})\.")
        assert [int(value, 16) for value in state] == [tile.coder.lower, tile.coder.range]
        sums = told(name, r"The sum of `k` over all (\d+) bits is (\d+), and (\d+) of them are 1\.")
        of_bits = [len(tile.bits), sum(bit.k for bit in tile.bits), sum(bit.bit for bit in tile.bits)]
        assert [int(value) for value in sums] == of_bits


def test_the_documents_prose_on_each_file_is_true(golden):
    """What is said of one file only: words, levels, channels, the pixel; largest and smallest code, first samples."""
    name = "one-pixel.cwic"
    file, tile = File((FOLDER / name).read_bytes(), golden), tile_of(name, golden)
    count, *words = told(name, r"The payload has (\d+) words, the first two 0x(\w{8}) and 0x(\w{8})\.")
    assert int(count) == len(tile.coder.words)
    assert [f"{word:08x}" for word in tile.coder.words[:2]] == words
    levels, kept = told(name, r"The levels are ([\d, /]+), so (\d+ or \d+) channels exist\.")
    assert [numbers(row) for row in levels.split("/")] == tile.level.tolist()
    assert numbers(kept) == np.unique(tile.kept).tolist()
    assert list(map(int, told(name, r"red (\d+), green (\d+), blue (\d+)\."))) == file.pixels()[0, 0].tolist()

    name = "rgb.cwic"
    file, tile = File((FOLDER / name).read_bytes(), golden), tile_of(name, golden)
    extremes = told(name, r"The largest code is (\d+), the smallest (-\d+)\.")
    assert [int(code) for code in extremes] == [tile.codes.max(), tile.codes.min()]
    (samples,) = told(name, r"pixels in the upper row are ([\d, ]+)\.")
    assert numbers(samples) == file.pixels()[0, :8, 0].tolist()


def test_the_documents_hashes_are_true(golden):
    """SHA-256 of levels, one byte each, and codes, two bytes each, channel after channel."""
    found = []
    for name in ("one-pixel.cwic", "rgb.cwic"):
        tile = tile_of(name, golden)
        for part, values in (("levels", tile.level.astype(np.int8)), ("codes", tile.codes.transpose(2, 0, 1))):
            stored = values if part == "levels" else values.astype("<i2")
            found.append((name if part == "levels" else "", part, hashlib.sha256(stored.tobytes()).hexdigest()))
    assert re.findall(r"^\| (\S*) *\| (levels|codes) \| `([0-9a-f]{64})` \|$", VECTORS, re.MULTILINE) == found
