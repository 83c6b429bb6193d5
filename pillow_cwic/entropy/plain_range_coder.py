"""The range coder in plain Python, for platforms that constriction has no wheel for.

The same bytes as constriction's, bit by bit as docs/format.md, section 6, has it: `lower`, `range`
and `point` are its numbers. Invariant: knows streams of words and shares of 2^24, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Probabilities = NDArray[np.float64]

_WHOLE = 1 << 24
_WORD = 1 << 32
_STATE = (1 << 64) - 1


class PlainRangeEncoder:
    """Bits -> words."""

    def __init__(self) -> None:
        self._lower = 0
        self._range = _STATE
        self._words: list[int] = []

    def encode(self, bits: NDArray[np.bool_], probability: Probabilities) -> None:
        """Append bits [m], each 1 with the probability [m]."""
        lower, span = self._lower, self._range
        for bit, zeros in zip(bits.tolist(), _shares_of_zero(probability), strict=True):
            scale = span >> 24
            if bit:
                lower = self._carried(lower + scale * zeros)
                span = scale * (_WHOLE - zeros)
            else:
                span = scale * zeros
            if span < _WORD:
                self._words.append(lower >> 32)
                lower = lower << 32 & _STATE
                span <<= 32
        self._lower, self._range = lower, span

    def words(self) -> Words:
        """The stream; nothing can be appended afterwards."""
        upper = self._lower + self._range & _STATE
        end = self._carried(self._lower + _WORD - 1)
        self._words.append(end >> 32)
        if end >> 32 == upper >> 32:
            self._words.append(0)
        return np.array(self._words, np.uint32)

    def _carried(self, lower: int) -> int:
        """`lower` within 64 bits; what is beyond goes into the words before."""
        if lower <= _STATE:
            return lower
        last = len(self._words) - 1
        while self._words[last] == _WORD - 1:
            self._words[last] = 0
            last -= 1
        self._words[last] += 1
        return lower & _STATE


class PlainRangeDecoder:
    """Words -> bits."""

    def __init__(self, words: Words) -> None:
        self._words = words.tolist()
        self._next = 2
        first, second = [*self._words[:2], 0, 0][:2]
        self._offset = first << 32 | second  # point - lower
        self._range = _STATE

    def decode(self, probability: Probabilities) -> NDArray[np.bool_] | None:
        """The next bits [m], each 1 with the probability [m]; None if no encoder writes this."""
        offset, span = self._offset, self._range
        words, following = self._words, self._next
        count = len(words)
        bits = []
        for zeros in _shares_of_zero(probability):
            scale = span >> 24
            border = scale * zeros
            if offset < border:
                bits.append(False)
                span = border
            elif offset < scale << 24:
                bits.append(True)
                offset -= border
                span = (scale << 24) - border
            else:
                return None
            if span < _WORD:
                span <<= 32
                offset = offset << 32 | (words[following] if following < count else 0)
                following += 1
        self._offset, self._range, self._next = offset, span, following
        return np.array(bits, np.bool_)

    def maybe_exhausted(self) -> bool:
        """Whether the words end here, as far as they can tell."""
        return self._next >= len(self._words) and self._offset < 2 * _WORD - 1


def _shares_of_zero(probability: Probabilities) -> Iterable[int]:
    """P(bit = 1) [m], multiples of 2^-16 -> what a 0 has of 2^24, [m]."""
    zeros = 65536 - (probability * 65536).astype(np.int64)
    return (256 * zeros - (zeros > 32768)).tolist()  # type: ignore[no-any-return]
