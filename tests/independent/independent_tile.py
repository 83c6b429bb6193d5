"""A tile's levels and codes, written from docs/format.md alone: section 5.

Each docstring names the part it follows. Imports nothing from the package.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from independent_entropy import Integers, Model, RangeDecoder, RangeEncoder, zeros_share

Positions = tuple[Integers, Integers]  # rows [m] and columns [m]

ONE = 32  # what stands for 1 as an input of an integer layer
STAGE_SPACINGS = (4, 4, 2, 2, 1, 1)
QUARTERS = (
    (0, 1, 2, 3),
    (3, 2, 1, 0),
    (2, 3, 0, 1),
    (1, 0, 3, 2),
)  # by turn and place: "Seven steps"
STEPS = (
    (0, {0}),
    (0, {1}),
    (0, {2, 3}),
    (1, {0, 1}),
    (1, {2, 3}),
    (2, {0, 1, 2, 3}),
    (3, {0, 1, 2, 3}),
)  # turn, parts


class Bit(NamedTuple):
    """One bit of a level, decoded by its logit, and the coder's state after it."""

    place: tuple[int, int, int]  # row, column, node of the tree
    logit: int
    k: int
    c: int
    bit: int
    lower: int
    range: int


class Decision(NamedTuple):
    """One bit of a code, and the coder's state after it.

    Section 5, "From the table to probabilities".
    """

    place: tuple[int, int, int]  # row, column, channel
    question: str
    part: int
    whole: int
    k: int
    bit: int
    lower: int
    range: int


class Code:
    """A code on its way down the passes (section 5, "The ladder")."""

    def __init__(self, place: tuple[int, int, int], mean: int, table: list[int]) -> None:
        """`place` is row, column, channel.

        `table` the row of `logistic` for the code's scale index.
        """
        self.place, self.mean, self.table = place, mean, table
        self.foot = (mean + 8) // 16
        self.e = mean - 16 * self.foot
        self.above, self.below = table[8 - self.e], table[8 + self.e]
        self.sign = 0
        self.size = 0  # abs(w), as far as it is known
        self.length, self.written = 4, 1  # of the escape: B, and the binary digits of r so far

    def beyond(self, j: int) -> int:
        """The part of the pass "more than j"; of j - 1 it is the whole."""
        return self.table[16 * j + 8 - self.sign * self.e]


def square(reach: int) -> list[tuple[int, int]]:
    """The neighbours (dy, dx) of a 3x3 or 5x5 layer in their order (section 5)."""
    steps = range(-reach, reach + 1)
    return [(dy, dx) for dy in steps for dx in steps]


def neighbours(grid: Integers, at: Positions, steps: list[tuple[int, int]]) -> Integers:
    """Channels [h,w,c] of the neighbours of m positions -> [m,len(steps)*c] (section 5).

    0 outside the grid.
    """
    padded = np.pad(grid, ((2, 2), (2, 2), (0, 0)))
    return np.concatenate([padded[at[0] + 2 + dy, at[1] + 2 + dx] for dy, dx in steps], 1)


def everywhere(shape: tuple[int, ...]) -> Positions:
    """All positions of a grid [h,w], row-major."""
    y, x = np.indices(shape).reshape(2, -1)
    return y, x


