"""The container: format version 1 byte for byte, its parts, the header alone, wrong use."""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from container_files import (
    ALPHA,
    FILE,
    GOLDEN,
    HEADER,
    METADATA,
    MODEL,
    TILES,
    TWO,
    Pipe,
    file,
    head,
    section,
)
from places import ROOT

from pillow_cwic.errors import CwicError, FormatError
from pillow_cwic.format import container
from pillow_cwic.format.container import Container, Header, Metadata, Section
from pillow_cwic.runtime.package import package_folder


def test_golden_bytes_are_written() -> None:
    """Version 1 is pinned: these parts make exactly these bytes, for ever."""
    header = Header(width=9, height=8, bands=3, alpha=False, quality_index=31, model_id=MODEL)
    tile = bytes.fromhex("1122334455667788")
    assert container.write(header, [tile], metadata=Metadata(comment=b"hi")).hex(" ") == GOLDEN.hex(
        " "
    )


def test_golden_bytes_are_read() -> None:
    """Version 1 is pinned: these bytes say exactly this, for ever."""
    found = container.read(GOLDEN)
    assert found == Container(
        Header(
            width=9,
            height=8,
            bands=3,
            alpha=False,
            quality_index=31,
            model_id=MODEL,
            tile_size=1024,
            version=1,
        ),
        (bytes.fromhex("1122334455667788"),),
        metadata=Metadata(comment=b"hi"),
    )


def test_format_document_shows_the_golden_file() -> None:
    """The annotated dump in docs/format.md is this file, byte for byte."""
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    dump = text.split("<!-- golden file -->")[1].split("```")[1]
    rows = [line.split("|") for line in dump.splitlines()[2:]]
    shown = b""
    for offset, data, _ in rows:
        assert int(offset) == len(shown)
        shown += bytes.fromhex(data)
    assert shown == GOLDEN


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip_keeps_every_part(kind: Callable[[bytes], Any]) -> None:
    """Header, tiles, alpha and metadata come back byte for byte, from any bytes-like object."""
    assert container.read(kind(FILE)) == Container(HEADER, tuple(TILES), ALPHA, METADATA)


@pytest.mark.parametrize("name", ["icc_profile", "exif", "xmp", "comment"])
@pytest.mark.parametrize(
    "block", [b"", b"\x00", bytes(range(256)) * 300], ids=["empty", "zero", "long"]
)
def test_each_metadata_block_travels_alone(name: str, block: bytes) -> None:
    """One block is kept as it is, empty ones too, and no other appears."""
    metadata = Metadata(**{name: block})
    data = container.write(replace(HEADER, alpha=False), TILES, metadata=metadata)
    assert container.read(data).metadata == metadata


