"""Decoding: regions, windows, tiles, the importance map; damage is noticed, never shown."""

import io
import math
import random
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close
from coding import analysed, encode_in_tiles, encode_rounded, load
from PIL import Image

import pillow_cwic
from pillow_cwic import CwicError, FormatError, decoding
from pillow_cwic.format import container
from pillow_cwic.format.grid import Box, code_grid
from pillow_cwic.format.png_plane import decode_plane, encode_plane
from pillow_cwic.networks import bands as bands_module
from pillow_cwic.networks.bands import Bands
from pillow_cwic.networks.windows import windows
from pillow_cwic.runtime.machine import available_cores
from pillow_cwic.synthesis import synthesize
from pillow_cwic.weights import models


@pytest.fixture(scope="module")
def data(pixels) -> bytes:
    """`pixels` at quality 0.4."""
    return pillow_cwic.encode(pixels, quality=0.4)


@pytest.mark.parametrize(
    "region", [(0, 0, 300, 220), (0, 0, 1, 1), (299, 219, 300, 220), (37, 50, 205, 101)]
)
def test_a_region_is_a_crop(data, region):
    """Decoding a region gives the whole picture's pixels there within 1 of 255."""
    left, upper, right, lower = region
    whole = pillow_cwic.decode(data)[upper:lower, left:right]
    assert_close(pillow_cwic.decode(data, region=region), whole)


@pytest.mark.parametrize(
    "region", [(0, 0, 301, 220), (-1, 0, 5, 5), (5, 5, 5, 9), (1, 2, 3), "abcd"]
)
def test_a_region_outside_the_picture_is_refused(data, region):
    """The ValueError shows the region and the picture's size, or what a region is."""
    with pytest.raises(ValueError, match=r"^region"):
        pillow_cwic.decode(data, region=region)


@pytest.mark.parametrize(
    "region",
    ["0199", b"\0\0\\9\\9", {0, 1, 8, 9}, (0, 0, 9.5, 9), (0, 0, math.inf, 9), (0, 0, "9", 9), 4],
)
def test_a_region_of_anything_but_four_whole_numbers_is_refused(data, region):
    """Nothing is taken for a region by accident, and no fraction of a pixel is cut off."""
    with pytest.raises(ValueError, match=r"in whole pixels, found"):
        pillow_cwic.decode(data, region=region)


@pytest.mark.parametrize("kind", [list, np.array, lambda edges: np.float32(edges)])
def test_a_region_is_any_four_whole_numbers(data, kind):
    """A tuple, a list, an array; floats as long as they are whole."""
    edges = (3, 4, 30, 25)
    expected = pillow_cwic.decode(data, region=edges)
    assert np.array_equal(pillow_cwic.decode(data, region=kind(edges)), expected)


def test_no_seam_between_windows(pixels):
    """Cutting a picture into small windows changes no code, and no pixel by more than 1 of 255."""
    grid = code_grid(300, 220)
    assert len(windows(grid, largest=5)) > 8
    whole, cut = (analysed(pixels, 25, largest_window=largest) for largest in (64, 5))
    assert np.array_equal(cut.codes, whole.codes)
    assert np.array_equal(cut.level, whole.level)
    shown = [
        synthesize(
            load(), whole.codes, (25, None), grid, Box(0, 0, 300, 220), largest_window=largest
        )
        for largest in (64, 5)
    ]
    assert_close(shown[1], shown[0])
    assert shown[0].std() > 20


def test_no_seam_between_tiles(pixels):
    """Tiles of 64 pixels decode to the picture of one tile, and a region needs only near tiles.

    Codes are only rounded here: a choice between two looks at the codes around, which end where a
    tile does.
    """
    whole = pillow_cwic.decode(encode_rounded(pixels, 25))
    tiled = encode_rounded(pixels, 25, tile_size=64)
    parsed = container.read(tiled)
    assert len(parsed.tiles) == 20
    assert_close(pillow_cwic.decode(tiled), whole)
    part = pillow_cwic.decode(tiled, region=(100, 70, 180, 150))
    assert_close(part, whole[70:150, 100:180])
    lost = container.Container(parsed.header, (*parsed.tiles[:19], None))
    assert_close(decoding.decode_container(lost, region=(0, 0, 90, 90)), whole[:90, :90])


