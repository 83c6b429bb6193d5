"""Metadata: what travels beside the pixels, a section for each kind (docs/format.md, section 4).

Invariant: what is written comes back byte for byte. Must not know what the blocks mean.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError
from .framing import Section, pack

MAX_METADATA_BYTES = 2**26  # per section

SECTIONS = {"iCCP": "icc_profile", "eXIF": "exif", "xMPm": "xmp", "dPIx": "dpi", "cMNT": "comment"}
"""Section type -> field of Metadata, in the order of writing."""

METADATA_NAMES = tuple(SECTIONS.values())
"""The kinds of metadata, as Pillow's `info` and `save` call them."""

_DPI = struct.Struct(">2d")


@dataclass(frozen=True)
class Metadata:
    """Blocks of bytes, kept as they are; None is absent, empty bytes are present and empty."""

    icc_profile: bytes | None = None
    """An ICC colour profile."""

    exif: bytes | None = None
    """The block as Pillow's info["exif"] has it."""

    xmp: bytes | None = None
    """An XMP packet."""

    dpi: tuple[float, float] | None = None
    """Dots per inch, x and y; finite, not negative."""

    comment: bytes | None = None
    """Text, as a rule in UTF-8."""

    def present(self) -> dict[str, Any]:
        """The blocks that are there, by name."""
        values = {name: getattr(self, name) for name in METADATA_NAMES}
        return {name: value for name, value in values.items() if value is not None}


NO_METADATA = Metadata()


def pack_metadata(metadata: Metadata) -> list[bytes]:
    """One section per field that is not None.

    Raises ValueError for one that is too long or no resolution.
    """
    sections = []
    for kind, name in SECTIONS.items():
        value = getattr(metadata, name)
        if value is None:
            continue

        # The one kind that is no block of bytes.
        if kind == "dPIx":
            x, y = value
            if not _is_resolution(x, y):
                raise ValueError(f"dpi must be two finite numbers from 0 up, found {value!r}")
            value = _DPI.pack(x, y)

        if len(value) > MAX_METADATA_BYTES:
            raise ValueError(
                f"{name} has {len(value)} bytes; at most {MAX_METADATA_BYTES} may be stored"
            )
        sections.append(pack(kind, value))
    return sections


def check_length(section: Section) -> None:
    """Raise FormatError if a metadata section cannot have this length."""
    if section.type == "dPIx" and section.length != _DPI.size:
        raise FormatError(f"{section}: its length is {section.length}, expected {_DPI.size}")
    if section.type in SECTIONS and section.length > MAX_METADATA_BYTES:
        raise FormatError(
            f"{section}: its length is {section.length}, expected at most {MAX_METADATA_BYTES}"
        )


def unpack_dpi(section: Section, payload: bytes | memoryview) -> tuple[float, float]:
    """Dots per inch, x and y; raises FormatError for what is no resolution."""
    x, y = _DPI.unpack(payload)
    if not _is_resolution(x, y):
        raise FormatError(
            f"{section}: the resolution is {x} x {y} dots per inch, expected finite numbers from "
            "0 up"
        )
    return x, y


def _is_resolution(x: float, y: float) -> bool:
    return math.isfinite(x) and math.isfinite(y) and x >= 0 and y >= 0