@pytest.mark.parametrize(
    "dpi", [(0.0, 0.0), (300.0, 150.0), (1 / 3, 5e-324), (1.7976931348623157e308, 96.012)]
)
def test_dpi_is_kept_exactly(dpi: tuple[float, float]) -> None:
    """A resolution comes back as the same two doubles."""
    data = container.write(replace(HEADER, alpha=False), TILES, metadata=Metadata(dpi=dpi))
    assert container.read(data).metadata.dpi == dpi


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("tile_size", [64, 512, 1024])
@pytest.mark.parametrize("size", [(1, 1), (64, 65), (100_000, 3), (3, 100_000)])
def test_header_round_trip(mode: str, tile_size: int, size: tuple[int, int]) -> None:
    """Every mode, tile size and dimension that is allowed is written and read back."""
    header = Header(*size, 1 if mode[0] == "L" else 3, mode[-1] == "A", 63, "f" * 16, tile_size)
    tiles = [b"1234"] * header.tile_count
    found = container.read(container.write(header, tiles, b"p" if header.alpha else None))
    assert (found.header, found.header.mode, found.header.size) == (header, mode, size)
    assert len(found.tiles) == -(-size[0] // tile_size) * -(-size[1] // tile_size)


def test_largest_images() -> None:
    """The limits themselves are allowed: 2**24 pixels a side, 2**16 tiles."""
    for header in (
        Header(2**24, 64, 1, False, 0, MODEL, 256),
        Header(1, 2**24, 1, False, 0, MODEL, 1024),
    ):
        assert (
            container.read(container.write(header, [b""] * header.tile_count)).header.size
            == header.size
        )


def test_overhead_of_one_tile() -> None:
    """A one-tile RGB file without metadata costs 52 bytes beyond its stream, of the 64 promised."""
    header = Header(768, 512, 3, False, 30, MODEL)
    data = container.write(header, [bytes(4000)])
    assert len(data) - 4000 == 52 <= 64
    assert container.read_header(data).sections[0].end == 40 <= 64


def test_result_does_not_follow_a_mutable_buffer() -> None:
    """What was checked is what is kept: changing the buffer afterwards changes nothing."""
    data = bytearray(FILE)
    found = container.read(data)
    data[:] = bytes(len(data))
    assert found.tiles == tuple(TILES)
    assert found.alpha == ALPHA


def test_unknown_ancillary_sections_are_skipped() -> None:
    """A section with a lower-case initial may stand anywhere between HEAD and the last tile."""
    one, two = section("TILE", b"aaaa"), section("TILE", b"bbbbbbbb")
    new = [section(kind, b"?" * 5) for kind in ("newX", "abcd", "newX")]
    found = container.read(file(head(), new[0], section("cMNT", b"c"), new[1], one, new[2], two))
    assert found.tiles == (b"aaaa", b"bbbbbbbb")
    assert found.metadata == Metadata(comment=b"c")


def test_metadata_may_come_in_any_order() -> None:
    """A reader takes metadata sections in any order, all of them before alpha."""
    pairs = [
        ("cMNT", b"c"),
        ("dPIx", struct.pack(">2d", 1, 2)),
        ("xMPm", b"x"),
        ("eXIF", b"e"),
        ("iCCP", b"i"),
    ]
    sections = [section(*pair) for pair in pairs]
    found = container.read(file(head(flags=2), *sections, section("ALPH", b"p"), TWO))
    assert found.metadata == Metadata(b"i", b"e", b"x", (1.0, 2.0), b"c")
    assert found.alpha == b"p"


def test_headers_with_different_sections_are_equal() -> None:
    """Where sections lie is not part of what a header says: equality and hash leave it out."""
    listed = replace(HEADER, sections=(Section("HEAD", 8, 20),))
    assert listed == HEADER
    assert len({listed, HEADER, replace(HEADER, quality_index=20)}) == 2


def test_importing_the_container_loads_no_framework(fresh_python: Callable[..., str]) -> None:
    """The container needs the standard library only: no torch, PIL or numpy comes with it."""
    package = str(package_folder())
    code = f"""
import sys, types
# Without the package's own __init__, which registers with Pillow.
bare = types.ModuleType("pillow_cwic")
bare.__path__ = [{package!r}]
sys.modules["pillow_cwic"] = bare
import pillow_cwic.format.container
print(sorted({{"torch", "PIL", "numpy", "constriction", "safetensors"}} & set(sys.modules)))
"""
    assert fresh_python(code).strip() == "[]"


# --- the header alone -----------------------------------------------------------------------------

LAYOUT = [
    ("HEAD", 20),
    ("iCCP", 8),
    ("eXIF", 10),
    ("xMPm", 12),
    ("dPIx", 16),
    ("cMNT", 5),
    ("ALPH", len(ALPHA)),
]


@pytest.mark.parametrize(
    "how", ["bytes", "bytearray", "memoryview", "str", "Path", "file", "BytesIO", "pipe"]
)
def test_read_header_takes_anything(how: str, tmp_path: Path) -> None:
    """Bytes, paths, seekable files and mere streams give the same header and list of sections."""
    path = tmp_path / "x.cwic"
    path.write_bytes(FILE)
    ways: dict[str, Callable[[], Any]] = {
        "bytes": lambda: FILE,
        "bytearray": lambda: bytearray(FILE),
        "memoryview": lambda: memoryview(FILE),
        "str": lambda: str(path),
        "Path": lambda: path,
        "file": lambda: path.open("rb"),
        "BytesIO": lambda: io.BytesIO(FILE),
        "pipe": lambda: Pipe(FILE),
    }
    source = ways[how]()
    found = container.read_header(source)
    if how == "file":
        source.close()
    assert found == HEADER
    assert found.metadata == METADATA
    assert [(s.type, s.length) for s in found.sections] == LAYOUT + [
        ("TILE", len(tile)) for tile in TILES
    ]
    assert found.sections[0].offset == 8
    assert [s.end for s in found.sections] == [s.offset for s in found.sections[1:]] + [len(FILE)]


def test_read_header_starts_where_the_file_stands() -> None:
    """A .cwic inside another file is read from the file's position; offsets count from there."""
    inside = io.BytesIO(b"prefix" + FILE)
    inside.seek(6)
    assert container.read_header(inside).sections == container.read_header(FILE).sections


class Counting(io.BytesIO):
    """A seekable file that counts the bytes read."""

    taken = 0

    def read(self, count: int | None = -1, /) -> bytes:
        """The next bytes, counted."""
        part = super().read(count)
        self.taken += len(part)
        return part


def test_read_header_reads_no_payload_but_metadata() -> None:
    """Of a seekable file: signature, HEAD, metadata, and eight bytes of each further section."""
    source = Counting(container.write(HEADER, [bytes(40_000)] * 12, bytes(10_000), METADATA))
    container.read_header(source)
    metadata = sum(8 + length + 4 for _, length in LAYOUT[1:-1])
    assert source.taken == 8 + 32 + metadata + 8 * (1 + 12)


def test_read_header_checks_the_metadata() -> None:
    """A changed byte in any metadata payload or its checksum is an error that names the section."""
    for part in container.read_header(FILE).sections[1:6]:
        for position in range(part.offset + 8, part.end):
            data = bytearray(FILE)
            data[position] ^= 0x10
            with pytest.raises(FormatError, match=f"section {part.type} at offset {part.offset}"):
                container.read_header(data)


@pytest.mark.parametrize("make", [io.BytesIO, Pipe])
def test_read_preamble_is_header_and_metadata(make: Callable[[bytes], Any]) -> None:
    """The preamble is the header and all metadata, whatever state the tiles are in."""
    found = container.read_preamble(make(FILE))
    assert (found, found.metadata) == (HEADER, METADATA)
    cut = container.read_header(FILE).sections[8].offset  # behind the first tile
    padding = bytes(12 * 12)  # there must be room for the tiles that HEAD promises
    found = container.read_preamble(make(FILE[:cut] + padding))
    assert (found, found.metadata) == (HEADER, METADATA)


def test_read_preamble_takes_only_the_preamble() -> None:
    """Not a byte behind the type and length of the first alpha or tile section is read."""
    pipe = Pipe(FILE)
    container.read_preamble(pipe)
    assert pipe.taken == container.read_header(FILE).sections[6].offset + 8


def test_read_preamble_checks_what_it_reads() -> None:
    """A change anywhere before the alpha section is an error at opening."""
    for position in range(container.read_header(FILE).sections[6].offset + 4):
        data = bytearray(FILE)
        data[position] ^= 0x04
        with pytest.raises(CwicError):
            container.read_preamble(io.BytesIO(data))


def test_read_preamble_minds_the_order() -> None:
    """The section that ends the preamble must be the one that HEAD announces."""
    for data in (file(head(flags=2), TWO), file(head(), section("ALPH", b"p"), TWO)):
        with pytest.raises(FormatError, match=r"section (TILE|ALPH) at offset 40: expected"):
            container.read_preamble(io.BytesIO(data))


def test_wrong_kinds_of_source_are_type_errors(tmp_path: Path) -> None:
    """A number or a text file is the caller's mistake, not a malformed file."""
    with pytest.raises(TypeError, match="expected bytes, a path or a binary file, found int"):
        container.read_header(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a file opened in binary mode"):
        container.read_header(io.StringIO("x" * 99))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        container.read_header(tmp_path / "missing.cwic")


# --- wrong use of write ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be an integer in 1..16777216, found 0"),
        ({"height": 2**24 + 1}, "height must be an integer in 1..16777216, found 16777217"),
        ({"width": 1.5}, "width must be an integer in 1..16777216, found 1.5"),
        ({"bands": 2}, r"bands must be 1 \(grey\) or 3 \(RGB\), found 2"),
        ({"alpha": 1}, "alpha must be True or False, found 1"),
        ({"quality_index": 64}, "quality_index must be an integer in 0..63, found 64"),
        ({"quality_index": -1}, "quality_index must be an integer in 0..63, found -1"),
        ({"model_id": "0123"}, "model_id must be 16 lower-case hex digits, found '0123'"),
        ({"model_id": "0123456789ABCDEF"}, "model_id must be 16 lower-case hex digits"),
        ({"model_id": "0123456789abcdef\n"}, "model_id must be 16 lower-case hex digits"),
        ({"tile_size": 32}, "tile_size must be an integer in 64..1024, found 32"),
        ({"tile_size": 1000}, "tile_size must be a power of two, found 1000"),
        ({"version": 2}, "version must be an integer in 1..1, found 2"),
        ({"width": 2**24, "height": 65}, "make 524288 tiles of 64; expected at most 65536"),
    ],
)
def test_wrong_headers_are_value_errors(change: dict[str, Any], message: str) -> None:
    """A header that no file can have is refused where it is made, with field, range and value."""
    with pytest.raises(ValueError, match=message):
        replace(HEADER, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiles": TILES[1:]}, "200 x 130 pixels need 12 tiles, found 11"),
        ({"tiles": [b"abc", *TILES[1:]]}, "tile 0 has 3 bytes, expected a multiple of 4"),
        ({"alpha": None}, "the header announces alpha: True, but it is missing"),
        (
            {"header": replace(HEADER, alpha=False)},
            "the header announces alpha: False, but it is given",
        ),
        (
            {"metadata": Metadata(dpi=(72.0, float("inf")))},
            "dpi must be two finite numbers from 0 up",
        ),
        ({"metadata": Metadata(dpi=(-1.0, 72.0))}, "dpi must be two finite numbers from 0 up"),
        (
            {"metadata": Metadata(exif=bytes(2**26 + 1))},
            "exif has 67108865 bytes; at most 67108864 may be stored",
        ),
    ],
)
def test_parts_that_do_not_fit_are_value_errors(change: dict[str, Any], message: str) -> None:
    """write() refuses parts that would make a file it could not read."""
    parts = {"header": HEADER, "tiles": TILES, "alpha": ALPHA, "metadata": METADATA} | change
    with pytest.raises(ValueError, match=message):
        container.write(**parts)


def test_a_quality_map_comes_back_byte_for_byte() -> None:
    """QMAP is kept exactly, is announced by HEAD, and stands before alpha.

    Every cut and flip of it is noticed.
    """
    header = replace(HEADER, has_quality_map=True)
    data = container.write(header, TILES, ALPHA, METADATA, b"a quality map")
    found = container.read(data)
    assert found == Container(header, tuple(TILES), ALPHA, METADATA, quality_map=b"a quality map")
    section = next(s for s in container.read_header(data).sections if s.type == "QMAP")
    for at in range(section.offset, section.end):
        with pytest.raises(CwicError):
            container.read(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
    with pytest.raises(CwicError, match="expected section QMAP before the first tile"):
        container.read(data[: section.offset] + data[section.end :])


def test_a_quality_map_and_its_announcement_go_together() -> None:
    """write() refuses one without the other."""
    with pytest.raises(ValueError, match="announces quality_map: True, but it is missing"):
        container.write(replace(HEADER, has_quality_map=True), TILES, ALPHA)
    with pytest.raises(ValueError, match="announces quality_map: False, but it is given"):
        container.write(HEADER, TILES, ALPHA, quality_map=b"p")
