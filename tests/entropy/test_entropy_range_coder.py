"""The range coder writes what docs/format.md says, at every probability."""

import numpy as np
import pytest
from independent_entropy import RangeDecoder, RangeEncoder

from pillow_cwic.entropy.range_coder import RangeReader, RangeWriter
from pillow_cwic.errors import FormatError


def every_probability() -> tuple[np.ndarray, np.ndarray]:
    """All k of P = k / 65536 in a random order, and a bit for each that is 1 as often as P says."""
    random = np.random.default_rng(5)
    k = random.permutation(np.arange(32, 65505))
    return k, random.random(len(k)) < k / 65536


def test_bytes_are_those_of_the_document_at_every_probability():
    """The bytes and the bits read back are those of the independent coder, carries included."""
    k, bits = every_probability()
    writer, document = RangeWriter(), RangeEncoder()
    for start in range(0, len(k), 997):  # many calls of many lengths are one stream
        part = slice(start, start + 997)
        assert writer.code(k[part] / 65536, bits[part]) is not None
    for one, bit in zip(k.tolist(), bits.tolist(), strict=True):
        document.bit(one, bit)
    stream = writer.to_bytes()
    assert stream == document.end()
    reader, document_reader = RangeReader(stream), RangeDecoder(stream)
    found = reader.code(k / 65536)
    assert found.dtype == np.bool_
    assert np.array_equal(found, bits)
    reader.finish()
    assert [document_reader.bit(one) for one in k[:2000].tolist()] == bits[:2000].tolist()


def test_no_bits_are_no_bytes():
    """An empty stream has no words, and reads as such."""
    assert RangeWriter().to_bytes() == b""
    RangeReader(b"").finish()


def test_streams_that_no_encoder_writes_are_refused():
    """Odd lengths, words left over and impossible words raise FormatError and say so."""
    with pytest.raises(FormatError, match="stream of 5 bytes: expected a multiple of 4"):
        RangeReader(bytes(5))
    writer = RangeWriter()
    writer.code(np.full(3, 0.5), np.ones(3, np.bool_))
    reader = RangeReader(writer.to_bytes() + bytes(8))
    assert reader.code(np.full(3, 0.5)).tolist() == [True] * 3
    with pytest.raises(FormatError, match="longer than the codes it should hold"):
        reader.finish()
    with pytest.raises(FormatError, match="no encoder writes these words"):
        RangeReader(b"\xff" * 8).code(np.full(40, 65504 / 65536))


def test_a_writer_needs_bits():
    """Asking a writer for bits is a mistake of the caller's."""
    with pytest.raises(TypeError, match="needs the bits to write"):
        RangeWriter().code(np.full(1, 0.5), None)
