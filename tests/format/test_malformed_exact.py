"""Every way for a tile with exact blocks to be malformed: a FormatError, and nothing is made."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

import pillow_cwic
from pillow_cwic import FormatError
from pillow_cwic.format import container
from pillow_cwic.format.exact_tile import unpack_tile
from pillow_cwic.format.lossless_picture import PNG, WEBP, LosslessPicture, decode_lossless

SHAPE = (3, 5)
SOME = zlib.compress(bytes([0b10100000, 0b00000010]))
PICTURE = b"picture!"


def tile(
    number: int = 1,
    packed: bytes = SOME,
    picture: bytes = PICTURE,
    stream: bytes = b"word",
    reserved: int = 0,
) -> bytes:
    """A tile's payload, sound or not."""
    layer = struct.pack(">BBHI", number, reserved, len(packed), len(picture)) + packed + picture
    return layer + bytes(-len(layer) % 4) + stream


def test_the_sound_one_is_read():
    """What the malformed ones differ from."""
    found = unpack_tile(tile(), SHAPE)
    assert found.exact.ravel().nonzero()[0].tolist() == [0, 2, 14]
    assert (found.picture, found.stream) == (LosslessPicture(PNG, PICTURE), b"word")


MALFORMED = {
    "empty": (b"", "0 bytes, expected 8 or more"),
    "start_cut": (tile()[:7], "7 bytes, expected 8 or more"),
    "reserved": (tile(reserved=1), "the reserved byte is 1"),
    "format_3": (tile(3), r"lossless format 3, this reader knows 1 \(PNG\) and 2 \(WEBP\)"),
    "map_beyond_the_tile": (struct.pack(">BBHI", 1, 0, 65535, 0), "need 65536 more than"),
    "picture_beyond_the_tile": (struct.pack(">BBHI", 2, 0, 0, 2**32 - 1), "need 4294967296 more"),
    "filling": (tile(packed=SOME + b"x")[:27].ljust(28, b"\x01"), "that fill a word are not 0"),
    "map_without_format": (tile(0, picture=b""), "none announced, but a map"),
    "picture_without_format": (tile(0, packed=b""), "none announced, but a map or a picture"),
    "map_not_deflated": (tile(packed=b"no zlib!"), "the map is damaged"),
    "map_cut": (tile(packed=SOME[:-1]), "has not the 2 bytes of 5 x 3 blocks"),
    "map_checksum": (tile(packed=SOME[:-1] + b"\x00"), "the map is damaged"),
    "map_short": (tile(packed=zlib.compress(b"\xa0")), "has not the 2 bytes"),
    "map_long": (tile(packed=zlib.compress(b"\xa0\x00\x00")), "has not the 2 bytes"),
    "map_bomb": (tile(packed=zlib.compress(bytes(2**22))), "has not the 2 bytes"),
    "map_and_more": (tile(packed=SOME + b"x"), "has not the 2 bytes"),
    "map_behind_the_end": (tile(packed=zlib.compress(b"\xa0\x01")), "bits behind the map"),
    "map_of_all": (tile(packed=zlib.compress(b"\xff\xfe")), "says none or all"),
    "map_of_none": (tile(packed=zlib.compress(b"\x00\x00")), "says none or all"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tile(name):
    """Each way to be malformed is refused with its own words."""
    payload, message = MALFORMED[name]
    with pytest.raises(FormatError, match=f"exact blocks: .*{message}"):
        unpack_tile(payload, SHAPE)


def picture_file(kind: str, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options) -> bytes:
    """A picture as another program may write it."""
    file = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 4)).astype(np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


SOUND_PNG = picture_file("PNG")
SOUND_WEBP = picture_file("WEBP", lossless=True)


def with_chunks(*chunks: tuple[bytes, bytes], head: bytes = b"") -> bytes:
    """The sound PNG file with chunks behind its IHDR, or another payload of that."""
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head or SOUND_PNG[16:29]), *chunks)
    )
    return SOUND_PNG[:8] + b"".join(framed) + SOUND_PNG[33:]


def with_rows(rows: bytes) -> bytes:
    """A PNG file of 6 x 4 pixels with these rows."""
    return with_chunks((b"IDAT", zlib.compress(rows)), (b"IEND", b""))


