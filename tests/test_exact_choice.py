"""Which blocks are exact: text is, photographs are not; what is hidden costs no neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from closeness import assert_close
from coding import encode_in_tiles
from PIL import Image, ImageDraw

import pillow_cwic
from pillow_cwic.exact.choice import looks_like_graphics
from pillow_cwic.exact.continuation import continue_smoothly
from pillow_cwic.exact.estimate import AT_LEAST, SORTED_BELOW, _counts, coded_cost, exact_bits
from pillow_cwic.exact.layer import ExactLayer
from pillow_cwic.format import container
from pillow_cwic.format.grid import Box, code_grid
from pillow_cwic.format.lossless_picture import encode_lossless
from pillow_cwic.tools.cli import main


def exact_blocks(data: bytes) -> np.ndarray:
    """Which blocks of a file are exact, [h,w]."""
    parsed = container.read(data)
    return ExactLayer(parsed).mask(code_grid(*parsed.header.size))


@pytest.fixture(scope="module")
def page(face: Image.Image) -> np.ndarray:
    """RGB, 320 x 192 pixels: text at the left, a photograph of 160 pixels' width at the right."""
    image = Image.new("RGB", (320, 192), "white")
    draw = ImageDraw.Draw(image)
    for line in range(12):
        draw.text((4, 16 * line + 2), "The quick brown fox, No. 17", fill=(20, 20, 40))
    image.paste(face.crop((40, 0, 200, 192)), (160, 0))
    return np.asarray(image)


@pytest.fixture(scope="module")
def data(page: np.ndarray) -> bytes:
    """The page at the default quality."""
    return pillow_cwic.encode(page)


def test_text_is_exact_and_a_photograph_is_not(page, data):
    """Every pixel of the text comes back; the file is smaller than without the choice or loss."""
    exact = exact_blocks(data)
    assert exact[:, :9].mean() > 0.9
    assert exact[:, 11:].mean() < 0.1
    shown = pillow_cwic.decode(data)
    pixels = exact.repeat(16, 0).repeat(16, 1)
    assert np.array_equal(shown[pixels], page[pixels])
    assert len(data) < len(pillow_cwic.encode(page, exact=False))
    assert len(data) < len(pillow_cwic.encode(page, lossless=True))


@pytest.mark.parametrize("quality", [0.3, 0.7])
def test_no_lone_block_of_text_is_lossy(page, quality):
    """Lossy blocks lie together, at least three wide and high: no letter is half smeared."""
    lossy = ~exact_blocks(pillow_cwic.encode(page, quality=quality))
    squares = np.lib.stride_tricks.sliding_window_view(np.pad(lossy, 2, mode="edge"), (3, 3))
    inside = np.lib.stride_tricks.sliding_window_view(squares.all((2, 3)), (3, 3)).any((2, 3))
    assert lossy.any()
    assert np.array_equal(lossy, inside)


def test_no_seam_where_text_meets_a_photograph(page, data):
    """The photograph's pixels beside exact blocks are as good as without the choice."""
    without = pillow_cwic.decode(pillow_cwic.encode(page, exact=False))
    shown = pillow_cwic.decode(data)
    beside = (slice(None), slice(164, 184))

    def error(picture: np.ndarray) -> float:
        return float(np.square(picture[beside].astype(float) - page[beside]).mean())

    assert error(shown) < 1.1 * error(without)


def test_without_text_nothing_changes(face):
    """A photograph's file is the same to the byte, whether the choice is on or off."""
    pixels = np.asarray(face)
    assert not looks_like_graphics(pixels)
    for quality in (0.1, 0.9):
        plain = pillow_cwic.encode(pixels, quality=quality, exact=False)
        assert pillow_cwic.encode(pixels, quality=quality) == plain
        assert not pillow_cwic.read_header(plain).has_exact_blocks


def test_a_page_of_text_is_lossless(page):
    """Where all blocks are exact, the file says that it is lossless, and needs no model."""
    data = pillow_cwic.encode(page[:, :160])
    assert pillow_cwic.read_header(data).lossless
    assert np.array_equal(pillow_cwic.decode(data), page[:, :160])


def test_info_tells_the_share(data, tmp_path, capsys):
    """`info` says how many of the blocks are exact."""
    (tmp_path / "a.cwic").write_bytes(data)
    assert main(["info", str(tmp_path / "a.cwic")]) == 0
    share = exact_blocks(data).mean()
    assert 0.3 < share < 0.7
    assert f"exact     {share:.0%} of the blocks\n" in capsys.readouterr().out


