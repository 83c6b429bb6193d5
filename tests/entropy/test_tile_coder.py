"""Codes and levels <-> bytes: exact, the same everywhere, and what docs/format.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coders import (
    GOLDEN,
    LIARS,
    TINY,
    Cost,
    HashingReader,
    HashingWriter,
    coder_of,
    kept,
    random_codes,
)
from independent_entropy import Model as DocumentModel
from independent_tile import Tile
from processes import environment

import pillow_cwic
from pillow_cwic.entropy.integer_layer import exact_dtype
from pillow_cwic.entropy.tile_coder import TileCoder
from pillow_cwic.errors import FormatError
from pillow_cwic.format import container
from pillow_cwic.format.grid import tiles

SHIPPED = Path(pillow_cwic.__file__).parent / "data" / "light-6.safetensors"
FILES = [pytest.param(SHIPPED, path, id=path.stem) for path in sorted(GOLDEN.glob("*.cwic"))]
FILES += [
    pytest.param(TINY, path, id=f"tiny/{path.stem}")
    for path in sorted((GOLDEN / "tiny").glob("*.cwic"))
]
SHAPES = [(3, 3), (1, 1), (1, 5), (8, 1), (2, 9), (13, 10)]


@pytest.fixture(scope="module")
def document(path) -> DocumentModel:
    """The tiny model in the hands of the independent decoder."""
    return DocumentModel(path.read_bytes())


@pytest.fixture(scope="module")
def one_bit_document(one_bit_path) -> DocumentModel:
    """The model of one threshold in the hands of the independent decoder."""
    return DocumentModel(one_bit_path.read_bytes())


def tiles_of(path: Path) -> list[tuple[bytes, tuple[int, int], int]]:
    """Stream, shape and quality index of a file's tiles."""
    parsed = container.read(path.read_bytes())
    header = parsed.header
    boxes = tiles(*header.size, header.tile_size)
    return [
        (stream, (box.height, box.width), header.quality_index)
        for stream, box in zip(parsed.tiles, boxes, strict=True)
    ]


# Golden files and the document


@pytest.mark.parametrize(("model", "path"), FILES)
def test_golden_files_are_read_and_written_byte_for_byte(model, path):
    """Decoded codes and levels are coded to the same bytes; levels alone come first."""
    coder = coder_of(model)
    for stream, shape, quality_index in tiles_of(path):
        codes, level = coder.decode(stream, shape, quality_index)
        assert codes.dtype == np.int16
        assert level.dtype == np.uint8
        assert coder.encode(codes, level, quality_index) == stream
        assert np.array_equal(coder.decode_level(stream, shape, quality_index), level)


@pytest.mark.parametrize("path", sorted((GOLDEN / "tiny").glob("*.cwic")), ids=lambda p: p.stem)
def test_golden_codes_are_those_of_the_independent_decoder(path):
    """What docs/format.md gives for a golden file is what the coder reads in it."""
    coder, document = coder_of(TINY), DocumentModel(TINY.read_bytes())
    for stream, shape, quality_index in tiles_of(path):
        codes, level = coder.decode(stream, shape, quality_index)
        tile = Tile(document, quality_index, shape, stream)
        assert np.array_equal(tile.codes, codes)
        assert np.array_equal(tile.level, level)


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_survive_real_bytes(tiny, document, shape):
    """Codes, escapes among them, and levels come back, in the independent decoder as well."""
    codes, level = random_codes(shape, tiny.codes.config)
    stream = tiny.encode(codes, level, 5)
    found, levels = tiny.decode(stream, shape, 5)
    assert np.array_equal(found, codes)
    assert np.array_equal(levels, level)
    tile = Tile(document, 5, shape, stream)
    assert np.array_equal(tile.codes, codes)
    assert np.array_equal(tile.level, level)
    assert tile.rewritten() == stream
    with pytest.raises(FormatError, match="longer than the codes"):
        tiny.decode(stream + bytes(8), shape, 5)


