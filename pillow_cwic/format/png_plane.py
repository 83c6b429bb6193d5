"""Pictures inside a .cwic file that are PNG: alpha, the quality map, and a tile's exact blocks.

Invariant: reading a part takes memory for that part and for one strip of rows, whatever the file
claims; Pillow undoes the row filters, strip by strip. Only what makes pixels is looked at: no
ancillary chunk, and no switch of Pillow's, changes what is read. No torch, no sections.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import FormatError
from .framing import Payload
from .grid import Box

Plane = NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
STRIP_BYTES = 1 << 20
"""About so many pixels are unpacked at a time, and at least one row."""

_PASSED = {1: (b"IEND",), 3: (b"IEND", b"PLTE")}
"""Critical chunks that change no pixel; a palette of RGB is a hint for screens of few colours."""

_HEAD = struct.Struct(">IIBBBBB")  # IHDR: width, height, depth, colour type, three methods
_KINDS = {  # 8 bits, colour type, deflate, adaptive filters, not interlaced
    1: ("grey", "L", (8, 0, 0, 0, 0)),
    3: ("RGB", "RGB", (8, 2, 0, 0, 0)),
}
"""By bands: what a person calls it, Pillow's mode, the end of IHDR."""


def encode_plane(plane: Plane) -> bytes:
    """uint8 [H,W] -> a grey 8-bit PNG file."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(out, "PNG", optimize=True)
    return out.getvalue()


def decode_plane(
    data: Payload, size: tuple[int, int], section: str, box: Box | None = None
) -> Plane:
    """A PNG file -> uint8 [H,W], or what lies in a box of it.

    FormatError naming the section unless it is grey, 8-bit, not interlaced and of `size` (w, h). Of
    a part, only what precedes its end is looked at.
    """
    try:
        return decode_png(data, size, 1, box)[:, :, 0]
    except ValueError as error:
        raise FormatError(f"section {section}: not a readable PNG: {error}") from error


def decode_png(
    data: Payload, size: tuple[int, int], bands: int, box: Box | None = None
) -> NDArray[np.uint8]:
    """As `decode_plane`, of 1 or 3 bands: uint8 [H,W,bands]; ValueError for another file."""
    part = box or Box(0, 0, *size)
    out = np.empty((part.height, part.width, bands), np.uint8)
    packed = _Packed(_chunks(data, size, bands))
    for top, strip in _strips(packed, size, bands, part.lower):
        rows = slice(max(part.upper - top, 0), part.lower - top)
        inside = strip[rows, part.left : part.right]
        first = top + rows.start - part.upper
        out[first : first + len(inside)] = inside
    if part.lower == size[1]:
        packed.finish()
    return out


def _chunks(data: Payload, size: tuple[int, int], bands: int) -> Iterator[memoryview]:
    """The payloads of all IDAT chunks; ValueError for what is not the expected PNG file."""
    view = memoryview(data)
    if view[: len(SIGNATURE)] != SIGNATURE:
        raise ValueError("it does not start with PNG's signature")
    kind = b""
    position = len(SIGNATURE)
    while kind != b"IEND":
        # Length, type, payload, CRC-32 of type and payload.
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(view):
            raise ValueError(f"it is cut off in the chunk at byte {position}")
        is_first = not kind
        kind = bytes(view[position + 4 : position + 8])
        payload = view[position + 8 : end]
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"its chunk at byte {position} has a wrong checksum")
        position = end + 4

        if is_first != (kind == b"IHDR"):
            raise ValueError("it does not start with one chunk IHDR")
        if is_first:
            _check_head(bytes(payload), size, bands)
        elif kind == b"IDAT":
            if length:
                yield payload
        elif kind not in _PASSED[bands] and not kind[0] & 0x20:  # upper case: critical
            raise ValueError(f"a picture that is {_KINDS[bands][0]} has no chunk {kind!r}")


def _check_head(head: bytes, size: tuple[int, int], bands: int) -> None:
    if len(head) != _HEAD.size:
        raise ValueError(f"its IHDR has {len(head)} bytes, expected {_HEAD.size}")
    width, height, *kind = _HEAD.unpack(head)
    name, _, expected = _KINDS[bands]
    if (width, height) != size or tuple(kind) != expected:
        depth, colour, *_, interlaced = kind
        raise ValueError(
            f"it has {width} x {height} pixels, {depth} bits, colour type {colour}, "
            f"interlaced {interlaced}; "
            f"expected {size[0]} x {size[1]}, 8, {expected[1]} ({name}), 0 (no)"
        )


class _Packed:
    """The deflated rows of all chunks, unpacked as far as they are asked for."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks = chunks
        self._inflate = zlib.decompressobj()
        self._pending: bytes | memoryview = b""

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        parts = list[bytes]()
        while count and not self._inflate.eof:
            if not self._pending:
                self._pending = next(self._chunks, b"")
            at_end = not self._pending
            try:
                part = self._inflate.decompress(self._pending, count)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            self._pending = self._inflate.unconsumed_tail
            if at_end and not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """ValueError unless the data end here, whole."""
        if self.read(1):
            raise ValueError("it has more rows than its height")
        if not self._inflate.eof:
            raise ValueError("its data are cut off")
        for _ in self._chunks:  # the rest must be sound, too
            pass


def _strips(
    packed: _Packed, size: tuple[int, int], bands: int, lower: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Row number and pixels [h,W,bands] of one strip after the other, down to row `lower`."""
    width, _ = size
    row_bytes = width * bands
    mode = _KINDS[bands][1]
    step = max(1, STRIP_BYTES // row_bytes)
    above = np.zeros(row_bytes, np.uint8)  # what filters take for the row above the first
    for top in range(0, lower, step):
        height = min(step, lower - top)
        rows = packed.read(height * (row_bytes + 1))
        if len(rows) < height * (row_bytes + 1):
            raise ValueError(f"its data end before row {top + height}")
        # The row above, unfiltered, then the strip: Pillow's decoder takes it for a whole picture.
        stream = zlib.compress(b"\x00" + above.tobytes() + rows, 0)
        image = Image.frombytes(mode, (width, height + 1), stream, "zip", mode)
        strip = np.asarray(image).reshape(height + 1, width, bands)[1:]
        yield top, strip
        above = strip[-1]
