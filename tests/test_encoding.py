"""Encoding: any size and mode, the dial and the other rates, importance.

Wrong options are named.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from coding import analysed, load
from PIL import Image

import pillow_cwic
from pillow_cwic.analysis import Coded, absent
from pillow_cwic.format import container
from pillow_cwic.format.grid import Box


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels over all samples."""
    return float(10 * np.log10(65025 / ((a.astype(float) - b) ** 2).mean()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (15, 16), (16, 16), (17, 33), (130, 65)])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_every_size_and_mode_comes_back(size, channels):
    """Any size from 1x1 and every mode decode to the same shape; alpha is exact.

    Flat colour stays near.
    """
    shape = size if channels is None else (*size, channels)
    a = np.full(shape, 100, np.uint8)
    if channels in (2, 4):
        a[..., -1] = 1 + np.arange(size[0] * size[1]).reshape(size) % 255  # nothing is hidden
    b = pillow_cwic.decode(pillow_cwic.encode(a, quality=0.8))
    assert b.shape == (size if channels in (None, 1) else shape)
    assert b.dtype == np.uint8
    if channels in (2, 4):
        assert np.array_equal(a[..., -1], b[..., -1])
        a, b = a[..., :-1], b[..., :-1]
    assert np.abs(a.reshape(b.shape).astype(int) - b).mean() < 8


def test_quality_is_a_dial_from_smallest_to_best(pixels):
    """More quality means more bytes and a better picture."""
    files = [pillow_cwic.encode(pixels, quality=q) for q in (0, 0.25, 0.5, 0.75, 1)]
    sizes = [len(f) for f in files]
    scores = [psnr(pixels, pillow_cwic.decode(f)) for f in files]
    assert sizes == sorted(set(sizes))
    assert scores == sorted(set(scores))
    assert scores[-1] > 27
    assert scores[0] > 18


def test_features_that_are_not_kept_give_the_same_codes(pixels):
    """A picture too large for its features to stay in memory gets the same codes as with them."""
    kept = analysed(pixels, 25, largest_window=5)
    again = analysed(pixels, 25, largest_window=5, kept_pixels=0)
    assert np.array_equal(again.codes, kept.codes)
    assert np.array_equal(again.level, kept.level)


@pytest.mark.parametrize("limit", [1300, 1500, 2000])
def test_max_bytes_is_kept_and_used(pixels, limit):
    """The file fits, and the next quality index would not."""
    fits = pillow_cwic.encode(pixels, max_bytes=limit, comment="counts too")
    index = container.read_header(fits).quality_index
    assert len(fits) <= limit
    assert len(pillow_cwic.encode(pixels, quality=(index + 1) / 63, comment="counts too")) > limit


def test_max_bytes_below_the_smallest_file_says_how_small_it_gets(pixels):
    """The ValueError names the option, the value and the smallest possible size."""
    smallest = len(pillow_cwic.encode(pixels, quality=0))
    with pytest.raises(
        ValueError, match=rf"max_bytes = 60: the smallest file of this picture has {smallest} bytes"
    ):
        pillow_cwic.encode(pixels, max_bytes=60)  # signature and sections alone take 52


@pytest.mark.parametrize(("bpp", "quality"), [(30, 1), (0.0001, 0)])
def test_bpp_out_of_reach_is_said(pixels: np.ndarray, bpp: float, quality: float) -> None:
    """The nearest file is made, and a warning says what can be reached and what was."""
    expected = pillow_cwic.encode(pixels, quality=quality)
    reached = f"{8 * len(expected) / (300 * 220):.3g}"
    with pytest.warns(
        UserWarning, match=f"bpp = {bpp:g} is out of reach.*has {reached}$"
    ) as caught:
        assert pillow_cwic.encode(pixels, bpp=bpp) == expected
    assert caught[0].filename == __file__


@pytest.mark.parametrize("bpp", [0.2, 0.25, 0.35])
def test_bpp_takes_the_nearest_quality(pixels, bpp):
    """No other quality index comes nearer to the rate asked for."""
    target = bpp * pixels.shape[0] * pixels.shape[1] / 8
    found = pillow_cwic.encode(pixels, bpp=bpp)
    index = container.read_header(found).quality_index
    others = [len(pillow_cwic.encode(pixels, quality=(index + step) / 63)) for step in (-1, 1)]
    assert all(abs(len(found) - target) <= abs(size - target) for size in others)


