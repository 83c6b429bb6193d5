"""The container: bytes <-> header, metadata, alpha and tiles, as docs/format.md, sections 1 to 4, defines them.

Invariant: whatever the bytes are, reading gives back what was written or raises a CwicError that
names the section; nothing is allocated on the word of a length or dimension that the file is too
small for. Payloads are opaque here: this module knows no model, no entropy coder and no pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NoReturn

from ..errors import FormatError, UnsupportedError
from .framing import (
    SIGNATURE,
    Buffer,
    DataOrFile,
    File,
    Memory,
    Section,
    Source,
    cut_off,
    opened,
    pack,
    read_payload,
    read_start,
)
from .header import Header, check_room, pack_header, read_header_section
from .metadata import NO_METADATA, Metadata, check_length, pack_metadata, unpack_dpi
from .metadata import SECTIONS as METADATA_SECTIONS

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

MAX_ANCILLARY_SECTIONS = 1024

_SINGLE = ("HEAD", *METADATA_SECTIONS, "QMAP", "ALPH")
_PAYLOADS = (
    *METADATA_SECTIONS,
    "QMAP",
    "ALPH",
    "TILE",
)  # what is kept; other payloads are only checked


@dataclass(frozen=True)
class Container:
    """A whole file; what salvage() could not read is None, with a sentence per loss in `damage`."""

    header: Header
    tiles: tuple[bytes | None, ...]  # row-major, each a multiple of 4 bytes long
    alpha: bytes | None = None  # a PNG file
    metadata: Metadata = NO_METADATA
    damage: tuple[str, ...] = ()
    quality_map: bytes | None = None  # a PNG file; None: one quality everywhere


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

    A payload that is kept is copied once, so that the result does not change with mutable data.
    Raises FormatError or UnsupportedError for anything wrong, or the file's own OSError.
    """
    with opened(data_or_file) as source:
        header, _ = read_header_section(source)
        check_room(header, source)
        return _gather(_Walk(source, header), _refuse)


def salvage(data: Buffer) -> Container:
    """What is intact of a damaged or truncated file; a sentence in `damage` names each loss.

    Signature and HEAD must be intact, and no intact critical section unknown: else FormatError or
    UnsupportedError.
    """
    source, damage = Memory(data), list[str]()
    header, _ = read_header_section(source)
    found = _gather(_Walk(source, header), lambda error: damage.append(str(error)))
    return replace(found, damage=tuple(damage))


def read_header(data_or_file: DataOrFile) -> Header:
    """What a .cwic file says about itself, its metadata and where its sections lie; no pixels.

    Takes bytes, a path or an open binary file (from where it stands). The frame of every section is
    checked, and the metadata's checksums; other payloads are not read where the file can seek.
    Raises FormatError for a damaged file, UnsupportedError for one that needs a newer version, or
    the file's own OSError.
    """
    with opened(data_or_file) as source:
        header, first = read_header_section(source)
        check_room(header, source)
        walk = _Walk(source, header)
        parts = _Parts()
        sections = [first]
        while not walk.complete:
            section = walk.start()
            if section.type in METADATA_SECTIONS:
                value = _value(section, walk.payload(section))
                walk.admit(section)
                parts.put(section, value)
            else:
                walk.admit(section)
                walk.skip(section)
            sections.append(section)
        walk.finish()
    return replace(header, metadata=parts.metadata(), sections=tuple(sections))


def read_preamble(file: BinaryIO) -> Header:
    """The header with its metadata, each checked: what precedes alpha and tiles.

    The file's position is unspecified afterwards. Raises FormatError, UnsupportedError, or the
    file's own OSError.
    """
    source = File(file)
    header, _ = read_header_section(source)
    check_room(header, source)
    walk, parts = _Walk(source, header), _Parts()
    while (section := walk.start()).type not in ("ALPH", "TILE"):
        value = _value(section, walk.payload(section))
        walk.admit(section)
        parts.put(section, value)
    walk.admit(section)
    return replace(header, metadata=parts.metadata())


