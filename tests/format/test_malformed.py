"""Every way for a container to be malformed.

Each is refused with an error that names the section, at no cost.
"""

import io
import random
import struct
import time
import tracemalloc

import pytest
from container_files import FILE, GOLDEN, TWO, Pipe, file, head, scramble, section

from pillow_cwic.errors import CwicError, FormatError, UnsupportedError
from pillow_cwic.format import container
from pillow_cwic.format.container import Container

DPI = struct.pack(">2d", 72, 72)

MALFORMED = {
    "empty": (b"", "not a .cwic file: it ends after 0 bytes"),
    "signature_cut": (GOLDEN[:5], "not a .cwic file: it ends after 5 bytes, within the signature"),
    "other_format": (
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        "not a .cwic file: it starts with 89 50 4e 47",
    ),
    "head_missing": (file(TWO), "section TILE at offset 8: expected section HEAD"),
    "nothing_behind_signature": (
        file(),
        "cut off at offset 8: a section of 12 bytes or more is due",
    ),
    "head_too_short": (file(section("HEAD", b"\x01" * 19), TWO), "its length is 19, expected 20"),
    "head_too_long": (file(section("HEAD", b"\x01" * 21), TWO), "its length is 21, expected 20"),
    "head_beyond_64_bytes": (
        file(section("HEAD", b"\x02" * 45), TWO),
        "its length is 45, expected 20",
    ),
    "head_empty": (file(section("HEAD"), TWO), "its length is 0, expected 20"),
    "head_checksum": (
        GOLDEN[:16] + b"\x02" + GOLDEN[17:],
        "checksum mismatch: section HEAD at offset 8",
    ),
    "head_twice": (file(head(), head(), TWO), "section HEAD at offset 40: a second HEAD"),
    "quality_64": (
        file(head(quality=64), TWO),
        "quality_index must be an integer in 0..63, found 64",
    ),
    "tile_size_32": (file(head(log2_tile=5), TWO), "log2 of the tile size is 5, expected 6..10"),
    "tile_size_2048": (
        file(head(log2_tile=11), TWO),
        "log2 of the tile size is 11, expected 6..10",
    ),
    "lossless_without_exact_blocks": (
        file(head(flags=16), TWO),
        "lossless is True, but has_exact_blocks is False",
    ),
    "width_0": (file(head(width=0), TWO), "width must be an integer in 1..16777216, found 0"),
    "height_0": (file(head(height=0), TWO), "height must be an integer in 1..16777216, found 0"),
    "width_huge": (
        file(head(width=2**24 + 1), TWO),
        "width must be an integer in 1..16777216, found 16777217",
    ),
    "height_huge": (
        file(head(height=2**32 - 1), TWO),
        "height must be an integer in 1..16777216, found 4294967295",
    ),
    "too_many_tiles": (
        file(head(width=2**24, height=65), TWO),
        "make 524288 tiles of 64; expected at most 65536",
    ),
    "no_room_for_tiles": (
        file(head(width=2**22), TWO),
        "in 65536 tiles take 786432 bytes or more, the file has only 36 left",
    ),
    "type_not_letters": (
        file(head(), section(b"cMN7", b"x"), TWO),
        "section at offset 40: its type is 63 4d 4e 37",
    ),
    "type_not_ascii": (
        file(head(), section(b"\xe9MNT", b"x"), TWO),
        "section at offset 40: its type is e9 4d 4e 54",
    ),
    "comment_twice": (
        file(head(), section("cMNT") * 2, TWO),
        "section cMNT at offset 52: a second cMNT",
    ),
    "icc_twice": (
        file(head(), section("iCCP") * 2, TWO),
        "section iCCP at offset 52: a second iCCP",
    ),
    "exif_twice": (
        file(head(), section("eXIF") * 2, TWO),
        "section eXIF at offset 52: a second eXIF",
    ),
    "xmp_twice": (
        file(head(), section("xMPm") * 2, TWO),
        "section xMPm at offset 52: a second xMPm",
    ),
    "dpi_twice": (
        file(head(), section("dPIx", DPI) * 2, TWO),
        "section dPIx at offset 68: a second dPIx",
    ),
    "dpi_length": (
        file(head(), section("dPIx", DPI[1:]), TWO),
        "section dPIx at offset 40: its length is 15, expected 16",
    ),
    "dpi_nan": (
        file(head(), section("dPIx", struct.pack(">2d", 72, float("nan"))), TWO),
        "the resolution is 72.0 x nan",
    ),
    "dpi_negative": (
        file(head(), section("dPIx", struct.pack(">2d", -1, 1)), TWO),
        "the resolution is -1.0 x 1.0",
    ),
    "metadata_too_long": (
        file(head(), section("eXIF", bytes(2**26 + 1)), TWO),
        "eXIF at offset 40: its length is 67108865, expected at most 67108864",
    ),
    "metadata_checksum": (
        file(head(), section("cMNT", b"a").replace(b"a", b"b"), TWO),
        "checksum mismatch: section cMNT at offset 40",
    ),
    "unknown_ancillary_checksum": (
        file(head(), section("newX", b"a").replace(b"a", b"b"), TWO),
        "checksum mismatch: section newX at offset 40",
    ),
    "unknown_critical_checksum": (
        file(head(), section("NEWX", b"a").replace(b"a", b"b"), TWO),
        "checksum mismatch: section NEWX at offset 40",
    ),
    "too_many_ancillary": (
        file(head(), section("newX") * 1025, TWO),
        "section newX at offset 12328: expected at most 1024 ancillary sections",
    ),
    "metadata_behind_alpha": (
        file(head(flags=2), section("ALPH", b"p"), section("cMNT"), TWO),
        "section cMNT at offset 53: found behind section ALPH",
    ),
    "metadata_behind_tile": (
        file(head(), TWO[:16], section("cMNT"), TWO[16:]),
        "section cMNT at offset 56: found behind the first tile",
    ),
    "alpha_behind_tile": (
        file(head(flags=2), TWO[:16], section("ALPH", b"p"), TWO[16:]),
        "section TILE at offset 40: expected section ALPH before the first tile",
    ),
    "alpha_missing": (
        file(head(flags=2), TWO),
        "section TILE at offset 40: expected section ALPH before the first tile",
    ),
    "alpha_unannounced": (
        file(head(), section("ALPH", b"p"), TWO),
        "section ALPH at offset 40: expected none, as HEAD does not announce it",
    ),
    "quality_map_missing": (
        file(head(flags=4), TWO),
        "section TILE at offset 40: expected section QMAP before the first tile",
    ),
    "quality_map_unannounced": (
        file(head(), section("QMAP", b"p"), TWO),
        "section QMAP at offset 40: expected none, as HEAD does not announce it",
    ),
    "alpha_twice": (
        file(head(flags=2), section("ALPH", b"p") * 2, TWO),
        "section ALPH at offset 53: a second ALPH",
    ),
    "alpha_checksum": (
        file(head(flags=2), section("ALPH", b"p").replace(b"p", b"q"), TWO),
        "alpha: checksum mismatch: section ALPH at offset 40",
    ),
    "tile_checksum": (
        file(head(), TWO.replace(b"bb", b"cc")),
        "tile 1 of 2 (row 0, column 1): checksum mismatch: section TILE at offset 56",
    ),
    "tile_not_words": (
        file(head(), TWO[:16], section("TILE", b"b" * 7)),
        "tile 1 of 2 (row 0, column 1): section TILE at offset 56 has 7 bytes, "
        "expected a multiple of 4",
    ),
    "tile_missing": (
        file(head(), section("TILE", b"a" * 16)),
        "cut off at offset 68: a section of 12 bytes or more is due at offset 68; "
        "1 of 2 tiles precede it",
    ),
    "tile_too_many": (
        file(head(), TWO, section("TILE")),
        "data behind the last tile: expected the end of the file at offset 76",
    ),
    "ancillary_at_the_end": (
        file(head(), TWO, section("newX")),
        "data behind the last tile: expected the end of the file at offset 76",
    ),
    "one_byte_too_many": (file(head(), TWO, b"\x00"), "data behind the last tile"),
    "payload_cut": (
        file(head(), TWO)[:-5],
        "cut off at offset 71: section TILE at offset 56 of 8 bytes needs 5 more",
    ),
    "length_beyond_file": (
        file(head(), b"TILE\xff\xff\xff\xfc", bytes(40)),
        "section TILE at offset 40 of 4294967292 bytes needs",
    ),
}
UNSUPPORTED = {
    "version_2": (
        file(head(version=2), TWO),
        "HEAD at offset 8: the file has format version 2, this reader knows version 1",
    ),
    "version_2_longer_head": (file(section("HEAD", b"\x02" * 40), TWO), "has format version 2"),
    "version_0": (file(head(version=0), TWO), "has format version 0, this reader knows version 1"),
    "unknown_flag": (file(head(flags=33), TWO), "HEAD at offset 8: flags are 0b00100001"),
    "unknown_critical": (
        file(head(), section("NEWs", b"x"), TWO),
        "section NEWs at offset 40: unknown critical section",
    ),
}
REFUSED = {
    **{name: (data, FormatError, message) for name, (data, message) in MALFORMED.items()},
    **{name: (data, UnsupportedError, message) for name, (data, message) in UNSUPPORTED.items()},
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed(name: str) -> None:
    """Each way to be malformed is refused with its error, which names the section and the fault."""
    data, error, message = REFUSED[name]
    with pytest.raises(error) as caught:
        container.read(data)
    assert type(caught.value) is error
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "damaged",
    [
        GOLDEN.replace(b"\r\n", b"\n"),
        GOLDEN.replace(b"\n", b"\r\n"),
        GOLDEN.replace(b"\r", b"\n"),
        bytes(byte & 0x7F for byte in GOLDEN),
        GOLDEN.decode("latin-1").encode(),
        GOLDEN.decode(errors="replace").encode(),
    ],
    ids=[
        "CRLF to LF",
        "LF to CRLF",
        "CR to LF",
        "7 bits",
        "Latin-1 to UTF-8",
        "UTF-8 with replacement",
    ],
)
def test_transfer_as_text_is_recognized(damaged: bytes) -> None:
    """A file that a transfer as text damaged is told from one that never was a .cwic."""
    with pytest.raises(FormatError, match=r"not a \.cwic file.*transfer as text.*binary mode"):
        container.read(damaged)


