"""The container: bytes <-> header, metadata, alpha and tiles (docs/format.md, sections 1 to 4).

Invariant: whatever the bytes are, reading gives back what was written or raises a CwicError that
names the section; nothing is allocated on the word of a length or dimension that the file is too
small for. Payloads are opaque here: this module knows no model, no entropy coder and no pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NoReturn

from ..errors import FormatError
from .framing import (
    SIGNATURE,
    Buffer,
    DataOrFile,
    File,
    Memory,
    Payload,
    Section,
    open_source,
    pack,
)
from .header import Header, check_room, pack_header, read_header_section
from .metadata import NO_METADATA, Metadata, pack_metadata, unpack_dpi
from .metadata import SECTIONS as METADATA_SECTIONS
from .walk import Walk

__all__ = [
    "SIGNATURE",
    "Container",
    "Header",
    "Metadata",
    "Section",
    "read",
    "read_header",
    "read_preamble",
    "salvage",
    "write",
]

# What is kept; other payloads are only checked.
_PAYLOADS = (*METADATA_SECTIONS, "QMAP", "ALPH", "TILE")


CHECKED_BYTES = 1 << 16
"""Sections that nobody asked for are checked at opening up to this length."""


@dataclass(frozen=True)
class Container:
    """A whole file; what salvage() could not read is None, with a sentence per loss in `damage`."""

    header: Header
    tiles: tuple[Payload | None, ...]  # row-major, each a multiple of 4 bytes long
    alpha: Payload | None = None  # a PNG file
    metadata: Metadata = NO_METADATA
    damage: tuple[str, ...] = ()
    quality_map: Payload | None = None  # a PNG file; None: one quality everywhere


def write(
    header: Header,
    tiles: Sequence[Buffer],
    alpha: Buffer | None = None,
    metadata: Metadata = NO_METADATA,
    quality_map: Buffer | None = None,
) -> bytes:
    """The bytes of a file.

    tiles: range-coded streams, row-major, header.tile_count of them, each a multiple of 4 bytes;
    alpha: a PNG file, given exactly if header.alpha; quality_map: a PNG file, given exactly if
    header.has_quality_map. Raises ValueError where the parts do not fit each other or break a
    limit.
    """
    # A header that says something else than the parts would make a file that nobody reads.
    if len(tiles) != header.tile_count:
        raise ValueError(
            f"{header.width} x {header.height} pixels need {header.tile_count} tiles, found "
            f"{len(tiles)}"
        )
    for name, flag, plane in (
        ("alpha", header.alpha, alpha),
        ("quality_map", header.has_quality_map, quality_map),
    ):
        if flag != (plane is not None):
            raise ValueError(
                f"the header announces {name}: {flag}, but it is {'missing' if flag else 'given'}"
            )

    # In the order of the format.
    parts = [SIGNATURE, pack("HEAD", pack_header(header)), *pack_metadata(metadata)]
    if quality_map is not None:
        parts.append(pack("QMAP", quality_map))
    if alpha is not None:
        parts.append(pack("ALPH", alpha))
    for index, tile in enumerate(tiles):
        parts.append(pack("TILE", tile))
        if len(parts[-1]) % 4:
            raise ValueError(
                f"tile {index} has {memoryview(tile).nbytes} bytes, expected a multiple of 4"
            )
    return b"".join(parts)


def read(data_or_file: DataOrFile) -> Container:
    """All of a file, each section checked.

    Payloads are views of the data where that is bytes, else copies: the result does not change.
    Raises FormatError or UnsupportedError for anything wrong, or the file's own OSError.
    """
    with open_source(data_or_file) as source:
        header, _ = read_header_section(source)
        check_room(header, source)
        return _gather(Walk(source, header), _refuse)


def salvage(data: Buffer) -> Container:
    """What is intact of a damaged or truncated file; a sentence in `damage` names each loss.

    Signature and HEAD must be intact, and no intact critical section unknown: else FormatError or
    UnsupportedError.
    """
    source = Memory(data)
    damage: list[str] = []
    header, _ = read_header_section(source)
    container = _gather(Walk(source, header), lambda error: damage.append(str(error)))
    return replace(container, damage=tuple(damage))


def read_header(data_or_file: DataOrFile) -> Header:
    """What a .cwic file says about itself, its metadata and where its sections lie; no pixels.

    Takes bytes, a path or an open binary file (from where it stands). The frame of every section is
    checked, and the metadata's checksums; other payloads are not read where the file can seek.
    Raises FormatError for a damaged file, UnsupportedError for one that needs a newer version, or
    the file's own OSError.
    """
    with open_source(data_or_file) as source:
        # Signature and HEAD say how many sections there must be.
        header, first = read_header_section(source)
        check_room(header, source)

        # Metadata is read, all else only framed.
        walk = Walk(source, header)
        parts = _Parts()
        sections = [first]
        while not walk.complete:
            section = walk.start()
            _take(walk, section, parts, read=section.type in METADATA_SECTIONS)
            sections.append(section)
        walk.finish()
    return replace(header, metadata=parts.metadata(), sections=tuple(sections))


def read_preamble(file: BinaryIO) -> Header:
    """The header with its metadata, each checked: what precedes alpha and tiles.

    Large sections of other kinds are not read where the file can seek.
    The file's position is unspecified afterwards. Raises FormatError, UnsupportedError, or the
    file's own OSError.
    """
    source = File(file)
    header, _ = read_header_section(source)
    check_room(header, source)
    walk = Walk(source, header)
    parts = _Parts()
    while (section := walk.start()).type not in ("ALPH", "TILE"):
        read = section.type in METADATA_SECTIONS or section.length <= CHECKED_BYTES
        _take(walk, section, parts, read=read)
    walk.admit(section)
    return replace(header, metadata=parts.metadata())


class _Parts:
    """What was read so far, by section type; None stands for what was lost."""

    def __init__(self) -> None:
        self.tiles = list[Payload | None]()
        self.alpha: Payload | None = None
        self.quality_map: Payload | None = None
        self._dpi: tuple[float, float] | None = None
        self._blocks = dict[str, bytes]()

    def put(self, section: Section, value: Payload | tuple[float, float] | None) -> None:
        """Keep the value of a known section; an unknown one is dropped."""
        if isinstance(value, tuple):
            self._dpi = value
        elif section.type == "TILE":
            self.tiles.append(value)
        elif section.type == "ALPH":
            self.alpha = value
        elif section.type == "QMAP":
            self.quality_map = value
        elif section.type in METADATA_SECTIONS and value is not None:
            self._blocks[METADATA_SECTIONS[section.type]] = bytes(value)

    def metadata(self) -> Metadata:
        """The metadata sections, those not met as None."""
        return Metadata(dpi=self._dpi, **self._blocks)


def _take(walk: Walk, section: Section, parts: _Parts, *, read: bool) -> None:
    """Admit the section that was started: read and checked, or only framed."""
    if not read:
        walk.admit(section)
        walk.skip(section)
        return
    value = _value(section, walk.payload(section))
    walk.admit(section)
    parts.put(section, value)


def _gather(walk: Walk, report: Callable[[FormatError], None]) -> Container:
    """Walk to the end of the file.

    Each error goes to `report`, and if that returns, the walk goes on where it can. A damaged
    length may swallow the next section unnoticed. So tiles behind a damaged section keep their
    places only if the walk then meets all tiles and the end of the file; else they count as lost.
    """
    # Tiles from this number on may be at another place than they seem.
    certain = walk.header.tile_count
    parts = _Parts()

    # A section whose frame is intact leads to the next one, whatever its payload is worth.
    try:
        while not walk.complete:
            section = walk.start()
            value = None
            try:
                value = _value(section, walk.payload(section))
            except FormatError as error:
                if section.critical and section.type not in ("ALPH", "TILE"):
                    raise
                certain = min(certain, walk.tiles)
                report(error)
            walk.admit(section)
            parts.put(section, value)
        walk.finish()
    except FormatError as error:
        report(error)
        _drop_uncertain(parts.tiles, certain, walk, report)

    return Container(
        walk.header,
        tuple(parts.tiles),
        parts.alpha,
        parts.metadata(),
        quality_map=parts.quality_map,
    )


def _drop_uncertain(
    tiles: list[Payload | None], certain: int, walk: Walk, report: Callable[[FormatError], None]
) -> None:
    """Put None for the tiles behind the last one whose place is certain, and report the losses.

    `tiles` is changed in place, and complete afterwards.
    """
    count = walk.header.tile_count
    del tiles[certain:]
    if "ALPH" in walk.due:
        report(FormatError("alpha: lost, as no section can be found behind the damage"))
    if lost := count - len(tiles):
        which = f"tile {count - 1}" if lost == 1 else f"tiles {len(tiles)} to {count - 1}"
        report(
            FormatError(
                f"{which} of {count}: lost, as nothing behind the damage can be placed for certain"
            )
        )
    tiles += [None] * lost


def _refuse(error: FormatError) -> NoReturn:
    raise error


def _value(section: Section, payload: Payload) -> Payload | tuple[float, float] | None:
    """What the section holds; None if its type is unknown.

    Raises FormatError for a resolution that cannot be.
    """
    if section.type == "dPIx":
        return unpack_dpi(section, payload)
    if section.type not in _PAYLOADS:
        return None
    constant = isinstance(payload, bytes) or isinstance(payload.obj, bytes)
    return payload if constant else bytes(payload)
