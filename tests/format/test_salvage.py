"""Salvage: what is intact of a damaged container is kept in its place, and every loss is named."""

from dataclasses import replace

import pytest
from container_files import ALPHA, FILE, HEADER, METADATA, MODEL, TILES, TWO, file, head, section

from pillow_cwic.errors import CwicError, UnsupportedError
from pillow_cwic.format import container
from pillow_cwic.format.container import Container, Header, Section


def damaged(*positions: int) -> bytes:
    """FILE with a bit changed at each position."""
    data = bytearray(FILE)
    for position in positions:
        data[position] ^= 0x01
    return bytes(data)


def part(kind: str, index: int = 0) -> Section:
    """Where a section of FILE lies."""
    return [s for s in container.read_header(FILE).sections if s.type == kind][index]


def test_salvage_of_an_intact_file_is_read() -> None:
    """Nothing is lost of a sound file, and no damage is claimed."""
    assert container.salvage(FILE) == container.read(FILE)


def test_salvage_loses_only_the_damaged_tile() -> None:
    """A tile with a wrong checksum is lost, named with row and column.

    All others are kept in place.
    """
    found = container.salvage(damaged(part("TILE", 7).offset + 10))
    assert found.tiles == (*TILES[:7], None, *TILES[8:])
    assert (found.alpha, found.metadata) == (ALPHA, METADATA)
    (sentence,) = found.damage
    assert sentence.startswith(
        "tile 7 of 12 (row 1, column 3): checksum mismatch: section TILE at offset "
    )


def test_salvage_names_lost_alpha_and_metadata() -> None:
    """Damaged alpha and metadata become None, each with a sentence; the tiles are kept."""
    found = container.salvage(
        damaged(*(part(kind).offset + 8 for kind in ("ALPH", "eXIF", "dPIx")))
    )
    assert found.tiles == tuple(TILES)
    assert found.alpha is None
    assert found.metadata == replace(METADATA, exif=None, dpi=None)
    assert [sentence.split(" at ")[0] for sentence in found.damage] == [
        "checksum mismatch: section eXIF",
        "checksum mismatch: section dPIx",
        "alpha: checksum mismatch: section ALPH",
    ]


def test_salvage_of_a_truncated_file_keeps_what_precedes() -> None:
    """A cut loses the tile it meets and those behind it.

    Both the place and the losses are named.
    """
    found = container.salvage(FILE[: part("TILE", 9).end - 1])
    assert found.tiles == (*TILES[:9], None, None, None)
    assert found.damage[0].startswith("the file is cut off at offset ")
    assert found.damage[1].startswith("tiles 9 to 11 of 12: lost")


def test_salvage_of_a_file_cut_before_alpha() -> None:
    """Where nothing but header and metadata is left, alpha and all tiles are named as lost."""
    found = container.salvage(FILE[: part("ALPH").offset])
    assert found == Container(HEADER, (None,) * 12, None, METADATA, found.damage)
    assert found.damage[1].startswith("alpha: lost")
    assert found.damage[2].startswith("tiles 0 to 11 of 12: lost")


def test_salvage_behind_a_destroyed_length() -> None:
    """A destroyed length field loses the rest, as sections can no longer be found."""
    found = container.salvage(damaged(part("TILE", 5).offset + 4))
    assert found.tiles == (*TILES[:5], *[None] * 7)
    assert found.damage[-1].startswith("tiles 5 to 11 of 12: lost")


def test_salvage_never_puts_a_tile_in_a_wrong_place() -> None:
    """A damaged length that swallows exactly the next section shifts no tile.

    What is uncertain is lost.
    """
    header = Header(64 * 6, 64, 1, False, 0, MODEL, tile_size=64)
    tiles = [
        bytes([index] * 52) for index in range(6)
    ]  # sections of 64 bytes: one bit makes one of two
    data = bytearray(container.write(header, tiles))
    assert data[40 + 64 + 7] == 52
    data[40 + 64 + 7] += 64  # tile 1 takes tile 2 in
    assert container.salvage(data).tiles == (tiles[0], None, None, None, None, None)


def test_salvage_keeps_all_tiles_before_trailing_data() -> None:
    """Bytes behind the last tile are named, and lose nothing."""
    found = container.salvage(FILE + b"tail")
    assert (found.tiles, found.alpha) == (tuple(TILES), ALPHA)
    assert found.damage == (
        f"data behind the last tile: expected the end of the file at offset {len(FILE)}",
    )


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x40, 0xFF])
def test_salvage_never_invents(mask: int) -> None:
    """Whatever byte behind HEAD is changed, what salvage gives is what was written or None.

    It says so.
    """
    for position in range(40, len(FILE)):
        data = bytearray(FILE)
        data[position] ^= mask
        found = container.salvage(data)
        assert found.damage
        assert found.header == HEADER
        assert all(
            tile in (None, original) for tile, original in zip(found.tiles, TILES, strict=True)
        )
        assert found.alpha in (None, ALPHA)
        for name, block in vars(METADATA).items():
            assert getattr(found.metadata, name) in (None, block)


def test_salvage_at_every_truncation() -> None:
    """A file cut anywhere behind HEAD gives the whole tiles, in place, and None for the others."""
    ends = [part("TILE", index).end for index in range(12)]
    for length in range(40, len(FILE)):
        whole = sum(end <= length for end in ends)
        assert container.salvage(FILE[:length]).tiles == (*TILES[:whole], *[None] * (12 - whole))


def test_salvage_needs_an_intact_head() -> None:
    """Without an intact HEAD there is nothing to place tiles by.

    The error is the strict reader's.
    """
    for position in range(40):
        with pytest.raises(CwicError):
            container.salvage(damaged(position))


def test_salvage_refuses_what_it_may_not_ignore() -> None:
    """An intact section that this version must know is not damage: it stays unsupported."""
    with pytest.raises(UnsupportedError, match="NEWs"):
        container.salvage(file(head(), section("NEWs", b"x"), TWO))