@pytest.mark.parametrize("shape", SHAPES)
def test_signs_survive_real_bytes(one_bit, one_bit_document, shape):
    """With one threshold a code that exists takes one bit; the independent decoder agrees."""
    codes, level = random_codes(shape, one_bit.codes.config)
    stream = one_bit.encode(codes, level, 5)
    found, levels = one_bit.decode(stream, shape, 5)
    assert np.array_equal(found, codes)
    assert np.array_equal(levels, level)
    tile = Tile(one_bit_document, 5, shape, stream)
    assert np.array_equal(tile.codes, codes)
    assert tile.rewritten() == stream
    assert len(tile.bits) - tile.level_bits == np.abs(codes).sum()


@pytest.mark.parametrize("highest", range(4))
@pytest.mark.parametrize("shape", [(9, 7), (1, 6)])
def test_codes_survive_where_the_map_stays_low(wide, highest, shape):
    """Levels up to any `highest`, 0 included, and the codes that they allow come back."""
    codes, level = random_codes(shape, wide.codes.config, highest=highest)
    found, levels = wide.decode(wide.encode(codes, level, 5), shape, 5)
    assert np.array_equal(found, codes)
    assert np.array_equal(levels, level)


def test_predictions_are_those_of_the_independent_decoder(tiny, document):
    """Means and scales for refinement are what the independent decoder's decisions rest on."""
    codes, level = random_codes((6, 7), tiny.codes.config)
    means, scales = tiny.codes.distributions(codes, level, 3)
    tile = Tile(document, 3, (6, 7), tiny.encode(codes, level, 3))
    table = tiny.codes.ladder.table.tolist()
    for code in tile.read:
        assert means[code.place] == code.mean
        assert table[scales[code.place]] == code.table
    exists = kept(level, tiny.codes.config)
    assert len(tile.read) == exists.sum()
    assert not means[~exists].any()
    assert not scales[~exists].any()


def test_prices_add_up_to_the_stream(tiny):
    """The prices of the codes by their distributions are what the coder takes, within 1 %."""
    codes, level = random_codes((40, 40), tiny.codes.config, spread=2.0)
    codes = codes.clip(-20, 20)
    means, scales = tiny.codes.distributions(codes, level, 4)
    prices = tiny.codes.ladder.prices
    distance = np.abs(16 * codes.astype(int) - means).clip(max=prices.shape[1] - 1)
    expected = prices[scales, distance][kept(level, tiny.codes.config)].sum()
    writer = HashingWriter()
    tiny.codes.walk(writer, level, 4, codes)
    assert expected == pytest.approx(8 * len(writer.to_bytes()), rel=0.01)


# Choice


def test_encoding_writes_the_chosen_codes(tiny):
    """`encode` with remainders writes what `chosen_codes` gives; some codes change sides."""
    codes, level = random_codes((12, 11), tiny.codes.config, spread=3.0)
    remainders = np.random.default_rng(4).integers(-8, 9, codes.shape).astype(np.int8)
    chosen = tiny.chosen_codes(codes, level, remainders, 4)
    assert chosen.dtype == np.int16
    assert (chosen != codes).mean() > 0.01
    assert np.abs(chosen - codes).max() == 1
    assert (np.sign(chosen - codes) * remainders >= 0).all()
    assert not chosen[~kept(level, tiny.codes.config)].any()
    stream = tiny.encode(codes, level, 4, remainders)
    assert stream == tiny.encode(chosen, level, 4)
    costs = Cost(), Cost()
    for cost, written in zip(costs, (chosen, codes), strict=True):
        tiny.codes.walk(cost, level, 4, written)
    assert costs[0].bits < costs[1].bits
    exact = np.zeros_like(remainders)  # features that are integers stay
    assert np.array_equal(tiny.chosen_codes(codes, level, exact, 4), codes)


# The same everywhere