class _Walk:
    """The one walk over the sections behind HEAD: what may come next, and what a message calls it."""

    def __init__(self, source: Source, header: Header) -> None:
        self._source, self.header = source, header
        self._announced = {"QMAP": header.has_quality_map, "ALPH": header.alpha}
        self._seen = {"HEAD"}  # types that may come once
        self._ancillary = 0
        self.tiles = 0  # met so far

    @property
    def complete(self) -> bool:
        """Whether all tiles were met: the file must end here."""
        return self.tiles == self.header.tile_count

    @property
    def due(self) -> list[str]:
        """Sections that the header announces and that were not met yet."""
        return [
            kind
            for kind, announced in self._announced.items()
            if announced and kind not in self._seen
        ]

    def start(self) -> Section:
        """The next section's type, offset and length.

        Raises FormatError if it cannot be that long.
        """
        try:
            section = read_start(self._source)
        except FormatError as error:
            raise FormatError(
                f"{error}; {self.tiles} of {self.header.tile_count} tiles precede it"
            ) from None
        if section.type == "TILE" and section.length % 4:
            raise FormatError(
                f"{self._label(section)}{section} has {section.length} bytes, expected a multiple "
                "of 4"
            )
        check_length(section)
        return section

    def payload(self, section: Section) -> bytes | memoryview:
        """The payload of the section that start() gave.

        Raises FormatError if its checksum differs.
        """
        try:
            return read_payload(self._source, section)
        except FormatError as error:
            raise FormatError(f"{self._label(section)}{error}") from None

    def skip(self, section: Section) -> None:
        """Move over payload and checksum of the section that start() gave."""
        self._source.skip(section.length + 4)
        if self._source.position < section.end:
            raise cut_off(section, self._source.position)

    def admit(self, section: Section) -> None:
        """Count the section.

        Raises FormatError if it may not stand here, UnsupportedError if it is unknown.
        """
        kind = section.type
        if kind == "TILE":
            if self.due:
                raise FormatError(
                    f"{section}: expected section {self.due[0]} before the first tile: HEAD "
                    "announces it"
                )
            self.tiles += 1
            return
        if not self._announced.get(kind, True):
            raise FormatError(f"{section}: expected none, as HEAD does not announce it")
        if kind in _SINGLE:
            if kind in self._seen:
                raise FormatError(f"{section}: a second {kind}, expected one")
            if self.tiles or "ALPH" in self._seen:
                before = "the first tile" if self.tiles else "section ALPH"
                raise FormatError(f"{section}: found behind {before}, expected before it")
            self._seen.add(kind)
        elif section.critical:
            raise UnsupportedError(
                f"{section}: unknown critical section; install a newer pillow-cwic"
            )
        self._ancillary += not section.critical
        if self._ancillary > MAX_ANCILLARY_SECTIONS:
            raise FormatError(
                f"{section}: expected at most {MAX_ANCILLARY_SECTIONS} ancillary sections"
            )

    def finish(self) -> None:
        """Raise FormatError unless the file ends here."""
        offset = self._source.position
        if self._source.read(1):
            raise FormatError(
                f"data behind the last tile: expected the end of the file at offset {offset}"
            )

    def _label(self, section: Section) -> str:
        if section.type == "TILE":
            row, column = divmod(self.tiles, self.header.tile_columns)
            return f"tile {self.tiles} of {self.header.tile_count} (row {row}, column {column}): "
        return "alpha: " if section.type == "ALPH" else ""


class _Parts:
    """What was read so far, by section type; None stands for what was lost."""

    def __init__(self) -> None:
        self.tiles = list[bytes | None]()
        self.alpha: bytes | None = None
        self.quality_map: bytes | None = None
        self._dpi: tuple[float, float] | None = None
        self._blocks = dict[str, bytes]()

    def put(self, section: Section, value: bytes | tuple[float, float] | None) -> None:
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
            self._blocks[METADATA_SECTIONS[section.type]] = value

    def metadata(self) -> Metadata:
        """The metadata sections, those not met as None."""
        return Metadata(dpi=self._dpi, **self._blocks)


def _gather(walk: _Walk, report: Callable[[FormatError], None]) -> Container:
    """Walk to the end of the file.

    Each error goes to `report`, and if that returns, the walk goes on where it can.

    A damaged length may swallow the next section unnoticed. So tiles behind a damaged section keep
    their places only if the walk then meets all tiles and the end of the file; else they count as
    lost.
    """
    parts, certain = _Parts(), walk.header.tile_count
    try:
        while not walk.complete:
            section, value = walk.start(), None
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
    tiles: list[bytes | None], certain: int, walk: _Walk, report: Callable[[FormatError], None]
) -> None:
    """Make `tiles` complete with None behind the last one whose place is certain, in place, and report the losses."""
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


def _value(section: Section, payload: bytes | memoryview) -> bytes | tuple[float, float] | None:
    """What the section holds; None if its type is unknown.

    Raises FormatError for a resolution that cannot be.
    """
    if section.type == "dPIx":
        return unpack_dpi(section, payload)
    return bytes(payload) if section.type in _PAYLOADS else None
