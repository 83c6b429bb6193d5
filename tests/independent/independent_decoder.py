"""A second decoder of .cwic files, written from docs/format.md alone.

Each docstring names the section it follows. It shares no line with the package and imports nothing
from it: NumPy for arithmetic, Pillow for the PNG files within. It reads well-formed files of models
with the metadata key `pillow-cwic model 1`; plain, not quick. What the tests find equal in both
decoders is what the document says, and not an accident of the package's code.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from independent_entropy import Integers, Model
from independent_network import Decoder, Floats
from independent_tile import Tile
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = bytes.fromhex("89 43 57 49 43 0D 0A 1A")
GRID = 16  # pixels of a code position along each side: section 5, "What a tile holds"


class Header(NamedTuple):
    """HEAD's fields (section 3)."""

    version: int
    flags: int
    quality_index: int
    log2_tile: int
    width: int
    height: int
    model_id: bytes


def read_sections(data: bytes) -> list[tuple[str, bytes]]:
    """Sections 1 and 2: the types and payloads behind the signature, their checksums checked."""
    if data[:8] != SIGNATURE:
        raise ValueError("no signature")
    sections, offset = [], 8
    while offset < len(data):
        kind, length = struct.unpack_from(">4sI", data, offset)
        payload = data[offset + 8 : offset + 8 + length]
        if zlib.crc32(kind + payload) != struct.unpack_from(">I", data, offset + 8 + length)[0]:
            raise ValueError(f"wrong checksum: {kind!r} at {offset}")
        sections.append((kind.decode("ascii"), payload))
        offset += length + 12
    return sections


class ExactBlocks(NamedTuple):
    """Section 4, "Exact blocks": which positions of a tile are exact, their picture, the stream."""

    exact: NDArray[np.bool_]  # [h,w]
    picture: bytes
    stream: bytes


def exact_blocks(payload: bytes, shape: tuple[int, int]) -> ExactBlocks:
    """The payload of a tile of `shape` [h,w] code positions, in a file with exact blocks."""
    kind, reserved, map_length, picture_length = struct.unpack_from(">BBHI", payload)
    if kind > 2 or reserved:
        raise ValueError(f"not a tile with exact blocks: {payload[:8]!r}")
    exact = np.full(shape, kind > 0)
    if map_length:
        packed = zlib.decompress(payload[8 : 8 + map_length])
        bits = [packed[n // 8] >> (7 - n % 8) & 1 for n in range(exact.size)]
        exact = np.array(bits, bool).reshape(shape)
    end = 8 + map_length + picture_length
    return ExactBlocks(exact, payload[8 + map_length : end], payload[(end + 3) // 4 * 4 :])


class File:
    """A whole file: sections, HEAD, tiles, and the codes of all tiles on the image's code grid.

    Sections 1 to 5.
    """

    def __init__(self, data: bytes, model: Model) -> None:
        self.model, self.sections = model, read_sections(data)
        self.header = Header(*struct.unpack(">4B2I8s", self.sections[0][1]))
        if self.header.version != 1 or self.header.model_id.hex() != model.id:
            raise ValueError(f"not a version 1 file of this model: {self.header}")
        rows, columns = (
            max(3, -(-size // GRID)) for size in (self.header.height, self.header.width)
        )
        self.level = np.zeros((rows, columns), np.int64)
        self.codes = np.zeros((rows, columns, model.config["kept_planes"][-1]), np.int64)
        self.exact = np.zeros((rows, columns), bool)
        self.tiles = []
        self.pictures = list[tuple[int, int, bytes]]()  # row and column of the first pixel, file
        side = (1 << self.header.log2_tile) // GRID
        tile_columns = -(-self.header.width // (GRID * side))
        for n, payload in enumerate(self.payloads("TILE")):
            top, left = n // tile_columns * side, n % tile_columns * side
            place = slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
            blocks = ExactBlocks(self.exact[place], b"", payload)
            if self.header.flags & 8:
                blocks = exact_blocks(payload, self.level[place].shape)
                self.exact[place] = blocks.exact
                self.pictures.append((GRID * top, GRID * left, blocks.picture))
            if blocks.exact.all() and not blocks.stream:
                continue
            shape = self.level[place].shape
            tile = Tile(model, self.header.quality_index, shape, blocks.stream)
            self.level[place], self.codes[place] = tile.level, tile.codes
            self.tiles.append(tile)

    def payloads(self, kind: str) -> list[bytes]:
        """What the sections of one type hold."""
        return [payload for found, payload in self.sections if found == kind]

    def qualities(self) -> Floats:
        """Section 4, "Quality of regions": the quality index at each code position [h,w]."""
        everywhere = np.full(self.level.shape, float(self.header.quality_index))
        for png in self.payloads("QMAP"):
            blocks = np.asarray(Image.open(io.BytesIO(png))).astype(np.float64)
            rows, columns = ((np.arange(count) + 0.5) / 2 - 0.5 for count in self.level.shape)
            down = np.stack(
                [np.interp(rows, np.arange(len(blocks)), column) for column in blocks.T], 1
            )
            shift = (
                np.stack([np.interp(columns, np.arange(blocks.shape[1]), row) for row in down])
                - 128
            )
            return np.clip(everywhere + shift, 0, self.model.config["quality_count"] - 1)
        return everywhere

    def pixels(self) -> Integers:
        """Section 7: samples 0 to 255 [height,width,bands], alpha, if any, as the last band."""
        height, width, bands = self.header.height, self.header.width, 1 + self.header.flags % 2 * 2
        samples = np.zeros((height, width, bands), np.int64)
        if not self.exact.all():
            colours = Decoder(self.model).picture(self.codes, self.qualities())
            samples = np.rint(np.clip(colours, 0, 1) * 255).astype(np.int64)
            samples = samples.transpose(1, 2, 0)[:height, :width]
            if bands == 1:
                samples = (samples.sum(2, keepdims=True) + 1) // 3
        for y, x, picture in self.pictures:
            if picture:
                self._show_exact(samples, y, x, picture)
        alpha = [
            np.asarray(Image.open(io.BytesIO(png)))[..., None] for png in self.payloads("ALPH")
        ]
        return np.concatenate([samples, *alpha], 2)

    def _show_exact(self, samples: Integers, y: int, x: int, picture: bytes) -> None:
        """Section 4, "Exact blocks": the tile's picture, whose first pixel lies at row y, column x.

        `samples` [height,width,bands] is changed in place.
        """
        stored = np.asarray(Image.open(io.BytesIO(picture))).astype(np.int64)
        stored = stored.reshape(*stored.shape[:2], -1)
        for row, column in np.argwhere(self.exact):
            top, left = GRID * row - y, GRID * column - x
            if 0 <= top < stored.shape[0] and 0 <= left < stored.shape[1]:
                block = stored[top : top + GRID, left : left + GRID, : samples.shape[2]]
                height, width = block.shape[:2]
                samples[y + top : y + top + height, x + left : x + left + width] = block
