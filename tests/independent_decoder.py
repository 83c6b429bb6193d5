"""A second decoder of .cwic files, written from docs/format.md alone; each docstring names the section it follows.

It shares no line with the package and imports nothing from it: NumPy for arithmetic, Pillow for the PNG files within.
It reads well-formed files of models with the metadata key `pillow-cwic model 1`; plain, not quick. What the tests find
equal in both decoders is what the document says, and not an accident of the package's code.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import NamedTuple

import numpy as np
from independent_entropy import Integers, Model, Tile
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

SIGNATURE = bytes.fromhex("89 43 57 49 43 0D 0A 1A")


class Header(NamedTuple):
    """HEAD's fields (section 3)."""

    version: int
    flags: int
    quality_index: int
    log2_tile: int
    width: int
    height: int
    model_id: bytes

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the code grid (section 5, "What a tile holds")."""
        return max(3, -(-self.height // 8)), max(3, -(-self.width // 8))


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


class File:
    """A whole file: sections, HEAD, tiles, and the codes of all tiles on the image's code grid (sections 1 to 5)."""

    def __init__(self, data: bytes, model: Model) -> None:
        self.model, self.sections = model, read_sections(data)
        self.header = Header(*struct.unpack(">4B2I8s", self.sections[0][1]))
        if self.header.version != 1 or self.header.model_id.hex() != model.id:
            raise ValueError(f"not a version 1 file of this model: {self.header}")
        rows, columns = self.header.grid
        self.level = np.zeros((rows, columns), np.int64)
        self.codes = np.zeros((rows, columns, model.config["kept_planes"][-1]), np.int64)
        self.tiles = []
        side = (1 << self.header.log2_tile) // 8
        tile_columns = -(-self.header.width // (8 * side))
        for n, payload in enumerate(self.payloads("TILE")):
            top, left = n // tile_columns * side, n % tile_columns * side
            place = slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
            tile = Tile(model, self.header.quality_index, self.level[place].shape, payload)
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
            rows, columns = (np.arange(side) / 4 - 0.375 for side in self.level.shape)
            down = np.stack([np.interp(rows, np.arange(len(blocks)), column) for column in blocks.T], 1)
            shift = np.stack([np.interp(columns, np.arange(blocks.shape[1]), row) for row in down]) - 128
            return np.clip(everywhere + shift, 0, self.model.config["quality_count"] - 1)
        return everywhere

    def pixels(self) -> Integers:
        """Section 7: samples 0 to 255 [height,width,bands], alpha as the last band where there is one."""
        colours = Decoder(self.model).picture(self.codes, self.qualities())
        samples = np.rint(np.clip(colours, 0, 1) * 255).astype(np.int64)
        samples = samples.transpose(1, 2, 0)[: self.header.height, : self.header.width]
        if not self.header.flags & 1:
            samples = (samples.sum(2, keepdims=True) + 1) // 3
        alpha = [np.asarray(Image.open(io.BytesIO(png)))[..., None] for png in self.payloads("ALPH")]
        return np.concatenate([samples, *alpha], 2)


class Decoder:
    """Section 7: the decoder CNN in float64. All maps are [channels,rows,columns]."""

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self.tensors = {
            name.removeprefix("decoder."): values.astype(np.float64)
            for name, values in model.tensors.items()
            if name.startswith("decoder.")
        }

    def convolution(self, name: str, x: Floats) -> Floats:
        """Section 7, "Terms": stride 1, zeros outside the grid."""
        weight, (rows, columns) = self.tensors[f"{name}.weight"], x.shape[1:]
        size = weight.shape[2]
        reach = (size - 1) // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        out = np.zeros((weight.shape[0], rows, columns)) + self.tensors[f"{name}.bias"][:, None, None]
        for u in range(size):
            for v in range(size):
                out += np.tensordot(weight[:, :, u, v], padded[:, u : u + rows, v : v + columns], 1)
        return out

    def blocks(self, name: str, count: int, x: Floats) -> Floats:
        """Section 7, "Terms": residual blocks name.0, name.1, ..."""
        for i in range(count):
            h = np.maximum(self.convolution(f"{name}.{i}.reduce", x), 0)
            h = np.maximum(self.convolution(f"{name}.{i}.conv", h), 0)
            x = x + self.convolution(f"{name}.{i}.expand", h)
        return x

    def modulation(self, name: str, x: Floats, quality: Floats) -> Floats:
        """Section 7, "Terms": scale and shift by the quality index [rows,columns]."""
        t = quality / max(1, self.config["quality_count"] - 1) * 2 - 1
        h = self._dense(f"{name}.hidden", np.stack([t, t**2, t**3]))
        h = h / 2 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        scale, shift = np.split(self._dense(f"{name}.out", h), 2)
        return x * (1 + scale) + shift

    def _dense(self, name: str, x: Floats) -> Floats:
        return np.tensordot(self.tensors[f"{name}.weight"], x, 1) + self.tensors[f"{name}.bias"][:, None, None]

    def picture(self, codes: Integers, quality: Floats) -> Floats:
        """Section 7, "Layers": codes [rows,columns,n] -> red, green, blue [3,8*rows,8*columns], nominally 0 to 1."""
        x = self.convolution("stem", codes.transpose(2, 0, 1).astype(np.float64))
        a = self.modulation("quality_in", x, quality)
        b = self.blocks("eighth", self.config["decoder_eighth_blocks"], a)
        b = self.modulation("quality_out", b, quality)
        linear = shuffled(self.convolution("shortcut_in", a) + self.convolution("shortcut_out", b), 8)
        x = self.blocks("quarter", self.config["decoder_quarter_blocks"], shuffled(self.convolution("up", b), 2))
        return (shuffled(self.convolution("out", x), 4) + linear) / 2 + 1 / 2


def shuffled(x: Floats, r: int) -> Floats:
    """Section 7, "Terms": pixel shuffle by r, [c*r*r,rows,columns] -> [c,rows*r,columns*r]."""
    channels, rows, columns = x.shape[0] // r**2, *x.shape[1:]
    apart = x.reshape(channels, r, r, rows, columns)  # channel, i, j, y, x
    return apart.transpose(0, 3, 1, 4, 2).reshape(channels, rows * r, columns * r)
