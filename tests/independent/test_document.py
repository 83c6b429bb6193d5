"""The test vectors of docs/format.md are true.

The independent decoder finds in two golden files what they say.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from independent_decoder import File
from independent_entropy import Model, RangeDecoder
from independent_tile import Bit, Decision, Tile
from places import GOLDEN, ROOT

FOLDER = GOLDEN / "tiny"
DOCUMENT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
VECTORS = DOCUMENT.split("### Test vectors")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def golden() -> Model:
    """The golden files' tiny model, in the independent decoder's hands."""
    return Model((FOLDER / "tiny.safetensors").read_bytes())


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
    lines = [
        line.strip("|").split("|") for line in described(name).splitlines() if line.startswith("| ")
    ]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns][1:]


def tile_of(name: str, golden: Model) -> Tile:
    """The one tile of a golden file."""
    (tile,) = File((FOLDER / name).read_bytes(), golden).tiles
    return tile


def test_the_documents_bits_of_levels_are_true(golden):
    """Each printed step of the levels' bits is what the decoder goes through.

    Position, node, logit, k, c, bit and the coder's state after each bit.
    """
    name = "one-pixel.cwic"
    tile, printed, stages = tile_of(name, golden), [], {}
    for number, place, logit, k, c, bit, lower, upper in rows(name, 8):
        stage, place = re.fullmatch(r"(?:stage (\d): )?(\(\d+, \d+\), node \d+)", place).groups()
        state = int(lower, 16), int(upper, 16)
        printed.append(Bit(tuple(numbers(place)), int(logit), int(k), int(c), int(bit), *state))
        assert int(number) == len(printed) - 1
        if stage:
            stages[int(stage)] = printed[-1].place[:2]
    assert len(printed) == 10
    assert printed == tile.bits[:10]
    assert stages == {
        2: (2, 2),
        3: (0, 2),
        4: (1, 1),
    }  # spacing 2: centre and edges; spacing 1: the centre
    (first,) = told(
        name, r"The first stage has the position (\(\d, \d\)) alone, stages 0 and 1 have none\."
    )
    assert tuple(numbers(first)) == printed[0].place[:2]


def test_the_documents_codes_are_true(golden):
    """Each printed property of all codes of step 0 is true.

    Mean, scale index, foot, remainder, the ladder's number and the code.
    """
    name = "one-pixel.cwic"
    tile, table = tile_of(name, golden), golden.tensors["entropy.logistic"].tolist()
    found = []
    for code in tile.read[: int(told(name, r"Step 0 has (\d+) codes")[0])]:
        w = code.sign * code.size
        found.append(
            [*code.place, code.mean, table.index(code.table), code.foot, code.e, w, code.foot + w]
        )
    assert [numbers(" ".join(row)) for row in rows(name, 7)] == found
    zero = [
        bit.place
        for bit in tile.bits[tile.level_bits :][: len(found) + 1]
        if bit.question == "zero"
    ]
    assert zero == [code.place for code in tile.read[: len(found)]]


def test_the_documents_bits_of_codes_are_true(golden):
    """Pass, part, whole, k, bit and the coder's state after each printed bit.

    All bits of step 0 for the two codes.
    """
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
    """Id, sizes, words, levels, counts, the coder's last state and first pixels are as printed.

    So are the sums.
    """
    assert f"(id `{golden.id}`)" in VECTORS
    assert numbers(" ".join(VECTORS.split("not trained:")[1].split("**")[0].split())) == [4, 16, 3]
    for path in (FOLDER / "one-pixel.cwic", FOLDER / "rgb.cwic"):
        name, file, tile = path.name, File(path.read_bytes(), golden), tile_of(path.name, golden)
        head, rest = file.header, (tile.level_bits, len(tile.bits) - tile.level_bits)
        sizes = told(
            name, r"^(\d+) x (\d+) pixels, RGB, quality index (\d+); (\d+) x (\d+) code positions\."
        )
        assert [int(size) for size in sizes] == [
            head.width,
            head.height,
            head.quality_index,
            *tile.level.shape[::-1],
        ]
        assert told(name, r"(\d+) bits code the levels and (\d+) the codes\.") == tuple(
            map(str, rest)
        )
        state = told(
            name, r"After the last bit `lower` is ([0-9a-f]{16}) and `range` ([0-9a-f]{16})\."
        )
        assert [int(value, 16) for value in state] == [tile.coder.lower, tile.coder.range]
        sums = told(name, r"The sum of `k` over all (\d+) bits is (\d+), and (\d+) of them are 1\.")
        of_bits = [
            len(tile.bits),
            sum(bit.k for bit in tile.bits),
            sum(bit.bit for bit in tile.bits),
        ]
        assert [int(value) for value in sums] == of_bits


def test_the_documents_prose_on_each_file_is_true(golden):
    """What is said of one file only: words, levels, channels, the pixel.

    Extreme codes, first levels and samples.
    """
    name = "one-pixel.cwic"
    file, tile = File((FOLDER / name).read_bytes(), golden), tile_of(name, golden)
    first = (
        r"The payload has (\d+) words, the first two 0x(\w{8}) and 0x(\w{8}), "
        r"so `point` starts as (\w{16})\."
    )
    count, *words, point = told(name, first)
    assert int(count) == len(tile.coder.words)
    assert [f"{word:08x}" for word in tile.coder.words[:2]] == words
    assert RangeDecoder(tile.payload).point == int(point, 16)
    levels, kept = told(name, r"The levels are ([\d, /]+), so ([\d, ]+ or \d+) channels exist\.")
    assert [numbers(row) for row in levels.split("/")] == tile.level.tolist()
    assert numbers(kept) == np.unique(tile.kept).tolist()
    assert (
        list(map(int, told(name, r"red (\d+), green (\d+), blue (\d+)\.")))
        == file.pixels()[0, 0].tolist()
    )

    name = "rgb.cwic"
    file, tile = File((FOLDER / name).read_bytes(), golden), tile_of(name, golden)
    (levels,) = told(name, r"The first row of levels is ([\d, ]+)\.")
    assert numbers(levels) == tile.level[0].tolist()
    extremes = told(name, r"The largest code is (\d+), the smallest (-\d+)\.")
    assert [int(code) for code in extremes] == [tile.codes.max(), tile.codes.min()]
    (samples,) = told(name, r"pixels in the upper row are ([\d, ]+)\.")
    assert numbers(samples) == file.pixels()[0, :8, 0].tolist()


def test_the_documents_hashes_are_true(golden):
    """SHA-256 of levels, one byte each, and codes, two bytes each, channel after channel."""
    found = []
    for name in ("one-pixel.cwic", "rgb.cwic"):
        tile = tile_of(name, golden)
        for part, values in (
            ("levels", tile.level.astype(np.int8)),
            ("codes", tile.codes.transpose(2, 0, 1)),
        ):
            stored = values if part == "levels" else values.astype("<i2")
            found.append(
                (
                    name if part == "levels" else "",
                    part,
                    hashlib.sha256(stored.tobytes()).hexdigest(),
                )
            )
    assert (
        re.findall(r"^\| (\S*) *\| (levels|codes) \| `([0-9a-f]{64})` \|$", VECTORS, re.MULTILINE)
        == found
    )
