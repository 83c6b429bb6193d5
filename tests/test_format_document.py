"""docs/format.md is enough: a decoder written from it alone reads the golden files, and its test vectors are true.

The one-bit family's files and vectors; those of the other family are in `test_format_successive`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from both_decoders import agree
from independent_decoder import File
from independent_entropy import Bit, Model, RangeDecoder, Tile
from PIL import Image

import pillow_cwic
from pillow_cwic import codec, weights

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.cwic"))
VECTORS = (
    (HERE.parent / "docs" / "format.md").read_text(encoding="utf-8").split("### Test vectors")[1].split("\n## ")[0]
)
DESCRIBED = ["one-pixel.cwic", "grey.cwic"]

Decode = Callable[[Path], File]


@pytest.fixture(scope="module")
def model() -> Model:
    """The default model's weights file, in the independent decoder's hands."""
    return Model(weights.locate(weights.find(None)).read_bytes())


@pytest.fixture(scope="module")
def decode(model: Model) -> Decode:
    """Files as the independent decoder reads them, each read once."""
    read: dict[Path, File] = {}

    def once(path: Path) -> File:
        if path not in read:
            read[path] = File(path.read_bytes(), model)
        return read[path]

    return once


def test_the_independent_decoder_is_independent(fresh_python):
    """It imports neither the package nor torch nor constriction."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import independent_decoder; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in fresh_python(code).split()}
    assert {"independent_entropy", "independent_planes", "independent_successive", "independent_network"} <= loaded
    assert loaded.isdisjoint({"pillow_cwic", "torch", "constriction", "safetensors"})


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_decoder_written_from_the_document_reads_the_golden_files(path, decode):
    """Levels and codes equal the package's, pixels are within 1 of the stored picture, alpha is equal."""
    agree(decode(path), path.read_bytes(), np.asarray(Image.open(path.with_suffix(".png"))))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_writer_written_from_the_document_writes_the_same_bytes(path, decode):
    """The bits read, given to the document's range coder, become the payload of every tile again."""
    tiles = decode(path).tiles
    assert tiles
    for tile in tiles:
        assert tile.rewritten() == tile.payload


def test_tiles_and_the_quality_map_are_read_as_the_document_says(model, monkeypatch):
    """A file of 9 tiles, ragged at both borders, with a quality map: same levels, codes and picture, same bytes."""
    from pillow_cwic.demo import SHIPPED

    monkeypatch.setattr(codec, "TILE_SIZE", 64)
    photo = np.asarray(Image.open(SHIPPED).convert("RGB"))[10:187, 100:247]
    importance = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    data = pillow_cwic.encode(photo, quality=0.8, importance=importance, device="cpu")
    file = File(data, model)
    assert len(file.tiles) == 9
    assert file.tiles[-1].level.shape == (7, 3)
    assert len(np.unique(file.qualities())) > 10
    agree(file, data, pillow_cwic.decode(data, device="cpu"))
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")


def described(name: str) -> str:
    """The paragraphs on one golden file in the document's test vectors."""
    return re.split(r"\*\*\S+\.cwic\*\*: ", VECTORS.split(f"**{name}**: ")[1])[0].split("SHA-256 of levels")[0]


def told(name: str, pattern: str) -> list[str]:
    """The groups of a pattern in the prose on a file, whatever its line ends."""
    prose = " ".join(described(name).split())
    found = re.findall(pattern, prose)
    assert len(found) == 1, f"{pattern} is found {len(found)} times in the test vectors of {name}"
    return [found[0]] if isinstance(found[0], str) else list(found[0])


def numbers(text: str) -> list[int]:
    """All integers in a text."""
    return [int(digits) for digits in re.findall(r"-?\d+", text)]


def tile_of(decode: Decode, name: str) -> Tile:
    """The one tile of a golden file."""
    (tile,) = decode(HERE / "golden" / name).tiles
    return tile