def test_a_lost_tile_leaves_the_others(pixels):
    """decode_container() shows what is left of a salvaged file.

    Pixels away from the lost tile are unchanged.
    """
    tiled = bytearray(encode_in_tiles(pixels, quality=0.4))
    whole = pillow_cwic.decode(bytes(tiled))
    last = container.read_header(bytes(tiled)).sections[-1]
    tiled[last.offset + 8] ^= 1
    salvaged = container.salvage(bytes(tiled))
    assert salvaged.tiles[-1] is None
    shown = decoding.decode_container(salvaged)
    assert_close(shown[:90, :150], whole[:90, :150])


def test_the_importance_map_is_read_from_the_file(pixels, data):
    """importance_map() gives the encoder's own levels."""
    found = pillow_cwic.importance_map(data)
    assert found.shape == (14, 19)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(analysed(pixels, 25).level)[:14])


def test_every_damaged_byte_is_an_error(cwic_bytes):
    """200 flipped bytes and 60 truncations of a real file.

    Each is a CwicError, none shows wrong pixels.
    """
    chance = random.Random(5)
    for _ in range(200):
        bad, at = bytearray(cwic_bytes), chance.randrange(len(cwic_bytes))
        bad[at] ^= chance.randrange(1, 256)
        with pytest.raises(CwicError):
            pillow_cwic.decode(bytes(bad))
    for _ in range(60):
        with pytest.raises(CwicError):
            pillow_cwic.decode(cwic_bytes[: chance.randrange(len(cwic_bytes))])


def test_a_forged_tile_is_an_error_or_a_picture(cwic_bytes):
    """Random words under a right checksum.

    A FormatError naming the tile, or some picture, but nothing else.
    """
    parsed, chance = container.read(cwic_bytes), random.Random(1)
    refused = 0
    for length in (0, 4, 40, 4000):
        forged = container.write(parsed.header, [chance.randbytes(length)])
        try:
            assert pillow_cwic.decode(forged).shape == (72, 88, 3)
        except FormatError as error:
            refused += "tile 0 of 1: range-coded stream is" in str(error)
    assert refused >= 1


def test_a_forged_plane_is_a_named_error():
    """Alpha that is no PNG, a cut PNG, or one of another size or mode.

    A FormatError that names ALPH.
    """
    a = np.full((20, 30, 4), 90, np.uint8)
    a[..., 3] = np.arange(600).reshape(20, 30) % 251
    parsed = container.read(pillow_cwic.encode(a))
    expected = r"; expected 30 x 20, 8, 0 \(grey\), 0 \(no\)"
    for alpha, message in (
        (b"no PNG", "it does not start with PNG's signature"),
        (parsed.alpha[:-60], "it is cut off in the chunk at byte"),
        (_png(Image.new("L", (31, 20))), f"it has 31 x 20 pixels, 8 bits.*{expected}"),
        (_png(Image.new("L", (30, 20)), bits=4), f"it has 30 x 20 pixels, 4 bits.*{expected}"),
        (_png(Image.new("RGB", (30, 20))), f".* 8 bits, colour type 2.*{expected}"),
        (_png(Image.new("I;16", (30, 20))), f".* 16 bits, colour type 0.*{expected}"),
    ):
        with pytest.raises(FormatError, match=f"section ALPH: not a readable PNG: {message}"):
            pillow_cwic.decode(container.write(parsed.header, parsed.tiles, alpha))


