"""The range coder: bits and their probabilities <-> bytes (paper, section 3.4: arithmetic coding).

`constriction`'s queue range coder with 32-bit words, stored little-endian; the same in plain Python
where constriction is missing. Probabilities are multiples of 2^-16 inside (0, 1), so their float64
form is exact and both sides see the same number. `RangeWriter` and `RangeReader` have one method in
common, so that one traversal serves both directions; neither knows what a bit means.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from ..runtime.warn import warn_caller
from .plain_range_coder import PlainRangeDecoder, PlainRangeEncoder

# Here and not at the first bit, which threads code: a fork waits for imports that begin a call.
try:
    import constriction
except ImportError:
    constriction = None

Bits = NDArray[np.bool_]
Words = NDArray[np.uint32]
Probabilities = NDArray[np.float64]


class BitCoder(Protocol):
    """What a traversal of a tile's bits talks to."""

    def code(self, probability: Probabilities, bits: Bits | None) -> Bits:
        """P(bit = 1) [m] and the bits [m] when writing (None when reading) -> the bits [m]."""


class RangeWriter:
    """Codes bits as they come: a tile's decisions are never in memory together."""

    def __init__(self) -> None:
        self._encoder = PlainRangeEncoder() if _is_plain() else _Encoder()
        self._is_empty = True

    def code(self, probability: Probabilities, bits: Bits | None) -> Bits:
        """Write `bits` [m]; returns them."""
        if bits is None:
            raise TypeError("a RangeWriter needs the bits to write")
        if len(bits):
            self._encoder.encode(bits, probability)
            self._is_empty = False
        return bits

    def to_bytes(self) -> bytes:
        """The stream, at the end; its length is a multiple of 4 bytes (0 for no bits)."""
        return b"" if self._is_empty else self._encoder.words().astype("<u4").tobytes()


class RangeReader:
    """Reads back, in the same order and with the same probabilities, what a RangeWriter wrote."""

    def __init__(self, stream: bytes | memoryview) -> None:
        if len(stream) % 4:
            raise FormatError(
                f"range-coded stream of {len(stream)} bytes: expected a multiple of 4"
            )
        words = np.frombuffer(stream, "<u4").astype(np.uint32)
        self._decoder = PlainRangeDecoder(words) if _is_plain() else _Decoder(words)

    def code(self, probability: Probabilities, bits: Bits | None = None) -> Bits:
        """Read one bit for each of `probability` [m]."""
        found = self._decoder.decode(probability)
        if found is None:
            raise FormatError("range-coded stream is invalid: no encoder writes these words")
        return found

    def finish(self) -> None:
        """Refuse a stream that holds more than what was read."""
        if not self._decoder.maybe_exhausted():
            raise FormatError("range-coded stream is longer than the codes it should hold")


class _Encoder:
    """As PlainRangeEncoder, in constriction."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def encode(self, bits: Bits, probability: Probabilities) -> None:
        self._encoder.encode(bits.astype(np.int32), _model(), _distributions(probability))

    def words(self) -> Words:
        return np.asarray(self._encoder.get_compressed(), np.uint32)


class _Decoder:
    """As PlainRangeDecoder, in constriction."""

    def __init__(self, words: Words) -> None:
        self._decoder = constriction.stream.queue.RangeDecoder(words)
        self._model = _model()

    def decode(self, probability: Probabilities) -> Bits | None:
        try:
            bits = self._decoder.decode(self._model, _distributions(probability))
        except AssertionError:  # how constriction reports words that no encoder writes
            return None
        return np.asarray(bits, np.bool_)

    def maybe_exhausted(self) -> bool:
        return bool(self._decoder.maybe_exhausted())


def _model() -> Any:
    # perfect=False is spelled out because it changes the bytes. A Bernoulli model gives the same
    # ones in twice the time.
    return constriction.stream.model.Categorical(perfect=False)


def _distributions(probability: Probabilities) -> NDArray[np.float64]:
    """P(bit = 1) [m] -> the probabilities of 0 and 1, [m,2]."""
    both = np.empty((len(probability), 2))
    np.subtract(1, probability, out=both[:, 0])
    both[:, 1] = probability
    return both


@functools.cache
def _is_plain() -> bool:
    """Whether constriction is missing; says so, once."""
    if constriction is None:
        warn_caller(
            "constriction is not installed: bits are coded in plain Python, the same ones several "
            "times slower; it has wheels for Linux (x86-64, glibc), macOS and Windows"
        )
    return constriction is None


if constriction is not None:
    # What it sets up at its first use, one coded bit sets up here: a child that is forked in the
    # middle of that would wait for its end for good.
    _first = _Encoder()
    _first.encode(np.ones(1, np.bool_), np.full(1, 0.5))
    _Decoder(_first.words()).decode(np.full(1, 0.5))
