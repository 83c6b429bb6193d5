"""What tiles are read with, written from docs/format.md alone.

The weights file's integer layers and the range coder. Sections 5, 6 and 8; each docstring names the
section it follows. Imports nothing from the package.
"""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

ALL64 = 2**64 - 1


class Model:
    """A weights file: configuration, tensors by name, id (section 8)."""

    def __init__(self, data: bytes) -> None:
        length = struct.unpack("<Q", data[:8])[
            0
        ]  # safetensors: header length, JSON header, tensors
        header = json.loads(data[8 : 8 + length])
        self.config = json.loads(header.pop("__metadata__")["pillow-cwic model 1"])
        self.id = hashlib.sha256(data).hexdigest()[:16]
        types = {"F16": "<f2", "I16": "<i2", "I32": "<i4", "U16": "<u2"}
        self.tensors = {}
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            self.tensors[name] = np.frombuffer(data[start:end], types[entry["dtype"]]).reshape(
                entry["shape"]
            )

    def layer(self, name: str, inputs: Integers, row: tuple[int, ...] = ()) -> Integers:
        """Section 5, "Integer layers": inputs [m,in] -> activations, logits or predictions [m,out].

        `row` picks the bias vector. The product runs in float64, which is exact: sums stay below
        2^24.
        """
        weight, bias = (
            self.tensors[f"entropy.{name}.weight"],
            self.tensors[f"entropy.{name}.bias"][row],
        )
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
