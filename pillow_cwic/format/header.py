"""The header: the payload of HEAD and the limits of format version 1 (docs/format.md, section 3).

Invariant: a Header that exists can be written, and reading it back gives an equal one. This module
knows no payload but its own.
"""

import re
import struct
from dataclasses import dataclass, field
from typing import SupportsIndex

from ..errors import FormatError, UnsupportedError
from .framing import (
    FRAME_BYTES,
    SIGNATURE,
    Section,
    Source,
    read_payload,
    read_signature,
    read_start,
)
from .grid import tile_columns, tile_rows
from .metadata import NO_METADATA, Metadata

VERSION = 1
MAX_SIDE = 2**24  # pixels
MAX_TILES = 2**16
TILE_BITS = (6, 10)  # log2 of the smallest and the largest tile: 64 to 1024 pixels
MAX_QUALITY_INDEX = 63

# Version, flags, quality index, log2 of the tile size, width, height, model id.
_HEAD = struct.Struct(">BBBBII8s")
# In any version: HEAD ends within the first 64 bytes.
_MAX_HEAD_BYTES = 64 - len(SIGNATURE) - FRAME_BYTES

# Flags.
_COLOUR = 1
_ALPHA = 2
_QUALITY_MAP = 4
_EXACT_BLOCKS = 8
_LOSSLESS = 16
_KNOWN_FLAGS = _COLOUR | _ALPHA | _QUALITY_MAP | _EXACT_BLOCKS | _LOSSLESS


@dataclass(frozen=True)
class Header:
    """What a file says about itself; raises ValueError for values that no file can have."""

    width: int
    """In pixels."""

    height: int
    """In pixels."""

    bands: int
    """1 grey, 3 RGB."""

    alpha: bool
    """Whether an alpha channel follows, without loss."""

    quality_index: int
    """0 (smallest file) to 63 at most; `model_info(model_id).quality_count` says how many."""

    model_id: str
    """16 hex digits: the first 8 bytes of the SHA-256 of the model's weights file."""

    tile_size: int = 1024
    """In pixels: a power of two, 64 to 1024."""

    version: int = VERSION
    """Of the file format."""

    has_quality_map: bool = False
    """Whether the quality differs from place to place, as the encoder's `importance` asked."""

    has_exact_blocks: bool = False
    """Whether some blocks of the picture may be stored without loss, beside the codes."""

    lossless: bool = False
    """Whether all of them are: the quality index means nothing then, and no model is needed."""

    metadata: Metadata = field(default=NO_METADATA, compare=False)
    """ICC profile, EXIF, XMP, resolution and comment; filled by `read_header`."""

    sections: tuple[Section, ...] = field(default=(), compare=False)
    """Where each section lies, in file order; filled by `read_header`."""

    def __post_init__(self) -> None:
        # Numbers, each in its range.
        _check_range("version", self.version, VERSION, VERSION)
        _check_range("width", self.width, 1, MAX_SIDE)
        _check_range("height", self.height, 1, MAX_SIDE)
        _check_range("quality_index", self.quality_index, 0, MAX_QUALITY_INDEX)
        _check_range("tile_size", self.tile_size, *(1 << bits for bits in TILE_BITS))
        if self.tile_size & (self.tile_size - 1):
            raise ValueError(f"tile_size must be a power of two, found {self.tile_size}")

        # What is no number.
        if self.bands not in (1, 3):
            raise ValueError(f"bands must be 1 (grey) or 3 (RGB), found {self.bands!r}")
        for name in ("alpha", "has_quality_map", "has_exact_blocks", "lossless"):
            flag = getattr(self, name)
            if not isinstance(flag, bool):
                raise ValueError(f"{name} must be True or False, found {flag!r}")
        if self.lossless and not self.has_exact_blocks:
            raise ValueError("lossless is True, but has_exact_blocks is False: expected both")
        if not isinstance(self.model_id, str) or not re.fullmatch("[0-9a-f]{16}", self.model_id):
            raise ValueError(f"model_id must be 16 lower-case hex digits, found {self.model_id!r}")

        # Each number may be right, and the file still impossible.
        if self.tile_count > MAX_TILES:
            tiles = (
                f"{self.width} x {self.height} pixels make {self.tile_count} tiles of "
                f"{self.tile_size}"
            )
            raise ValueError(f"{tiles}; expected at most {MAX_TILES} tiles")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as Pillow orders them."""
        return self.width, self.height

    @property
    def mode(self) -> str:
        """Pillow's name for the bands: "L", "LA", "RGB" or "RGBA"."""
        return ("L" if self.bands == 1 else "RGB") + "A" * self.alpha

    @property
    def tile_columns(self) -> int:
        """Tiles in a row; the last one may be narrower."""
        return tile_columns(self.width, self.tile_size)

    @property
    def tile_rows(self) -> int:
        """Rows of tiles; the last one may be lower."""
        return tile_rows(self.height, self.tile_size)

    @property
    def tile_count(self) -> int:
        """Tiles in the file, which come in row-major order."""
        return self.tile_columns * self.tile_rows


