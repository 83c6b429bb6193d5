"""The exact layer: blocks that come back to the bit, and `lossless=True`, which keeps all."""

from __future__ import annotations

import io
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from closeness import assert_close
from coding import encode_in_tiles, load, partly_exact
from PIL import Image, features

import pillow_cwic
from pillow_cwic import FormatError
from pillow_cwic.decoding import decode_container
from pillow_cwic.format import container, lossless_picture
from pillow_cwic.format.exact_tile import ExactTile, pack_tile, unpack_tile
from pillow_cwic.format.lossless_picture import PNG, WEBP, decode_lossless, encode_lossless
from pillow_cwic.tools.cli import main
from pillow_cwic.weights import models


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """RGBA noise, 150 x 100 pixels: nothing that a lossy code could hit by luck."""
    return np.random.default_rng(0).integers(0, 256, (100, 150, 4)).astype(np.uint8)


def saved(image: Image.Image, **options: object) -> Image.Image:
    """The image through a .cwic file of Pillow's."""
    file = io.BytesIO()
    image.save(file, "CWIC", **options)
    return Image.open(file)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (64, 65), (100, 150)])
def test_lossless_keeps_every_pixel(noise, shape, bands):
    """Grey and colour, with alpha and without, sizes on and off the grid, many tiles and one."""
    picture = noise[: shape[0], : shape[1], :bands]
    expected = picture[:, :, 0] if bands == 1 else picture
    for tile_size in (64, 1024):
        data = encode_in_tiles(picture, tile_size, lossless=True)
        assert pillow_cwic.read_header(data).lossless
        assert np.array_equal(pillow_cwic.decode(data), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_lossless_through_pillow(noise, mode):
    """Every mode that converts exactly comes back as Pillow converts it; `info` says lossless."""
    image = Image.fromarray(noise).convert(mode)
    found = saved(image, lossless=True)
    assert found.info["lossless"] is True
    assert "cwic_quality" not in found.info
    assert np.array_equal(np.asarray(found), np.asarray(image.convert(found.mode)))


def test_lossless_takes_no_mode_that_is_rounded(noise):
    """Where the conversion to RGB rounds, an error says so; nothing is lost silently."""
    image = Image.fromarray(noise).convert("RGB").convert("YCbCr")
    with pytest.raises(ValueError, match="lossless=True: mode YCbCr can only be stored with round"):
        saved(image, lossless=True)


def test_colours_behind_transparent_pixels_are_kept(noise):
    """Colour is exact where alpha is 0, too."""
    picture = noise.copy()
    picture[..., 3] = 0
    assert np.array_equal(pillow_cwic.decode(pillow_cwic.encode(picture, lossless=True)), picture)


def test_lossless_through_imageio_and_the_command_line(noise, tmp_path: Path):
    """Both write the file that `encode` writes; `info` says lossless."""
    expected = pillow_cwic.encode(noise, lossless=True)
    assert iio.imwrite("<bytes>", noise, extension=".cwic", lossless=True) == expected
    assert iio.immeta(expected, extension=".cwic")["lossless"] is True
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert main(["encode", str(tmp_path / "a.png"), str(tmp_path / "a.cwic"), "--lossless"]) == 0
    assert (tmp_path / "a.cwic").read_bytes() == expected


def test_info_says_lossless(noise, tmp_path: Path, capsys):
    """`info` does not show a quality that means nothing."""
    (tmp_path / "a.cwic").write_bytes(pillow_cwic.encode(noise, lossless=True))
    assert main(["info", str(tmp_path / "a.cwic")]) == 0
    assert "quality   lossless\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [{"quality": 0.5}, {"bpp": 1}, {"max_bytes": 9999}, {"effort": 1}, {"importance": "mask"}],
    ids=lambda options: next(iter(options)),
)
def test_lossless_goes_with_nothing_that_changes_pixels(noise, options):
    """What would change nothing is a ValueError that names it."""
    if "importance" in options:
        options = {"importance": noise[:, :, 0]}
    with pytest.raises(ValueError, match=f"lossless=True keeps every pixel: {next(iter(options))}"):
        pillow_cwic.encode(noise, lossless=True, **options)


def test_lossless_is_true_or_false(noise):
    """A number is a TypeError."""
    with pytest.raises(TypeError, match="lossless is True or False, found 1"):
        pillow_cwic.encode(noise, lossless=1)


def test_a_lossless_file_is_as_large_as_webps(photo):
    """Within 2 % and the container's bytes of what Pillow writes."""
    file = io.BytesIO()
    photo.save(file, "WEBP", lossless=True)
    data = pillow_cwic.encode(np.asarray(photo), lossless=True)
    assert len(data) <= 1.02 * file.tell() + 80


def test_a_lossless_file_needs_no_model(noise):
    """Nor is one loaded: the model that it names may be unknown here."""
    data = pillow_cwic.encode(noise, lossless=True)
    parsed = container.read(data)
    header = container.Header(
        *parsed.header.size,
        3,
        True,
        0,
        "0123456789abcdef",
        has_exact_blocks=True,
        lossless=True,
    )
    unknown = container.write(header, parsed.tiles, parsed.alpha)
    assert np.array_equal(pillow_cwic.decode(unknown), noise)
    assert not pillow_cwic.importance_map(unknown).any()


