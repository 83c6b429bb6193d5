"""Entropy decoding of .cwic files, written from docs/format.md alone: the weights file, the range coder, one tile.

Sections 5, 6 and 8, what both families share; each docstring names the section it follows. Imports nothing from the
package. The codes of a tile are read in `independent_planes` (one-bit family) and `independent_successive`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Positions = tuple[Integers, Integers]  # rows [m] and columns [m]

ONE = 32  # what stands for 1 as an input of an integer layer
STAGE_SPACINGS = (4, 4, 2, 2, 1, 1)
ALL64 = 2**64 - 1


class Model:
    """A weights file: configuration, tensors by name, id (section 8)."""

    def __init__(self, data: bytes) -> None:
        length = struct.unpack("<Q", data[:8])[0]  # safetensors: header length, JSON header, tensors
        header = json.loads(data[8 : 8 + length])
        self.config = json.loads(header.pop("__metadata__")["pillow-cwic model 1"])
        self.successive = self.config.get("family") == "successive"
        self.side = 16 if self.successive else 8  # pixels of a code position, `G` of section 5
        self.id = hashlib.sha256(data).hexdigest()[:16]
        types = {"F16": "<f2", "I16": "<i2", "I32": "<i4", "U16": "<u2"}
        self.tensors = {}
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            self.tensors[name] = np.frombuffer(data[start:end], types[entry["dtype"]]).reshape(entry["shape"])

    def layer(self, name: str, inputs: Integers, row: tuple[int, ...] = ()) -> Integers:
        """Section 5, "Integer layers": inputs [m,in] -> activations, logits or predictions [m,out].

        `row` picks the bias vector. The product runs in float64, which is exact: sums stay below 2^24.
        """
        weight, bias = self.tensors[f"entropy.{name}.weight"], self.tensors[f"entropy.{name}.bias"][row]
        total = (inputs.astype(np.float64) @ weight.astype(np.float64)).astype(np.int64) + bias
        last = name.rpartition(".")[2]
        if last == "out":
            return np.clip((total + 256) >> 9, -128, 128)
        if last.startswith("out"):
            return np.clip((total + 256) >> 9, -1920, 1920)
        return np.clip((total + 128) >> 8, 0, 127)


def zeros_share(k: int) -> int:
    """Section 6: what a 0 takes of 2^24 when a 1 has the probability k / 65536."""
    z = 65536 - k
    return 256 * z if z <= 32768 else 256 * z - 1


class RangeDecoder:
    """Section 6: a tile's payload -> bits."""

    def __init__(self, payload: bytes) -> None:
        self.words = np.frombuffer(payload, "<u4").tolist()
        self.used = 0
        self.lower, self.range = 0, ALL64
        self.point = self._word() << 32
        self.point |= self._word()

    def _word(self) -> int:
        self.used += 1
        return self.words[self.used - 1] if self.used <= len(self.words) else 0

    def bit(self, k: int) -> int:
        """The next bit, a 1 with the probability k / 65536."""
        c, scale = zeros_share(k), self.range >> 24
        t = ((self.point - self.lower) & ALL64) // scale
        if t >= 1 << 24:
            raise ValueError("no encoder writes these words")
        bit = int(t >= c)
        if bit:
            self.lower = (self.lower + scale * c) & ALL64
        self.range = scale * ((1 << 24) - c if bit else c)
        if self.range < 1 << 32:
            self.lower, self.range = (self.lower << 32) & ALL64, self.range << 32
            self.point = ((self.point << 32) & ALL64) | self._word()
        return bit

    def finish(self) -> None:
        """Refuses a payload that holds more than the bits read."""
        if self.used < len(self.words) or (self.point - self.lower) & ALL64 >= 2**33 - 1:
            raise ValueError("words are left over")


class RangeEncoder:
    """Section 6, "Writing": bits -> the payload that constriction writes."""

    def __init__(self) -> None:
        self.lower, self.range = 0, ALL64
        self.words: list[int] = []

    def bit(self, k: int, bit: int) -> None:
        """Codes one bit that is 1 with the probability k / 65536."""
        c, scale = zeros_share(k), self.range >> 24
        if bit:
            self.lower = self._carried(self.lower + scale * c)
        self.range = scale * ((1 << 24) - c if bit else c)
        if self.range < 1 << 32:
            self.words.append(self.lower >> 32)
            self.lower, self.range = (self.lower << 32) & ALL64, self.range << 32

    def _carried(self, value: int) -> int:
        if value <= ALL64:
            return value
        last = len(self.words) - 1
        while self.words[last] == 2**32 - 1:
            self.words[last] = 0
            last -= 1
        self.words[last] += 1
        return value & ALL64

    def end(self) -> bytes:
        """The payload."""
        upper = (self.lower + self.range) & ALL64
        end = self._carried(self.lower + 2**32 - 1)
        self.words.append(end >> 32)
        if end >> 32 == upper >> 32:
            self.words.append(0)
        return np.array(self.words, "<u4").tobytes()


class Bit(NamedTuple):
    """One bit decoded by its logit, and the coder's state after it."""

    place: tuple[int, int, int]  # row, column, and node of the tree or plane
    logit: int
    k: int
    c: int
    bit: int
    lower: int
    range: int