BOMB = with_chunks(head=struct.pack(">II", 60000, 60000) + SOUND_PNG[24:29])
INTERLACED = with_chunks(head=SOUND_PNG[16:28] + b"\x01")
ROWS = bytes(4 * (1 + 3 * 6))
ANIMATION = (
    (b"acTL", struct.pack(">II", 2, 0)),
    (b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0)),
)
PICTURES = {
    "png_other_size": (
        PNG,
        picture_file("PNG", size=(6, 5)),
        "it has 6 x 5 pixels, 8 bits, .* expected 6 x 4",
    ),
    "png_bomb": (PNG, BOMB, "it has 60000 x 60000 pixels, .* expected 6 x 4"),
    "png_grey": (PNG, picture_file("PNG", "L"), "8 bits, colour type 0, interlaced 0"),
    "png_palette": (PNG, picture_file("PNG", "P"), "8 bits, colour type 3, interlaced 0"),
    "png_interlaced": (PNG, INTERLACED, "interlaced 1"),
    "png_cut": (PNG, SOUND_PNG[:-40], "it is cut off in the chunk"),
    "png_start_cut": (PNG, SOUND_PNG[:20], "it is cut off in the chunk at byte 8"),
    "png_checksum": (PNG, SOUND_PNG[:-20] + bytes(8) + SOUND_PNG[-12:], "a wrong checksum"),
    "png_rows_missing": (PNG, with_rows(ROWS[:-19]), "its data end before row 4"),
    "png_rows_too_many": (PNG, with_rows(ROWS + bytes(19)), "more rows than its height"),
    "png_filter": (PNG, with_rows(b"\x09" + ROWS[1:]), "not a readable PNG file"),
    "png_critical_chunk": (PNG, with_chunks((b"ABCD", b"")), "that is RGB has no chunk b'ABCD'"),
    "png_is_webp": (PNG, SOUND_WEBP, "does not start with PNG's signature"),
    "webp_other_size": (
        WEBP,
        picture_file("WEBP", size=(5, 4), lossless=True),
        "it has 5 x 4 pixels, expected 6 x 4",
    ),
    "webp_alpha": (
        WEBP,
        picture_file("WEBP", "RGBA", lossless=True, exact=True),
        "it announces alpha",
    ),
    "webp_lossy": (WEBP, picture_file("WEBP"), "simple lossless kind"),
    "webp_extended": (
        WEBP,
        picture_file("WEBP", lossless=True, icc_profile=b"x" * 200),
        "simple lossless kind",
    ),
    "webp_cut": (WEBP, SOUND_WEBP[:-6], "its lengths are"),
    "webp_longer": (WEBP, SOUND_WEBP + b"xx", "its lengths are"),
    "webp_damaged": (
        WEBP,
        SOUND_WEBP[:26] + b"\xff" * (len(SOUND_WEBP) - 26),
        "not a readable WEBP file",
    ),
    "webp_start_cut": (WEBP, SOUND_WEBP[:9], "it ends after 9 bytes"),
    "webp_is_png": (WEBP, SOUND_PNG, "simple lossless kind"),
    "empty": (WEBP, b"", "it ends after 0 bytes"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_malformed_picture(name):
    """Each is refused by what it declares, or by its decoder; nothing large is made."""
    number, data, message = PICTURES[name]
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        decode_lossless(LosslessPicture(number, data), (6, 4), 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_pillows_switch_for_damage_changes_nothing(name, tolerant, monkeypatch):
    """LOAD_TRUNCATED_IMAGES is for whole files: a tile's picture is sound, or there is none."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    number, data, message = PICTURES[name]
    with pytest.raises(FormatError, match=message):
        decode_lossless(LosslessPicture(number, data), (6, 4), 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "chunks",
    [
        ANIMATION[:1],
        ANIMATION,
        [(b"acTL", b"")],
        [(b"tRNS", bytes(6))],
        [(b"gAMA", struct.pack(">I", 20000))],
        [(b"PLTE", bytes(768))],
        [(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 24)))],
        [(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24)))],
        [(b"eXIf", b"II*\0"), (b"pHYs", bytes(9)), (b"abCd", b"")],
    ],
)
def test_chunks_that_make_no_pixels_change_nothing(chunks):
    """Animations, colours, texts: the samples as they are, no warning, no memory."""
    expected = np.asarray(Image.open(io.BytesIO(SOUND_PNG)))
    tracemalloc.start()
    pixels = decode_lossless(LosslessPicture(PNG, with_chunks(*chunks)), (6, 4), 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(pixels, expected)
    assert peak < 1_000_000


def test_an_error_names_the_tile():
    """A picture of another size than its tile's, in a whole file."""
    parsed = container.read(pillow_cwic.encode(np.zeros((20, 30, 3), np.uint8), lossless=True))
    forged = tile(2, packed=b"", picture=picture_file("WEBP", lossless=True), stream=b"")
    with pytest.raises(FormatError, match=r"tile 0 of 1: the lossless picture is not .* 6 x 4"):
        pillow_cwic.decode(container.write(parsed.header, [forged]))


def test_forged_tiles_raise_nothing_but_format_errors():
    """Bytes changed under a right checksum: a FormatError, or some picture, but nothing else."""
    picture = np.random.default_rng(4).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    parsed = container.read(pillow_cwic.encode(picture, lossless=True))
    chance = random.Random(6)
    refused = 0
    for _ in range(300):
        forged = bytearray(parsed.tiles[0])
        for _ in range(chance.randint(1, 3)):
            forged[chance.randrange(chance.choice([8, 40, len(forged)]))] = chance.randrange(256)
        try:
            shown = pillow_cwic.decode(container.write(parsed.header, [bytes(forged)]))
            assert shown.shape == picture.shape
        except FormatError as error:
            refused += str(error).startswith("tile 0 of 1: ")
    assert refused > 100
