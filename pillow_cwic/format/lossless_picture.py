"""A lossless picture inside a .cwic file, in a format that others keep: WebP lossless or PNG.

Invariant: a picture's declared size is compared with the expected one before anything is decoded,
so that no file takes more memory than the picture that was asked for. No sections, no tiles.
"""

import io
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin, features

from ..errors import FormatError, UnsupportedError
from .framing import Payload
from .png_plane import decode_png

Pixels = NDArray[np.uint8]
"""[H,W,C], C = 1 grey or 3 RGB."""

PNG = 1
WEBP = 2

NAMES = {PNG: "PNG", WEBP: "WEBP"}
"""The formats as Pillow calls them, by the number that a file has for them."""

WEBP_OPTIONS = {"quality": 90, "method": 4}
"""More takes several times as long, and makes some pictures larger."""

_WEBP_START = struct.Struct("<4sI4s4sIBI")  # RIFF, VP8L: length and first 5 bytes of its payload


class LosslessPicture(NamedTuple):
    """A whole file of one of the formats."""

    format: int  # PNG or WEBP
    data: Payload


def encode_lossless(pixels: Pixels) -> LosslessPicture:
    """uint8 [H,W,1 or 3] -> WebP lossless where Pillow writes it, else PNG."""
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]  # [H,W]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    out = io.BytesIO()
    if features.check("webp"):
        image.save(out, "WEBP", lossless=True, **WEBP_OPTIONS)
        return LosslessPicture(WEBP, out.getvalue())
    image.save(out, "PNG", optimize=True)
    return LosslessPicture(PNG, out.getvalue())


def decode_lossless(picture: LosslessPicture, size: tuple[int, int], bands: int) -> Pixels:
    """A lossless picture -> uint8 [H,W,bands].

    FormatError unless it is sound and of `size` (w, h); UnsupportedError where this Pillow lacks
    the format.
    """
    name = NAMES[picture.format]
    try:
        if picture.format == PNG:
            return decode_png(picture.data, size, bands)
        return _decode_webp(picture.data, size)[:, :, :bands]
    except UnsupportedError:
        raise
    # Pillow's decoders have no error of their own.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError) as error:
        raise FormatError(f"the lossless picture is not a readable {name} file: {error}") from error


def _decode_webp(data: Payload, size: tuple[int, int]) -> Pixels:
    """A WebP file -> uint8 [H,W,3]; ValueError for another than the expected one."""
    _check_webp(data, size)
    if not features.check("webp"):
        raise UnsupportedError(
            "the lossless picture is a WebP file, which this Pillow cannot read: "
            "install one with WebP"
        )
    # Without Image.open's limit on pixels, which is for whole pictures: the size is known here.
    with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
        _check_size(image.size, size)
        return np.asarray(image.convert("RGB"))


def _check_webp(data: Payload, size: tuple[int, int]) -> None:
    if len(data) < _WEBP_START.size:
        raise ValueError(f"it ends after {len(data)} bytes")
    riff, length, webp, kind, chunk_length, mark, bits = _WEBP_START.unpack_from(data)
    if (riff, webp, kind, mark) != (b"RIFF", b"WEBP", b"VP8L", 0x2F):
        raise ValueError("it is not of the simple lossless kind: one chunk VP8L")
    if length != len(data) - 8 or chunk_length + chunk_length % 2 != length - 12:
        raise ValueError(
            f"its lengths are {length} and {chunk_length}, of {len(data)} bytes in all"
        )
    if bits >> 28:
        raise ValueError("it announces alpha or a version above 0")
    _check_size(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), size)


def _check_size(found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:
        raise ValueError(
            f"it has {found[0]} x {found[1]} pixels, expected {expected[0]} x {expected[1]}"
        )