def test_other_files_get_no_hint_at_a_transfer() -> None:
    """A file that never was a .cwic is only said not to be one."""
    with pytest.raises(FormatError) as caught:
        container.read(b"\xff\xd8\xff\xe0" + bytes(20))
    expected = (
        "not a .cwic file: it starts with ff d8 ff e0 00 00 00 00, expected 89 43 57 49 43 0d 0a 1a"
    )
    assert str(caught.value) == expected


def test_every_truncation_is_refused() -> None:
    """A file cut anywhere is an error, whoever reads it to the end."""
    for length in range(len(FILE)):
        with pytest.raises(FormatError):
            container.read(FILE[:length])
        with pytest.raises(FormatError):
            container.read_header(FILE[:length])


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(mask: int) -> None:
    """A change in any byte of a file is an error, never another content."""
    for position in range(len(FILE)):
        data = bytearray(FILE)
        data[position] ^= mask
        with pytest.raises(CwicError):
            container.read(data)


def test_scrambled_files_raise_nothing_but_cwic_errors() -> None:
    """Whatever is done to a file, reading it gives a consistent container or a CwicError."""
    chance, refused, read = random.Random(170310553), 0, 0
    for _ in range(3000):
        data = scramble(FILE, chance)
        for reader in (container.read, container.salvage, container.read_header):
            try:
                found = reader(data)
            except CwicError:
                refused += 1
                continue
            read += 1
            if isinstance(found, Container):
                assert len(found.tiles) == found.header.tile_count
                assert (None in found.tiles) <= bool(found.damage)
        try:
            container.read_preamble(io.BytesIO(data))
        except CwicError:
            refused += 1
    assert refused > 500
    assert read > 500