def printed_bits(name: str) -> list[dict[str, str]]:
    """The rows of the file's table of bits, by column."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in described(name).splitlines() if "|" in line]
    columns = ["number", "position", *rows[0][2:]]
    return [dict(zip(columns, row, strict=True)) for row in rows[2:]]


@pytest.mark.parametrize(("name", "count"), [("one-pixel.cwic", 12), ("grey.cwic", 8)])
def test_the_documents_table_of_bits_is_true(name, count, decode):
    """Position, node, logit, k, c, bit and the coder's state after each bit are what the decoder goes through."""
    rows, bits = printed_bits(name), tile_of(decode, name).bits
    assert len(rows) == count
    for n, row in enumerate(rows):
        place = re.search(r"\((\d+), (\d+)\), (?:node )?(\d+)$", row["position"])
        printed = Bit(
            tuple(int(number) for number in place.groups()),
            int(row["logit"]),
            int(row["k"]),
            int(row.get("c", bits[n].c)),
            int(row["bit"]),
            int(row["`lower` after it"], 16),
            int(row["`range` after it"], 16),
        )
        assert (int(row["number"]), printed) == (n, bits[n])


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_documents_sizes_are_true(name, decode, model):
    """Model id, size, bands, quality index, code grid and the positions of the first stage are as printed."""
    assert f"(id `{model.id}`)" in VECTORS
    file, tile = decode(HERE / "golden" / name), tile_of(decode, name)
    width, height, bands, quality = told(name, r"^(\d+) x (\d+) pixels, (RGB|grey), quality index (\d+);")
    header = file.header
    assert (header.width, header.height, header.quality_index) == (int(width), int(height), int(quality))
    assert header.flags == (1 if bands == "RGB" else 0)
    assert numbers(told(name, r"; (\d+ x \d+) code positions\.")[0]) == [tile.level.shape[1], tile.level.shape[0]]
    (first,) = told(name, r"The first stage has (?:the position|\d positions,) ([^a-z]+(?:and \(8, 8\))?)")
    places = [bit.place for bit in tile.bits[: tile.level_bits]]
    coarse = {place[:2] for place in places if place[0] % 8 == place[1] % 8 == 0}
    assert numbers(first) == [number for place in sorted(coarse) for number in place]


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_documents_words_and_sums_are_true(name, decode):
    """The payload's first words, bit counts, the coder's last state, and the sums over all bits are as printed."""
    tile = tile_of(decode, name)
    words = re.findall(r"0x([0-9a-f]{8})", described(name))
    assert len(words) >= 2
    assert [f"{word:08x}" for word in tile.coder.words[: len(words)]] == words
    assert told(name, r"(\d+) bits code the levels(?:,| and) \d+ the codes") == [str(tile.level_bits)]
    assert told(name, r"code the levels(?:,| and) (\d+) the codes") == [str(len(tile.bits) - tile.level_bits)]
    lower, upper = told(name, r"After the last bit `lower` is ([0-9a-f]{16}) and `range` ([0-9a-f]{16})\.")
    assert (tile.coder.lower, tile.coder.range) == (int(lower, 16), int(upper, 16))
    count, total, ones = told(name, r"The sum of `k` over all (\d+) bits is (\d+), and (\d+) of them are 1\.")
    assert int(count) == len(tile.bits)
    assert int(total) == sum(bit.k for bit in tile.bits)
    assert int(ones) == sum(bit.bit for bit in tile.bits)


def test_the_documents_first_point_is_true(decode):
    """`point` starts as the first two words, the first one highest."""
    (point,) = told("one-pixel.cwic", r"`point` starts as ([0-9a-f]{16})\.")
    assert RangeDecoder(tile_of(decode, "one-pixel.cwic").payload).point == int(point, 16)


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_documents_first_codes_are_true(name, decode):
    """Logits and bits of the first position in group 0 are as printed; it keeps the most planes of all."""
    tile = tile_of(decode, name)
    logits, bits = told(name, r"[lL]ogits (?:of the first )?are ([-\d, ]+), its bits ([01, ]+)\.")
    first = tile.bits[tile.level_bits :][:8]
    assert [bit.logit for bit in first] == numbers(logits)
    assert [bit.bit for bit in first] == numbers(bits)
    assert [bit.place[2] for bit in first] == list(range(8))
    y, x, _ = first[0].place
    even = np.indices(tile.level.shape).sum(0) % 2 == 0
    assert tile.kept[y, x] == tile.kept[even].max()


def test_the_documents_prose_on_one_pixel_is_true(decode):
    """Levels, planes, the order of the even positions, and the pixel are as printed."""
    name = "one-pixel.cwic"
    file, tile = decode(HERE / "golden" / name), tile_of(decode, name)
    (levels,) = told(name, r"The levels are ([\d, /]+), so")
    assert tile.level.tolist() == [numbers(row) for row in levels.split("/")]
    (kept,) = told(name, r"so ([\d, or]+) planes exist")
    assert sorted(numbers(kept)) == np.unique(tile.kept).tolist()
    (order,) = told(name, r"even positions come in the order ([\d, ()]+)\.")
    half = [bit.place[:2] for bit in tile.bits[tile.level_bits :] if sum(bit.place[:2]) % 2 == 0 and bit.place[2] == 0]
    assert numbers(order) == [number for place in half for number in place]
    assert file.pixels().shape == (1, 1, 3)
    printed = told(name, r"The pixel is red (\d+), green (\d+), blue (\d+)\.")
    assert np.abs(file.pixels()[0, 0] - [int(number) for number in printed]).max() == 0


def test_the_documents_prose_on_grey_is_true(decode):
    """Word count, the first row of levels, the first coded position, and the first pixels are as printed."""
    name = "grey.cwic"
    file, tile = decode(HERE / "golden" / name), tile_of(decode, name)
    assert told(name, r"The payload has (\d+) words") == [str(len(tile.coder.words))]
    (row,) = told(name, r"The first row of levels is ([\d, ]+)\.")
    assert tile.level[0].tolist() == numbers(row)
    y, x, level = (int(number) for number in told(name, r"row (\d+), column (\d+) with level (\d+);"))
    assert tile.bits[tile.level_bits].place == (y, x, 0)
    assert tile.level[y, x] == level
    (pixels,) = told(name, r"The first pixels of the upper row are ([\d, ]+)\.")
    assert file.pixels()[0, :8, 0].tolist() == numbers(pixels)


def test_the_documents_hashes_are_true(decode):
    """SHA-256 of levels and codes, one byte each, the codes plane after plane."""
    printed, name = [], ""
    for cells in re.findall(r"^\| (\S*) *\| (levels|codes) \| `([0-9a-f]{64})` \|$", VECTORS, re.MULTILINE):
        name = cells[0] or name  # given once for both
        printed.append((name, *cells[1:]))
    found = []
    for name in DESCRIBED:
        tile = tile_of(decode, name)
        for part, values in (("levels", tile.level), ("codes", tile.codes.transpose(2, 0, 1))):
            found.append((name, part, hashlib.sha256(values.astype(np.int8).tobytes()).hexdigest()))
    assert found == printed
