"""A lossless picture inside a .cwic file, in a format that others keep: WebP lossless or PNG.

Invariant: a picture's declared size is compared with the expected one before anything is decoded,
so that no file takes more memory than the picture that was asked for. No sections, no tiles.
"""

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, WebPImagePlugin, features

from ..errors import FormatError, UnsupportedError
from .framing import Payload

Pixels = NDArray[np.uint8]
"""[H,W,C], C = 1 grey or 3 RGB."""

PNG = 1
WEBP = 2

# Without Image.open's limit on pixels, which is for whole pictures: the size is known here.
_READERS = {PNG: PngImagePlugin.PngImageFile, WEBP: WebPImagePlugin.WebPImageFile}

NAMES = {PNG: "PNG", WEBP: "WEBP"}
"""The formats as Pillow calls them, by the number that a file has for them."""

WEBP_OPTIONS = {"quality": 90, "method": 4}
"""More takes several times as long, and makes some pictures larger."""

_PNG_START = struct.Struct(">8sI4sIIBBBBB")  # signature, IHDR whole but for its checksum
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
        _START_CHECKS[picture.format](picture.data, size, bands)
        if not features.check("webp") and picture.format == WEBP:
            raise UnsupportedError(
                "the lossless picture is a WebP file, which this Pillow cannot read: "
                "install one with WebP"
            )
        with _READERS[picture.format](io.BytesIO(picture.data)) as image:
            _check_size(image.size, size)
            pixels = np.asarray(image.convert("RGB" if picture.format == WEBP else image.mode))
    except UnsupportedError:
        raise
    # Pillow's decoders have no error of their own.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError) as error:
        raise FormatError(f"the lossless picture is not a readable {name} file: {error}") from error
    return pixels.reshape(size[1], size[0], -1)[:, :, :bands]


def _check_png(data: Payload, size: tuple[int, int], bands: int) -> None:
    if len(data) < _PNG_START.size:
        raise ValueError(f"it ends after {len(data)} bytes")
    signature, length, kind, width, height, depth, colour, *methods = _PNG_START.unpack_from(data)
    if (signature, length, kind) != (b"\x89PNG\r\n\x1a\n", 13, b"IHDR"):
        raise ValueError("it does not start with PNG's signature and IHDR")
    expected = 2 if bands == 3 else 0
    if (depth, colour, methods[2]) != (8, expected, 0):
        raise ValueError(
            f"it has {depth} bits, colour type {colour}, interlaced {methods[2]}; "
            f"expected 8, {expected}, 0 (no)"
        )
    _check_size((width, height), size)


def _check_webp(data: Payload, size: tuple[int, int], bands: int) -> None:
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


_START_CHECKS: dict[int, Callable[[Payload, tuple[int, int], int], None]] = {
    PNG: _check_png,
    WEBP: _check_webp,
}


def _check_size(found: tuple[int, int], expected: tuple[int, int]) -> None:
    if found != expected:
        raise ValueError(
            f"it has {found[0]} x {found[1]} pixels, expected {expected[0]} x {expected[1]}"
        )