def pack_header(header: Header) -> bytes:
    """The 20-byte payload of HEAD."""
    # What is stored otherwise than the header has it.
    flags = (
        _COLOUR * (header.bands == 3)
        | _ALPHA * header.alpha
        | _QUALITY_MAP * header.has_quality_map
        | _EXACT_BLOCKS * header.has_exact_blocks
        | _LOSSLESS * header.lossless
    )
    log2_tile_size = int(header.tile_size).bit_length() - 1
    model_id = bytes.fromhex(header.model_id)

    # In the order of the format.
    return _HEAD.pack(
        header.version,
        flags,
        header.quality_index,
        log2_tile_size,
        header.width,
        header.height,
        model_id,
    )


def read_header_section(source: Source) -> tuple[Header, Section]:
    """Consume signature and HEAD.

    Raises FormatError if damaged, UnsupportedError if made for another version.
    """
    read_signature(source)
    section = read_start(source)
    if section.type != "HEAD":
        raise FormatError(f"{section}: expected section HEAD here, right behind the signature")
    if not 1 <= section.length <= _MAX_HEAD_BYTES:
        raise FormatError(f"{section}: its length is {section.length}, expected {_HEAD.size}")
    payload = bytes(read_payload(source, section))
    if payload[0] != VERSION:
        advice = f"this reader knows version {VERSION}; install a newer pillow-cwic"
        raise UnsupportedError(f"{section}: the file has format version {payload[0]}, {advice}")
    if section.length != _HEAD.size:
        raise FormatError(f"{section}: its length is {section.length}, expected {_HEAD.size}")
    return _unpack_header(payload, section), section


def check_room(header: Header, source: Source) -> None:
    """Raise FormatError if the file has no room for the tiles that the header implies."""
    needed = header.tile_count * FRAME_BYTES
    if source.size is not None and source.size - source.position < needed:
        tiles = (
            f"{header.width} x {header.height} pixels in {header.tile_count} tiles take {needed} "
            "bytes or more"
        )
        room = f"the file has only {source.size - source.position} left"
        raise FormatError(
            f"section HEAD at offset {len(SIGNATURE)}: {tiles}, {room}; it is cut off or not "
            "genuine"
        )


def _unpack_header(payload: bytes, section: Section) -> Header:
    # What no Header could hold.
    version, flags, quality_index, log2_tile_size, width, height, model_id = _HEAD.unpack(payload)
    if flags & ~_KNOWN_FLAGS:
        bits = (
            "this reader knows bits 0 (colour), 1 (alpha), 2 (quality map), 3 (exact blocks) and "
            "4 (lossless)"
        )
        raise UnsupportedError(f"{section}: flags are {flags:#010b}, {bits}")
    least, most = TILE_BITS
    if not least <= log2_tile_size <= most:
        raise FormatError(
            f"{section}: the log2 of the tile size is {log2_tile_size}, expected {least}..{most}"
        )

    # All else is the Header's own rule.
    try:
        return Header(
            width,
            height,
            bands=3 if flags & _COLOUR else 1,
            alpha=bool(flags & _ALPHA),
            quality_index=quality_index,
            model_id=model_id.hex(),
            tile_size=1 << log2_tile_size,
            version=version,
            has_quality_map=bool(flags & _QUALITY_MAP),
            has_exact_blocks=bool(flags & _EXACT_BLOCKS),
            lossless=bool(flags & _LOSSLESS),
        )
    except ValueError as error:
        raise FormatError(f"{section}: {error}") from None


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, SupportsIndex) or not low <= value.__index__() <= high:
        raise ValueError(f"{name} must be an integer in {low}..{high}, found {value!r}")