class Tile:
    """Section 5: one tile's payload -> `level` [h,w], `codes` [h,w,n].

    The `bits` that they were read from.
    """

    def __init__(
        self, model: Model, quality_index: int, shape: tuple[int, int], payload: bytes
    ) -> None:
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
        self.bits.append(
            Bit(place, logit, k, zeros_share(k), bit, self.coder.lower, self.coder.range)
        )
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
            x = np.stack(
                [8 * (grid - self.levels // 2) * known, ONE * known, np.full(grid.shape, ONE)], -1
            )
            h = self.model.layer(
                "maps.conv1",
                neighbours(x, everywhere(grid.shape), square(2)),
                (self.quality_index, stage),
            )
            h = self.model.layer(
                "maps.conv2", neighbours(h.reshape(*grid.shape, -1), new, square(1))
            )
            self._read_trees(
                spacing, new, self.model.layer("maps.out", self.model.layer("maps.conv3", h))
            )

    def _read_trees(self, spacing: int, at: Positions, logits: Integers) -> None:
        """The levels of a stage's positions [m] by their nodes' logits [m,L-1], depth by depth."""
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
        h = self.model.layer("planes.map_in", neighbours(x, everywhere(shape), square(2))).reshape(
            *shape, -1
        )
        return self.model.layer(
            "planes.map_mid", neighbours(h, everywhere(shape), square(1))
        ).reshape(*shape, -1)

    def _read_codes(self) -> None:
        """Section 5, "Seven steps"."""
        self.map_features = self._map_features()
        self.kept = np.array(self.model.config["kept_planes"])[self.level]
        self.logistic = self.model.tensors["entropy.logistic"]
        self.read: list[Code] = []  # in the order of the steps
        rows, columns = np.indices(self.level.shape)
        self.place = rows % 2 * 2 + columns % 2
        for step in range(len(STEPS)):
            codes = self._predicted(step)
            if self.model.config["ladder"]:
                self._climb(codes)
            else:
                self._signs(codes)
            for code in codes:
                self.codes[code.place] = code.foot + code.sign * code.size
            self.read += codes

    def _inputs(self, step: int) -> Integers:
        """Section 5, "Predictions": the inputs of planes.k.hidden at all positions [h*w,in]."""
        parts = [
            ONE * np.eye(self.levels, dtype=np.int64)[self.level],
            ONE * np.eye(4, dtype=np.int64)[self.place],
            self.map_features,
        ]
        if step:
            parts += [8 * np.clip(self.codes, -15, 15), 8 * np.clip((self.codes + 4) // 8, -15, 15)]
        return np.concatenate(parts, 2).reshape(self.level.size, -1)

    def _depthwise(self, name: str, x: Integers) -> Integers:
        """Section 5, "Integer layers": x [h*w,c] -> activations [h*w,c]."""
        weight, bias = (
            self.model.tensors[f"entropy.{name}.{part}"].astype(np.int64)
            for part in ("weight", "bias")
        )
        grid = x.reshape(*self.level.shape, -1)
        near = neighbours(grid, everywhere(self.level.shape), square(1)).reshape(len(x), 9, -1)
        return np.clip(((near * weight).sum(1) + bias + 128) >> 8, 0, 127)

    def _predicted(self, step: int) -> list[Code]:
        """Section 5, "Predictions": the codes of a step, in order, with means and scales."""
        layer, name = self.model.layer, f"planes.{step}"
        h = layer(f"{name}.hidden", self._inputs(step), (self.quality_index,))
        for pair in range(1, self.model.config["context_layers"] + 1):
            h = layer(f"{name}.mid{pair}", self._depthwise(f"{name}.depth{pair}", h))
        outputs = [layer(f"{name}.out{place}", h) for place in range(4)]
        (turn, parts), found = STEPS[step], []
        for at, (y, x) in enumerate(np.ndindex(self.level.shape)):
            place = self.place[y, x]
            coded = [
                c
                for c in range(QUARTERS[turn][place], self.planes, 4)
                if (c // 4 + place) % 4 in parts
            ]
            for i, channel in enumerate(c for c in coded if c < self.kept[y, x]):
                mean, scale = outputs[place][at, [i, len(coded) + i]].tolist()
                row = self.logistic[min(max(scale + 32, 0), 63)].tolist()
                found.append(Code((y, x, channel), mean, row))
        return found

    def _decide(self, code: Code, question: str, part: int, whole: int) -> int:
        """Section 5, "From the table to probabilities": the bit of one decision."""
        k = min(max(part * 65536 // max(whole, 1), 32), 65504)
        bit = self.coder.bit(k)
        self.bits.append(
            Decision(code.place, question, part, whole, k, bit, self.coder.lower, self.coder.range)
        )
        return bit

    def _signs(self, codes: list[Code]) -> None:
        """Section 5, "One threshold": the bits of a step."""
        for code in codes:
            tail = code.table[min(abs(code.mean), 16)]
            part = tail if code.mean <= 0 else (1 << 30) - tail
            code.foot, code.size = 0, 1
            code.sign = 1 if self._decide(code, "sign", part, 1 << 30) else -1

    def _climb(self, codes: list[Code]) -> None:
        """Section 5, "The ladder": the passes of a step."""
        for code in codes:
            code.size = self._decide(code, "zero", code.above + code.below, 1 << 30)
        codes = [code for code in codes if code.size]
        for code in codes:
            code.sign = 1 if self._decide(code, "sign", code.above, code.above + code.below) else -1
        for j in range(1, self.model.config["ladder"] + 1):
            for code in codes:
                code.size += self._decide(
                    code, f"more than {j}", code.beyond(j), code.beyond(j - 1)
                )
            codes = [code for code in codes if code.size > j]
        self._escape(codes)

    def _escape(self, codes: list[Code]) -> None:
        """Section 5, "The ladder": the passes "longer" and "digit" of the codes past it."""
        for b in range(4, 12):
            for code in codes:
                if code.length >= b:
                    code.length += self._decide(code, f"longer than {b}", 1, 2)
        for b in range(11, -1, -1):
            for code in codes:
                if code.length > b:
                    code.written = 2 * code.written + self._decide(code, f"digit {b}", 1, 2)
        for code in codes:
            code.size = code.written + self.model.config["ladder"] - 15

    def rewritten(self) -> bytes:
        """The payload that a writer makes of the bits read."""
        encoder = RangeEncoder()
        for bit in self.bits:
            encoder.bit(bit.k, bit.bit)
        return encoder.end()
