"""The walk over the sections behind HEAD: what may come next (docs/format.md, section 2).

Invariant: there is one walk, whatever is read of a file, so that all readers refuse the same files
with the same messages. This module keeps nothing of what it meets and knows no payload.
"""

from ..errors import FormatError, UnsupportedError
from .framing import Section, Source, cut_off, read_payload, read_start
from .header import Header
from .metadata import SECTIONS as METADATA_SECTIONS
from .metadata import check_length

MAX_ANCILLARY_SECTIONS = 1024

_SINGLE = ("HEAD", *METADATA_SECTIONS, "QMAP", "ALPH")


class Walk:
    """The sections behind HEAD, one after the other, and what a message calls them."""

    def __init__(self, source: Source, header: Header) -> None:
        self._source = source
        self.header = header
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
        announced = [kind for kind, flag in self._announced.items() if flag]
        return [kind for kind in announced if kind not in self._seen]

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
        # Tiles end the file: what HEAD announces must be there by then.
        if section.type == "TILE":
            if self.due:
                raise FormatError(
                    f"{section}: expected section {self.due[0]} before the first tile: HEAD "
                    "announces it"
                )
            self.tiles += 1
            return

        if section.type in _SINGLE:
            self._admit_single(section)
        elif section.critical:
            raise UnsupportedError(
                f"{section}: unknown critical section; install a newer pillow-cwic"
            )

        # Else a small file could make a reader work without end.
        self._ancillary += not section.critical
        if self._ancillary > MAX_ANCILLARY_SECTIONS:
            raise FormatError(
                f"{section}: expected at most {MAX_ANCILLARY_SECTIONS} ancillary sections"
            )

    def _admit_single(self, section: Section) -> None:
        kind = section.type
        if not self._announced.get(kind, True):
            raise FormatError(f"{section}: expected none, as HEAD does not announce it")
        if kind in self._seen:
            raise FormatError(f"{section}: a second {kind}, expected one")
        if self.tiles or "ALPH" in self._seen:
            predecessor = "the first tile" if self.tiles else "section ALPH"
            raise FormatError(f"{section}: found behind {predecessor}, expected before it")
        self._seen.add(kind)

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
