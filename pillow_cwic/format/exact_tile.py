"""The payload of a tile with exact blocks (docs/format.md, section 4, "Exact blocks").

A block is the 16 x 16 pixels of a code position. Exact ones lie in a lossless picture of the tile,
the others in the range coder's stream behind it. Knows no pixels and no model.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .framing import Payload
from .lossless_picture import NAMES, LosslessPicture

Mask = NDArray[np.bool_]
"""[h,w]: which positions of a code grid, or of a part of it, are exact."""

_START = struct.Struct(">BBHI")  # format, reserved, bytes of the map, bytes of the picture
_LEVEL = 9  # of deflate
_ALL_EXACT = 0  # what a map has bytes for is some positions, not all
_NO_FORMAT = 0


class ExactTile(NamedTuple):
    """What a tile's payload holds."""

    exact: Mask  # [h,w]
    picture: LosslessPicture | None  # None where no position is exact
    stream: Payload  # may be empty where all positions are exact

    @property
    def all_exact(self) -> bool:
        """Whether nothing is left for the networks to show."""
        return bool(self.exact.all())

    @property
    def has_codes(self) -> bool:
        """Whether there are levels and codes: only a tile that is all exact may have none."""
        return bool(self.stream) or not self.all_exact


def pack_tile(tile: ExactTile) -> bytes:
    """The payload of TILE, in a file whose header announces exact blocks."""
    if tile.picture is None:
        return _START.pack(_NO_FORMAT, 0, 0, 0) + tile.stream
    packed = b"" if tile.all_exact else zlib.compress(np.packbits(tile.exact).tobytes(), _LEVEL)
    start = _START.pack(tile.picture.format, 0, len(packed), len(tile.picture.data))
    layer = start + packed + tile.picture.data
    return layer + bytes(-len(layer) % 4) + tile.stream


def unpack_tile(payload: Payload, shape: tuple[int, int]) -> ExactTile:
    """The payload of a tile of `shape` [h,w] -> its parts; the picture is not decoded.

    FormatError for what no encoder writes.
    """
    # The lengths, in what is there.
    if len(payload) < _START.size:
        raise FormatError(f"exact blocks: {len(payload)} bytes, expected {_START.size} or more")
    number, reserved, map_bytes, picture_bytes = _START.unpack_from(payload)
    if reserved:
        raise FormatError(f"exact blocks: the reserved byte is {reserved}, expected 0")
    map_end = _START.size + map_bytes
    picture_end = map_end + picture_bytes
    stream_start = picture_end + -picture_end % 4
    if stream_start > len(payload):
        raise FormatError(
            f"exact blocks: map and picture of {map_bytes} and {picture_bytes} bytes need "
            f"{stream_start - len(payload)} more than the tile has"
        )
    if any(payload[picture_end:stream_start]):
        raise FormatError("exact blocks: the bytes that fill a word are not 0")

    # No exact position, all of them, or some.
    stream = payload[stream_start:]
    if number == _NO_FORMAT:
        if map_bytes or picture_bytes:
            raise FormatError("exact blocks: none announced, but a map or a picture is there")
        return ExactTile(np.zeros(shape, np.bool_), None, stream)
    if number not in NAMES:
        known = " and ".join(f"{key} ({name})" for key, name in NAMES.items())
        raise FormatError(f"exact blocks: lossless format {number}, this reader knows {known}")
    picture = LosslessPicture(number, payload[map_end:picture_end])
    if map_bytes == _ALL_EXACT:
        return ExactTile(np.ones(shape, np.bool_), picture, stream)
    return ExactTile(_unpacked_map(payload[_START.size : map_end], shape), picture, stream)


def _unpacked_map(packed: Payload, shape: tuple[int, int]) -> Mask:
    """A deflated map -> bool [h,w], some and not all of it; no more is unpacked than it has."""
    count = shape[0] * shape[1]
    expected = -(-count // 8)
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(packed, expected + 1)
    except zlib.error as error:
        raise FormatError(f"exact blocks: the map is damaged: {error}") from error
    if len(data) != expected or not inflate.eof or inflate.unused_data:
        raise FormatError(
            f"exact blocks: the map has not the {expected} bytes of {shape[1]} x {shape[0]} blocks"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count:].any():
        raise FormatError("exact blocks: the bits behind the map are not 0")
    exact: Mask = bits[:count].reshape(shape).astype(np.bool_)
    if exact.all() or not exact.any():
        raise FormatError("exact blocks: the map says none or all, which is said without a map")
    return exact
