"""EXIF blocks as a file has them: bytes of which nobody knows whether they are EXIF."""

from __future__ import annotations

import struct
from typing import Any

from PIL import ExifTags, Image

_FAULTS = (SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error)
"""What Pillow raises, as the case may be, for a block that is no EXIF."""


def exif_tags(block: bytes | None) -> Image.Exif | None:
    """The tags of a block by number, empty for none; None where the block is no EXIF."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
    except _FAULTS:
        return None
    return tags


def named_tags(block: bytes | None) -> dict[str, Any]:
    """The tags by name, those that can be read."""
    tags = exif_tags(block)
    named = {}
    for number in tags or ():
        try:
            if number in ExifTags.TAGS and tags is not None:
                named[ExifTags.TAGS[number]] = tags[number]
        except _FAULTS:
            continue
    return named