@pytest.mark.parametrize(
    "header",
    [
        head(width=2**24, height=2**24, log2_tile=10),
        head(width=2**24, height=2**22, log2_tile=10),
        head(width=2**24, height=2**20, log2_tile=10),
        head(width=2**32 - 1, height=2**32 - 1),
        head(width=0, height=5),
    ],
    ids=["2^24 square", "2^24 x 2^22", "2^24 x 2^20", "2^32 square", "0 x 5"],
)
def test_absurd_dimensions_cost_nothing(header: bytes) -> None:
    """A small file with absurd dimensions fails within a second and 100 kB, whoever reads it."""
    data = file(header, TWO)
    tracemalloc.start()
    begin = time.perf_counter()
    for reader in (
        container.read,
        container.read_header,
        lambda data: container.read_preamble(io.BytesIO(data)),
    ):
        with pytest.raises(FormatError, match="HEAD at offset 8"):
            reader(data)
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 100_000


@pytest.mark.parametrize("kind", ["cMNT", "TILE", "newX"])
def test_lying_length_in_a_stream_costs_nothing(kind: str) -> None:
    """Where the file's size is unknown, memory still follows the bytes, not the length field."""
    length = 2**26 if kind == "cMNT" else 2**32 - 4
    data = file(head(), kind.encode() + struct.pack(">I", length) + bytes(100))
    tracemalloc.start()
    for reader in (container.read_header, container.read_preamble):
        if (kind, reader) != ("TILE", container.read_preamble):  # which stops before the tile
            pipe = Pipe(data)
            with pytest.raises(
                FormatError, match=f"section {kind} at offset 40 of {length} bytes needs"
            ):
                reader(pipe)
            assert pipe.largest <= 2**20  # some streams allocate what they are asked for
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "name", [n for n in REFUSED if not n.endswith(("checksum", "nan", "negative"))]
)
def test_read_header_refuses_a_malformed_frame(name: str) -> None:
    """What can be seen without payloads is refused by read_header with the same error.

    Seekable or not.
    """
    data, error, message = REFUSED[name]
    with pytest.raises(error) as caught:
        container.read_header(data)
    assert message in str(caught.value)
    with pytest.raises(error):
        container.read_header(Pipe(data, 2**16))
