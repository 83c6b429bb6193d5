"""What a picture of any of Pillow's formats carries beside its pixels.

One name for each kind, those of `format.metadata`, whatever the format calls it; and the options of
Pillow's `save` that put it into another format. Knows no files.
"""

from __future__ import annotations

import math
from typing import Any

from PIL import Image, PngImagePlugin

Blocks = dict[str, Any]
"""By name: icc_profile, exif, xmp, comment as bytes; dpi as (x, y)."""

ORIENTATION = 0x0112
_RESOLUTION_TAGS = (0x011A, 0x011B)
_RESOLUTION_UNIT = 0x0128
_XMP_TAG = 0x02BC
_DESCRIPTION_TAG = 0x010E

_PIXEL_TAGS = {
    *(0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0107, 0x0108, 0x0109, 0x010A),
    *(0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122, 0x0123),
    *(0x0124, 0x0125, 0x012D, 0x013D, 0x0140, 0x0141, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A),
    *(0x014C, 0x0150, 0x0151, 0x0152, 0x0153, 0x0154, 0x0155, 0x0156, 0x015B, 0x0200, 0x0201),
    *(0x0202, 0x0203, 0x0205, 0x0206, 0x0207, 0x0208, 0x0209, 0x0211, 0x0212, 0x0213, 0x0214),
}
"""Tags of TIFF that say how its own pixels are stored: untrue for any other file."""

_OTHER_BLOCKS = {_XMP_TAG, 0x8773}
"""XMP and ICC profile, which go their own ways."""


def metadata_of(image: Image.Image) -> Blocks:
    """What a loaded picture carries."""
    info = image.info
    blocks: Blocks = {}
    if isinstance(info.get("icc_profile"), bytes):
        blocks["icc_profile"] = info["icc_profile"]
    blocks["exif"] = _exif_of(image)
    blocks["xmp"] = _bytes_of(info.get("xmp") or info.get("XML:com.adobe.xmp"))
    blocks["comment"] = _bytes_of(
        info.get("comment") or info.get("Comment") or _description_of(image)
    )
    blocks["dpi"] = _dpi_of(info.get("dpi"))
    return {name: value for name, value in blocks.items() if value}


def _bytes_of(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value or None


def _description_of(image: Image.Image) -> bytes | None:
    """What TIFF has for a comment."""
    if image.format != "TIFF":
        return None
    text = image.getexif().get(_DESCRIPTION_TAG)
    return text.encode("latin-1", "replace") if isinstance(text, str) else None


def _dpi_of(value: Any) -> tuple[float, float] | None:
    """None for what is no resolution; a text chunk of PNG may be called so."""
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(number) and number > 0 for number in (x, y)) else None


def _exif_of(image: Image.Image) -> bytes | None:
    """The block as the file has it, or made of a TIFF's tags."""
    if isinstance(image.info.get("exif"), bytes):
        return image.info["exif"] or None
    exif = image.getexif()
    for tag in list(exif):
        if tag in _PIXEL_TAGS | _OTHER_BLOCKS:
            del exif[tag]
    meaningful = set(exif) - {*_RESOLUTION_TAGS, _RESOLUTION_UNIT}
    return exif.tobytes() if meaningful else None


def exif_tags(block: bytes | None) -> Image.Exif:
    """The tags of a block; none if it is no EXIF."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
        tags.get(ORIENTATION)  # reads them
    except Exception:  # whatever Pillow makes of bytes that are none
        return Image.Exif()
    return tags


def lasting_tags(block: bytes | None) -> set[int] | None:
    """The tags of a block that say something of a picture, in any format.

    Not so those of one file's pixels, and an orientation that is the usual one. None if it is no
    EXIF.
    """
    tags = exif_tags(block)
    usual = {ORIENTATION} if tags.get(ORIENTATION) == 1 else set()
    return set(tags) - _PIXEL_TAGS - usual if len(tags) else None


def orientation_of(blocks: Blocks) -> int:
    """1 is upright, up to 8."""
    value = exif_tags(blocks.get("exif")).get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of an orientation upright."""


def upright(picture: Image.Image, blocks: Blocks) -> tuple[Image.Image, Blocks]:
    """The pixels the right way up, and what then stands in the EXIF block."""
    orientation = orientation_of(blocks)
    if orientation == 1:
        return picture, blocks
    turned = picture.transpose(TURNS[orientation])
    tags = exif_tags(blocks["exif"])
    del tags[ORIENTATION]
    kept = {**blocks, "exif": tags.tobytes()} if len(tags) else blocks | {"exif": None}
    return turned, {name: value for name, value in kept.items() if value}


def with_resolution(blocks: Blocks) -> Blocks:
    """The resolution in the EXIF block, for formats without a place for it."""
    tags = exif_tags(blocks.get("exif"))
    for tag, value in zip(_RESOLUTION_TAGS, blocks["dpi"], strict=True):
        tags[tag] = value
    tags[_RESOLUTION_UNIT] = 2  # inches
    return {**blocks, "exif": tags.tobytes()}


def save_options(format_name: str, blocks: Blocks) -> dict[str, Any]:
    """The blocks as options of Pillow's `save`."""
    options = dict(blocks)
    xmp = options.get("xmp")
    comment = options.get("comment")
    if format_name == "PNG" and (xmp or comment):
        chunks = PngImagePlugin.PngInfo()
        if xmp:
            chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        if comment:
            chunks.add_itxt("Comment", comment.decode())
        options["pnginfo"] = chunks
    if format_name == "TIFF" and (xmp or comment):
        tags = exif_tags(options.get("exif"))
        if xmp:
            tags[_XMP_TAG] = xmp
        if comment:
            tags.setdefault(_DESCRIPTION_TAG, comment)
        options["exif"] = tags
    return options