def test_a_region_of_exact_blocks_is_a_crop(noise):
    """Over tile borders, and of a single pixel."""
    data = encode_in_tiles(noise, lossless=True)
    for left, upper, right, lower in ((0, 0, 150, 100), (60, 60, 70, 70), (149, 99, 150, 100)):
        part = pillow_cwic.decode(data, region=(left, upper, right, lower))
        assert np.array_equal(part, noise[upper:lower, left:right])


def test_a_lost_tile_leaves_the_exact_ones(noise):
    """What is left of a damaged lossless file is exact."""
    data = bytearray(encode_in_tiles(noise, lossless=True))
    data[container.read_header(bytes(data)).sections[-1].offset + 12] ^= 1
    salvaged = container.salvage(bytes(data))
    assert len(salvaged.damage) == 1
    shown = decode_container(salvaged)
    assert np.array_equal(shown[:64], noise[:64])
    assert np.array_equal(shown[:, :128], noise[:, :128])


@pytest.fixture(scope="module")
def mixed(tiny, photo) -> tuple[np.ndarray, bytes]:
    """A picture of 147 x 101 pixels, and its file with blocks of both kinds."""
    picture = np.asarray(photo.resize((147, 101)))
    return picture, partly_exact(picture, load(tiny), chance=0.4)


def test_a_region_with_blocks_of_both_kinds_is_a_crop(mixed):
    """Exact pixels are equal, the others within 1 of 255, wherever the region ends."""
    picture, data = mixed
    whole = pillow_cwic.decode(data)
    assert (whole == picture).all(2).mean() > 0.3
    for left, upper, right, lower in ((50, 30, 147, 101), (3, 70, 20, 75), (129, 1, 130, 2)):
        part = pillow_cwic.decode(data, region=(left, upper, right, lower))
        assert_close(part, whole[upper:lower, left:right])
    inside_the_exact_tile = (130, 0, 147, 64)
    part = pillow_cwic.decode(data, region=inside_the_exact_tile)
    assert np.array_equal(part, picture[:64, 130:])


def test_tiles_that_are_all_exact_have_no_codes(mixed):
    """The importance map shows none there, and some elsewhere."""
    _, data = mixed
    level = pillow_cwic.importance_map(data)
    assert not level[:4, 8:].any()
    assert level[:4, 4:8].any()


# --- the lossless picture and the tile, in bytes -------------------------------------------------


@pytest.mark.parametrize("number", [PNG, WEBP])
@pytest.mark.parametrize("bands", [1, 3])
def test_both_formats_are_read(noise, number, bands, monkeypatch):
    """Without WebP in Pillow, PNG is written; a reader knows both."""
    monkeypatch.setattr(features, "check", lambda name: number == WEBP)
    picture = encode_lossless(noise[:, :, :bands])
    monkeypatch.undo()
    assert picture.format == number
    assert np.array_equal(decode_lossless(picture, (150, 100), bands), noise[:, :, :bands])


def test_without_webp_the_error_says_so(noise, monkeypatch):
    """An UnsupportedError, which says what to do."""
    picture = encode_lossless(noise[:, :, :3])
    monkeypatch.setattr(lossless_picture.features, "check", lambda name: False)
    with pytest.raises(pillow_cwic.UnsupportedError, match="install one with WebP"):
        decode_lossless(picture, (150, 100), 3)


def test_a_tile_comes_back_as_it_was_packed():
    """Some exact, all and none; the stream starts at a word."""
    some = np.zeros((5, 7), bool)
    some[1:3, 2:6] = True
    picture = lossless_picture.LosslessPicture(PNG, b"abcde")
    for tile in (
        ExactTile(some, picture, b"12345678"),
        ExactTile(np.ones((5, 7), bool), picture, b""),
        ExactTile(np.zeros((5, 7), bool), None, b"1234"),
    ):
        payload = pack_tile(tile)
        assert len(payload) % 4 == 0
        found = unpack_tile(payload, (5, 7))
        assert np.array_equal(found.exact, tile.exact)
        assert found[1:] == tile[1:]
    assert len(pack_tile(tile)) == 12


def test_a_hostile_model_is_not_asked_for(noise, tiny):
    """A picture that is shown from exact blocks alone does not fetch what the file names."""
    data = encode_in_tiles(noise, lossless=True, model=tiny)
    models.forget()
    assert np.array_equal(pillow_cwic.decode(data), noise)


def test_a_lossless_file_with_a_lossy_tile_is_refused(mixed):
    """HEAD's word is held against every tile."""
    _, data = mixed
    parsed = container.read(data)
    header = container.Header(
        147, 101, 3, False, 5, parsed.header.model_id, 64, has_exact_blocks=True, lossless=True
    )
    with pytest.raises(FormatError, match="tile 0 of 6: not all blocks are exact, but HEAD says"):
        pillow_cwic.decode(container.write(header, parsed.tiles))