def test_rate_targets_run_the_quality_independent_part_once(pixels, monkeypatch):
    """However many qualities are tried, the first half of the encoder runs once per window."""
    model = load()
    calls = []

    class Counted:
        """The first half, counting."""

        network = model.features.network

        def __call__(self, *inputs, run=model.features):
            calls.append(inputs)
            return run(*inputs)

    monkeypatch.setattr(type(model), "features", Counted())
    analysed(pixels, 25)
    once = len(calls)
    pillow_cwic.encode(pixels, max_bytes=1500)
    assert once >= 1
    assert len(calls) == 2 * once


def test_importance_moves_bits_to_where_it_is_bright(pixels):
    """At about the same size, the bright half gets better and the dark half worse.

    None and 128 change nothing.
    """
    mask = np.full(pixels.shape[:2], 100, np.uint8)
    mask[:, :160] = 156
    plain, moved = (pillow_cwic.encode(pixels, quality=0.4, importance=m) for m in (None, mask))
    a, b = pillow_cwic.decode(plain), pillow_cwic.decode(moved)
    assert psnr(pixels[:, :128], b[:, :128]) > psnr(pixels[:, :128], a[:, :128]) + 0.3
    assert psnr(pixels[:, 192:], b[:, 192:]) < psnr(pixels[:, 192:], a[:, 192:]) - 0.3
    assert pillow_cwic.encode(pixels, quality=0.4, importance=np.full_like(mask, 128)) == plain
    small = Image.fromarray(mask).resize((30, 22))
    resized = pillow_cwic.encode(pixels, quality=0.4, importance=small)
    assert container.read_header(resized).has_quality_map


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 75}, r"quality is 0\.\.1, found 75; did you mean 0\.75\?"),
        ({"quality": -0.1}, r"quality is 0\.\.1, found -0\.1"),
        ({"quality": float("nan")}, r"quality is 0\.\.1, found nan"),
        ({"quality": "high"}, r"quality is a number in 0\.\.1, found 'high'"),
        ({"quality": True}, r"quality is a number in 0\.\.1, found True"),
        ({"bpp": 0}, "bpp is a number of bits per pixel above 0, such as 0.25; found 0"),
        ({"max_bytes": -5}, "max_bytes is a number of bytes above 0, such as 20_000; found -5"),
        (
            {"quality": 0.5, "bpp": 1.0},
            "give one of quality, bpp and max_bytes, found quality and bpp",
        ),
        (
            {"importance": np.zeros((3, 3, 3), np.uint8)},
            "importance is a grey image or an array HxW of .*, found uint8 of shape",
        ),
        ({"importance": np.full((3, 3), 9.0)}, "importance is .* found float64 .*from 9 to 9"),
        ({"dpi": "high"}, r"dpi is a pair of numbers such as \(300, 300\), found 'high'"),
        ({"dpi": (float("nan"), 72)}, "dpi must be two finite numbers"),
        (
            {"device": "quantum"},
            "device 'quantum' is not known; use cpu, torch, cuda, cuda:N or auto",
        ),
        ({"device": "cuda:97"}, r"device 'cuda:97' asked for, but torch finds \d+ CUDA device"),
    ],
)
def test_wrong_options_are_named(options, message):
    """A ValueError says the option, the range and what was found."""
    with pytest.raises(ValueError, match=message):
        pillow_cwic.encode(np.zeros((8, 8, 3), np.uint8), **options)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((4, 4), np.float32),
            TypeError,
            "pixels are uint8, found float32; scale it to 0..255 and round first",
        ),
        (np.zeros((4, 4, 5), np.uint8), ValueError, r"found shape \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"at least one pixel, found shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), ValueError, r"found shape \(4,\)"),
        ("photo.png", TypeError, "an array of uint8 or an image of Pillow's, found str"),
        (None, TypeError, "an array of uint8 or an image of Pillow's, found NoneType"),
    ],
)
def test_wrong_pixels_are_named(array, error, message):
    """The message says which arrays are pictures and what was found."""
    with pytest.raises(error, match=message):
        pillow_cwic.encode(array)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_channels_that_exist_nowhere_take_no_memory():
    """Codes of 67 megapixels whose first channels alone are written; a tile has all of them."""
    grid = Box(0, 0, 512, 512)
    before = resident_bytes()
    codes = absent(grid, 768, np.int16)  # 400 MB, if all were there
    codes[..., :8] = 3
    coded = Coded(codes, np.ones((512, 512), np.uint8), 5)
    tile = coded.tile(Box(16, 32, 48, 64))
    assert resident_bytes() - before < 60e6
    assert tile.codes.shape == (32, 32, 768)
    assert tile.codes.flags.c_contiguous
    assert (tile.codes[..., :8] == 3).all()
    assert not tile.codes[..., 8:].any()


def resident_bytes() -> int:
    """Of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