def test_tiles_choose_for_themselves(page):
    """Of many tiles those with text have exact blocks; a region is a crop of the whole."""
    data = encode_in_tiles(page, 64)
    exact = exact_blocks(data)
    assert exact[:, :8].all()
    assert not exact[:, 12:].any()
    whole = pillow_cwic.decode(data)
    assert np.array_equal(whole[:, :128], page[:, :128])
    assert_close(pillow_cwic.decode(data, region=(100, 50, 250, 100)), whole[50:100, 100:250])


def test_max_bytes_is_kept(page):
    """The file with exact blocks is within the limit."""
    assert len(pillow_cwic.encode(page, max_bytes=9000)) <= 9000


def test_two_levels_are_tried(page):
    """A picture of two levels is worth a try whatever its blocks look like."""
    dither = np.random.default_rng(0).integers(0, 2, (48, 48, 1)).astype(np.uint8) * 255
    assert looks_like_graphics(dither.repeat(3, 2))
    assert looks_like_graphics(page)
    assert looks_like_graphics(page[:, :1])  # a column has no steps


# --- the estimates -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [slice(0, 160), slice(160, 320)], ids=["text", "photograph"])
def test_lossless_bits_are_about_those_of_a_lossless_picture(page, part):
    """Within a factor of two, of text and of a photograph, which lie ten times apart."""
    pixels = page[:, part]
    bits = exact_bits(pixels, Box(0, 0, 10, 12)).sum()
    real = 8 * len(encode_lossless(np.ascontiguousarray(pixels)).data)
    assert 0.5 < bits / real < 2


def test_text_costs_a_model_more_and_a_photograph_less_than_exactly(page):
    """By a factor of two at least, at a lambda of the middle; flat ground costs the least."""
    box = Box(0, 0, 20, 12)
    ratio = exact_bits(page, box) / coded_cost(page, 0.01, box)
    assert np.median(ratio[:, :8]) < 0.5
    assert np.median(ratio[:, 11:]) > 2
    flat = np.full((30, 20, 3), 77, np.uint8)
    assert (coded_cost(flat, 0.01, Box(0, 0, 2, 2)) == AT_LEAST).all()
    assert exact_bits(flat, Box(0, 0, 2, 2)).max() < AT_LEAST


def test_a_model_costs_more_where_errors_weigh_more(page):
    """One lambda, or one for each block."""
    box = Box(0, 0, 20, 12)
    weights = np.full((12, 20), 0.01, np.float32)
    weights[:, 10:] = 0.1
    both = coded_cost(page, weights, box)
    assert np.allclose(both[:, :10], coded_cost(page, 0.01, box)[:, :10])
    assert np.allclose(both[:, 10:], coded_cost(page, 0.1, box)[:, 10:])
    assert (both[:, 12:] > coded_cost(page, 0.01, box)[:, 12:]).all()


# --- the continuation ----------------------------------------------------------------------------


def test_what_is_visible_stays():
    """Only hidden pixels change, and they stay within what is around."""
    noise = np.random.default_rng(1).integers(90, 120, (37, 53, 3)).astype(np.uint8)
    hidden = np.zeros((37, 53), bool)
    hidden[8:24, 16:53] = True
    picture = noise.copy()
    picture[hidden] = 255
    found = continue_smoothly(picture, hidden)
    assert np.array_equal(found[~hidden], noise[~hidden])
    assert found[hidden].min() >= 90
    assert found[hidden].max() <= 120


def test_a_slope_goes_on():
    """A gap in a linear slope is filled within a few levels."""
    slope = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2) * 3
    hidden = np.zeros((64, 64), bool)
    hidden[16:48, 16:48] = True
    found = continue_smoothly(np.where(hidden[:, :, None], 0, slope), hidden)
    difference = np.abs(found.astype(int) - slope)
    assert difference.max() <= 24
    assert np.abs(np.diff(found.astype(int), axis=1)).max() <= 20


@pytest.mark.parametrize("value", [False, True])
def test_nothing_or_everything_hidden(value):
    """The pixels stay as they are."""
    pixels = np.random.default_rng(2).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(continue_smoothly(pixels, np.full((5, 7), value)), pixels)


def test_a_small_tile_counts_as_a_large_one_does() -> None:
    """How often a key is there is the same, whether keys are sorted or looked up in a table."""
    keys = np.random.default_rng(3).integers(0, 50, (512, 512)).astype(np.uint32)
    assert keys[:, :200].size < SORTED_BELOW < keys.size
    assert (_counts(keys) == np.bincount(keys.reshape(-1))[keys]).all()
    part = keys[:, :200]
    assert (_counts(part) == np.bincount(part.reshape(-1))[part]).all()