def fingerprints(path: Path, dtype: type | None = None) -> list[str]:
    """Hashes of all probabilities and bits: of random codes, and of golden files."""
    coder, golden = coder_of(path, dtype), coder_of(TINY, dtype)
    codes, level = random_codes((20, 17), coder.codes.config, spread=4.0)
    writer = HashingWriter()
    coder.walk(writer, (20, 17), 2, codes, level)
    found = [writer.sha256.hexdigest()]
    for file in sorted((GOLDEN / "tiny").glob("*.cwic")):
        for stream, shape, quality_index in tiles_of(file):
            reader = HashingReader(stream)
            golden.walk(reader, shape, quality_index)
            found.append(reader.sha256.hexdigest())
    return found


def test_probabilities_do_not_depend_on_the_float_type(path):
    """float32 and float64 give the same probabilities and bits."""
    assert fingerprints(path, np.float32) == fingerprints(path, np.float64)


SETTINGS = {
    "one thread": {"OPENBLAS_NUM_THREADS": "1"},
    "an old processor's BLAS": {"OPENBLAS_CORETYPE": "Prescott"},
    "no vector instructions beyond NumPy's least": {"NPY_DISABLE_CPU_FEATURES": "all"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_probabilities_do_not_depend_on_the_processor(path, setting):
    """In another process, with other instructions, every probability and bit is the same."""
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    changes = {
        name: " ".join(extensions) if value == "all" else value
        for name, value in SETTINGS[setting].items()
    }
    variables = environment(**changes)
    variables["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    code = f"import test_tile_coder as t; print(t.fingerprints(t.Path({str(path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(fingerprints(path))


def test_a_blas_that_lies_changes_no_byte(path, tiny):
    """Where products are not exact the coder works in float64, and writes the same stream."""
    careful = coder_of(path, exact_dtype(LIARS["bfloat16"]))
    assert careful.map.conv1.weight.dtype == np.float64
    assert tiny.map.conv1.weight.dtype == np.float32
    codes, level = random_codes((9, 8), tiny.codes.config)
    remainders = np.random.default_rng(4).integers(-8, 9, codes.shape).astype(np.int8)
    assert careful.encode(codes, level, 3, remainders) == tiny.encode(codes, level, 3, remainders)


def test_tiles_need_not_be_contiguous(tiny):
    """A tile cut out of a picture's codes, levels and remainders codes as its copy does."""
    codes, level = random_codes((14, 15), tiny.codes.config)
    remainders = np.random.default_rng(4).integers(-8, 9, codes.shape).astype(np.int8)
    part = np.s_[3:12, 2:13]
    views = codes[part], level[part], remainders[part]
    copies = [np.ascontiguousarray(view) for view in views]
    assert not views[0].flags.c_contiguous
    stream = tiny.encode(views[0], views[1], 3, views[2])
    assert stream == tiny.encode(copies[0], copies[1], 3, copies[2])
    chosen = tiny.chosen_codes(*views, 3)
    assert np.array_equal(tiny.decode(stream, (9, 11), 3)[0], chosen)


# Damage


@pytest.mark.parametrize("name", ["tiny", "one_bit"])
def test_damaged_streams_end_in_codes_or_in_a_named_error(request, name):
    """Random bytes never hang or crash: they decode to codes, or raise FormatError."""
    coder: TileCoder = request.getfixturevalue(name)
    random = np.random.default_rng(1)
    refused = 0
    for length in (0, 4, 12, 40, 400):
        for _ in range(5):
            try:
                codes, level = coder.decode(random.bytes(length), (5, 6), 3)
                exists = kept(level, coder.codes.config)
                assert not codes[~exists].any()
                assert np.abs(codes).max() <= (1 if name == "one_bit" else 8359)
            except FormatError:
                refused += 1
    assert refused > 0


def test_streams_of_broken_words_are_refused(tiny):
    """A stream that is no whole number of words is refused before anything is read."""
    with pytest.raises(FormatError, match="stream of 7 bytes: expected a multiple of 4"):
        tiny.decode(bytes(7), (3, 3), 3)
    with pytest.raises(FormatError, match="stream of 7 bytes: expected a multiple of 4"):
        tiny.decode_level(bytes(7), (3, 3), 3)
