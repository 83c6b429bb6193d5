"""The successive family, written from docs/format.md alone: the integer codes of a tile, and the decoder CNN.

Each docstring names the section it follows. Imports nothing from the package.
"""

from __future__ import annotations

import numpy as np
from independent_entropy import ONE, Decision, Integers, Tile, everywhere, neighbours, square
from independent_network import Floats, Network, shuffled

QUARTERS = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))  # by step and place: section 5, "Four steps"


class Code:
    """A code on its way down the passes (section 5, "The ladder")."""

    def __init__(self, place: tuple[int, int, int], mean: int, table: list[int]) -> None:
        """`place` is row, column, channel; `table` the row of `logistic` for the code's scale index."""
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


class SuccessiveTile(Tile):
    """One tile's levels and integer codes."""

    def _read_codes(self) -> None:
        """Section 5, "Four steps"."""
        self.map_features = self._map_features()
        self.kept = np.array(self.model.config["kept_planes"])[self.level]
        self.logistic = self.model.tensors["entropy.logistic"]
        self.read: list[Code] = []  # in the order of the steps
        rows, columns = np.indices(self.level.shape)
        self.place = rows % 2 * 2 + columns % 2
        for step in range(4):
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
        weight, bias = (self.model.tensors[f"entropy.{name}.{part}"].astype(np.int64) for part in ("weight", "bias"))
        grid = x.reshape(*self.level.shape, -1)
        near = neighbours(grid, everywhere(self.level.shape), square(1)).reshape(len(x), 9, -1)
        return np.clip(((near * weight).sum(1) + bias + 128) >> 8, 0, 127)

    def _predicted(self, step: int) -> list[Code]:
        """Section 5, "Predictions": the codes of a step in its order, with their means and scales."""
        layer, name = self.model.layer, f"planes.{step}"
        h = layer(f"{name}.hidden", self._inputs(step), (self.quality_index,))
        h = layer(f"{name}.mid1", self._depthwise(f"{name}.depth1", h))
        h = layer(f"{name}.mid2", self._depthwise(f"{name}.depth2", h))
        outputs = [layer(f"{name}.out{quarter}", h) for quarter in range(4)]
        found = []
        for at, (y, x) in enumerate(np.ndindex(self.level.shape)):
            quarter = QUARTERS[step][self.place[y, x]]
            for i, channel in enumerate(range(quarter, self.kept[y, x], 4)):
                mean, scale = outputs[quarter][at, [i, self.planes // 4 + i]].tolist()
                row = self.logistic[min(max(scale + 32, 0), 63)].tolist()
                found.append(Code((y, x, channel), mean, row))
        return found

    def _decide(self, code: Code, question: str, part: int, whole: int) -> int:
        """Section 5, "From the table to probabilities": the bit of one decision."""
        k = min(max(part * 65536 // max(whole, 1), 32), 65504)
        bit = self.coder.bit(k)
        self.bits.append(Decision(code.place, question, part, whole, k, bit, self.coder.lower, self.coder.range))
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
                code.size += self._decide(code, f"more than {j}", code.beyond(j), code.beyond(j - 1))
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


class SuccessiveDecoder(Network):
    """The decoder CNN of the successive family."""

    def gain(self, quality: Floats) -> Floats:
        """Section 7, "Layers (successive family)": each channel's gain at each position [n,rows,columns]."""
        t = quality / max(1, self.config["quality_count"] - 1) * 2 - 1
        return np.exp(np.tensordot(self.tensors["gain.coefficients"], np.stack([t**0, t, t**2]), (0, 0)))

    def picture(self, codes: Integers, quality: Floats) -> Floats:
        """The same: codes [rows,columns,n] -> red, green, blue [3,16*rows,16*columns], nominally 0 to 1."""
        b4, b8, b16 = self.config["decoder_blocks"]
        a = codes.transpose(2, 0, 1) / self.gain(quality)
        x = self.modulation("quality_sixteenth", self.convolution("stem", a), quality)
        x = shuffled(self.convolution("up_eighth", self.blocks("sixteenth", b16, x)), 2)
        b = self.blocks("eighth", b8, self.modulation("quality_eighth", x, np.kron(quality, np.ones((2, 2)))))
        x = self.blocks("quarter", b4, shuffled(self.convolution("up", b), 2))
        linear = shuffled(self.convolution("shortcut", a), 16)
        linear_eighth = shuffled(self.convolution("shortcut_eighth", b), 8)
        return (shuffled(self.convolution("out", x), 4) + linear + linear_eighth) / 2 + 1 / 2