class Decision(NamedTuple):
    """One bit of the ladder, and the coder's state after it (section 5, "The ladder")."""

    place: tuple[int, int, int]  # row, column, channel
    question: str
    part: int
    whole: int
    k: int
    bit: int
    lower: int
    range: int


def square(reach: int) -> list[tuple[int, int]]:
    """The neighbours (dy, dx) of a 3x3 or 5x5 layer in their order (section 5)."""
    steps = range(-reach, reach + 1)
    return [(dy, dx) for dy in steps for dx in steps]


def neighbours(grid: Integers, at: Positions, steps: list[tuple[int, int]]) -> Integers:
    """Channels [h,w,c] of the neighbours of m positions, 0 outside the grid -> [m,len(steps)*c] (section 5)."""
    padded = np.pad(grid, ((2, 2), (2, 2), (0, 0)))
    return np.concatenate([padded[at[0] + 2 + dy, at[1] + 2 + dx] for dy, dx in steps], 1)


def everywhere(shape: tuple[int, ...]) -> Positions:
    """All positions of a grid [h,w], row-major."""
    y, x = np.indices(shape).reshape(2, -1)
    return y, x


class Tile:
    """Section 5: one tile's payload -> `level` [h,w], `codes` [h,w,n], and the `bits` that they were read from."""

    def __init__(self, model: Model, quality_index: int, shape: tuple[int, int], payload: bytes) -> None:
        self.model, self.quality_index, self.payload = model, quality_index, payload
        self.levels, self.planes = len(model.config["kept_planes"]), model.config["kept_planes"][-1]
        self.probability = model.tensors["entropy.probability"].tolist()
        self.coder, self.bits = RangeDecoder(payload), list[Bit | Decision]()
        self.level = np.zeros(shape, np.int64)
        self.codes = np.zeros((*shape, self.planes), np.int64)
        self._read_levels()
        self.level_bits = len(self.bits)
        self._read_codes()
        self.coder.finish()

    def _bit(self, place: tuple[int, int, int], logit: int) -> int:
        k = self.probability[logit + 128]
        bit = self.coder.bit(k)
        self.bits.append(Bit(place, logit, k, zeros_share(k), bit, self.coder.lower, self.coder.range))
        return bit

    def _read_levels(self) -> None:
        """Section 5, "The importance map": seven stages, coarse to fine."""
        first = everywhere(self.level[::8, ::8].shape)
        coarsest = self.model.tensors["entropy.maps.coarsest"][self.quality_index].astype(np.int64)
        self._read_trees(8, first, np.tile(coarsest, (len(first[0]), 1)))
        for stage, spacing in enumerate(STAGE_SPACINGS):
            grid = self.level[::spacing, ::spacing]
            i, j = np.indices(grid.shape)
            if stage % 2 == 0:
                known, now = (i % 2 == 0) & (j % 2 == 0), (i % 2 == 1) & (j % 2 == 1)
            else:
                known, now = (i + j) % 2 == 0, (i + j) % 2 == 1
            new = np.nonzero(now)
            x = np.stack([8 * (grid - self.levels // 2) * known, ONE * known, np.full(grid.shape, ONE)], -1)
            h = self.model.layer(
                "maps.conv1", neighbours(x, everywhere(grid.shape), square(2)), (self.quality_index, stage)
            )
            h = self.model.layer("maps.conv2", neighbours(h.reshape(*grid.shape, -1), new, square(1)))
            self._read_trees(spacing, new, self.model.layer("maps.out", self.model.layer("maps.conv3", h)))

    def _read_trees(self, spacing: int, at: Positions, logits: Integers) -> None:
        """The levels of a stage's positions [m] from their nodes' logits [m,L-1], depth by depth."""
        node = [0] * len(logits)
        for _ in range(self.levels.bit_length() - 1):
            for n, (i, j) in enumerate(zip(*(axis.tolist() for axis in at), strict=True)):
                bit = self._bit((i * spacing, j * spacing, node[n]), int(logits[n, node[n]]))
                node[n] = 2 * node[n] + 1 + bit
        # A leaf of the tree is the bits as a binary number, plus the number of inner nodes.
        self.level[::spacing, ::spacing][at] = np.array(node, np.int64) - (self.levels - 1)

    def _map_features(self) -> Integers:
        """Section 5, "The map features" [h,w,map_features]."""
        shape = self.level.shape
        x = np.stack([8 * (self.level - self.levels // 2), np.full(shape, ONE)], -1)
        h = self.model.layer("planes.map_in", neighbours(x, everywhere(shape), square(2))).reshape(*shape, -1)
        return self.model.layer("planes.map_mid", neighbours(h, everywhere(shape), square(1))).reshape(*shape, -1)

    def _read_codes(self) -> None:
        """Section 5, the family's own part; fills `codes`."""
        raise NotImplementedError

    def rewritten(self) -> bytes:
        """The payload that a writer makes of the bits read."""
        encoder = RangeEncoder()
        for bit in self.bits:
            encoder.bit(bit.k, bit.bit)
        return encoder.end()