def _png(image: Image.Image, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def test_a_large_alpha_plane_makes_no_warning(monkeypatch):
    """Pillow's warning of decompression bombs is for who opens a picture, not for its planes."""
    pixels = np.full((40, 50, 4), 200, np.uint8)
    data = pillow_cwic.encode(pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert (pillow_cwic.decode(data)[..., 3] == 200).all()  # warnings are errors here


def test_absurd_dimensions_cost_nothing():
    """A 60-byte file that claims 2^24 x 2^24 pixels is refused before any model is loaded.

    Within 1 s and 100 MB.
    """
    data = bytearray(pillow_cwic.encode(np.zeros((8, 8, 3), np.uint8)))
    head = container.Header(8, 8, 3, False, 31, "0" * 16)
    forged = bytearray(container.write(head, [b""]))
    forged[20:28] = b"\x01\x00\x00\x00" * 2
    forged[36:40] = zlib.crc32(bytes(forged[8:12] + forged[16:36])).to_bytes(4, "big")
    assert len(data) > 52
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(FormatError, match="16777216 x 16777216 pixels"):
        pillow_cwic.decode(bytes(forged))
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_more_pixels_than_pillow_allows_are_refused(data, monkeypatch):
    """Twice PIL.Image.MAX_IMAGE_PIXELS is the limit.

    A region of a large picture may still be decoded.
    """
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(
        pillow_cwic.UnsupportedError, match=r"more than twice PIL\.Image\.MAX_IMAGE_PIXELS"
    ):
        pillow_cwic.decode(data)
    assert pillow_cwic.decode(data, region=(0, 0, 50, 50)).shape == (50, 50, 3)


def test_a_small_region_that_needs_much_is_refused(monkeypatch):
    """What counts is what has to be decoded: tiles, thin sides as 48, alpha from its first row."""
    model = load().id
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)

    def picture(width, height, alpha=False):
        header = container.Header(width, height, 3, alpha, 5, model)
        return container.Container(header, (None,) * header.tile_count, b"" if alpha else None)

    # A row of 40 000 pixels needs all of 40 tiles, 1 pixel of width is coded as 48.
    for parsed, region, pixels in (
        (picture(40_000, 1024), (0, 500, 40_000, 501), 40_960_000),
        (picture(1, 1 << 20), None, 50_331_648),
        (picture(8192, 8192, alpha=True), (8000, 8000, 8001, 8001), 65_544_192),
    ):
        with pytest.raises(pillow_cwic.UnsupportedError, match=f"{pixels} to be decoded"):
            decoding.decode_container(parsed, region=region)
    with pytest.raises(pillow_cwic.UnsupportedError, match="50331648 to be decoded"):
        pillow_cwic.importance_map(container.write(picture(1, 1 << 20).header, [b""] * 1024))


def few_codes() -> int:
    """Bytes of the codes at 80 positions."""
    return 80 * 2 * load().config.channels


@pytest.mark.parametrize("region", [None, (40, 100, 170, 600)])
def test_bands_of_codes_make_the_same_picture(pixels, monkeypatch, region):
    """Codes held for a part of the picture at a time: the same pixels, and no tile twice."""
    high = np.vstack([pixels, pixels[::-1], pixels])  # [660,300,3]
    importance = np.linspace(0, 255, 300 * 660).reshape(660, 300).astype(np.uint8)
    data = encode_in_tiles(np.dstack([high, high[..., 0]]), importance=importance, quality=0.4)
    whole = pillow_cwic.decode(data, region=region)
    parsed = container.read(data)
    monkeypatch.setattr(bands_module, "BAND_BYTES", few_codes())
    box = Box(*(region or (0, 0, 300, 660)))
    divided = Bands.of(parsed.header, load().config, load().decoder.network.halo)
    assert list(divided.stripes(box)) == [box]
    bands = list(divided.bands(box))
    assert len(bands) > 1
    assert [band.upper for band, _ in bands[1:]] == [band.lower for band, _ in bands[:-1]]
    decoded = []
    entropy = load().entropy
    monkeypatch.setattr(
        load().entropy,
        "decode",
        lambda *tile: decoded.append(tile[0]) or type(entropy).decode(entropy, *tile),
    )
    assert_close(pillow_cwic.decode(data, region=region), whole)
    assert 0 < len(decoded) == len(set(decoded))


@pytest.mark.parametrize("region", [None, (40, 30, 700, 31), (100, 0, 101, 200)])
def test_stripes_of_codes_make_the_same_picture(pixels, monkeypatch, region):
    """A wide picture, whose codes are held for a part of its width at a time."""
    wide = np.hstack([pixels, pixels[:, ::-1], pixels])  # [220,900,3]
    data = encode_in_tiles(wide, quality=0.4)
    whole = pillow_cwic.decode(data, region=region)
    monkeypatch.setattr(bands_module, "BAND_BYTES", few_codes())
    box = Box(*(region or (0, 0, 900, 220)))
    header = container.read_header(data)
    divided = Bands.of(header, load().config, load().decoder.network.halo)
    stripes = list(divided.stripes(box))
    assert (len(stripes) > 1) == (box.width > 600)
    assert sum(stripe.width for stripe in stripes) == box.width
    assert_close(pillow_cwic.decode(data, region=region), whole)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_bounded_however_many_cores_there_are(fresh_python):
    """A region of a megapixel in the middle of nine tiles, as with 32 cores: 0.3 GB in all."""
    code = """
from pathlib import Path
import numpy as np, pillow_cwic
from pillow_cwic.format import container
from pillow_cwic.runtime import threads
from pillow_cwic.weights import models
threads.available_cores = lambda: 32
model = models.load(None, "cpu")
codes, level = np.zeros((64, 64, model.config.channels), np.int16), np.zeros((64, 64), np.uint8)
stream = model.entropy.encode(codes, level, 5)
header = container.Header(3072, 3072, 3, False, 5, model.id)
data = container.write(header, [stream] * 9)
pillow_cwic.decode(data, region=(1024, 1024, 2048, 2048))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024)
"""
    assert int(fresh_python(code)) < 3e8 + 3 * 2**20


def test_the_quality_map_of_a_part_is_a_part_of_it(pixels):
    """Offsets read for an area alone are those of the whole map there."""
    importance = np.random.default_rng(3).integers(0, 256, (220, 300), np.uint8)
    parsed = container.read(pillow_cwic.encode(pixels, importance=importance))
    whole = decoding.quality_offsets(parsed)
    for area in (Box(0, 0, 1, 1), Box(3, 2, 10, 14), Box(18, 13, 19, 14), Box(1, 0, 2, 14)):
        assert np.array_equal(decoding.quality_offsets(parsed, area), whole[area.slices])


def test_a_failed_allocation_is_an_error_that_helps(fresh_python):
    """Memory that is not to be had is a CwicError: what was asked for, and what would help."""
    code = """
import resource, pillow_cwic
import numpy as np
from PIL import Image
from pillow_cwic.format import container
from pillow_cwic.weights import models
Image.MAX_IMAGE_PIXELS = None
header = container.Header(40960, 40960, 3, False, 5, models.load(None, "cpu").id)
data = container.write(header, [b""] * header.tile_count)
wide = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (40960, 40960, 3))
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
for call in (lambda: pillow_cwic.decode(data), lambda: pillow_cwic.encode(wide, exact=False)):
    try:
        call()
    except pillow_cwic.CwicError as error:
        print(error)
"""
    decoded, encoded = fresh_python(code).splitlines()
    expected = "not enough memory to decode 40960 x 40960 pixels (Unable to allocate 4.69 GiB"
    assert decoded.startswith(expected)
    assert decoded.endswith(": decode a smaller region")
    assert encoded.startswith("not enough memory to encode 40960 x 40960 pixels")
    assert encoded.endswith(": encode parts of it")


def test_an_unknown_model_is_named():
    """A file of a model that is not here is a WeightsError with its id."""
    data = container.write(container.Header(8, 8, 3, False, 31, "feedfacefeedface"), [b""])
    with pytest.raises(pillow_cwic.WeightsError, match="feedfacefeedface"):
        pillow_cwic.decode(data)


def test_encoding_and_decoding_load_no_torch(data, fresh_python):
    """On the processor both directions, and the importance map, need no PyTorch."""
    code = """
import sys, pillow_cwic
data = bytes.fromhex(sys.argv[1])
pillow_cwic.encode(pillow_cwic.decode(data))
pillow_cwic.importance_map(data)
print("torch" in sys.modules)
"""
    assert fresh_python(code, data.hex()) == "False\n"


def test_the_alpha_of_a_region_takes_no_more_than_it():
    """Of 100 megapixels of alpha in 100 kB, one pixel takes strips of a megabyte."""
    plane = np.full((10_000, 10_000), 77, np.uint8)
    packed = encode_plane(plane)
    del plane
    tracemalloc.start()
    for corner in (0, 9999):
        box = Box(corner, corner, corner + 1, corner + 1)
        assert decode_plane(packed, (10_000, 10_000), "ALPH", box).tolist() == [[77]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(packed) < 200_000
    assert peak < 10e6


@pytest.mark.skipif(available_cores() < 2, reason="needs two processor cores")
def test_the_decoder_is_built_while_codes_are_read():
    """When the codes of a process's first picture are there, so is the network; built once."""
    models.forget()
    model = load()
    with model.building_decoder():
        assert model.halo > 0
    assert "decoder" in model._executions
    built = model.decoder
    with model.building_decoder():
        assert model.decoder is built
