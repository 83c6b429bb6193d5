"""The range coder writes what docs/format.md says, at every probability."""

import numpy as np
import pytest
from independent_entropy import RangeDecoder, RangeEncoder
from places import GOLDEN

from pillow_cwic.entropy.plain_range_coder import PlainRangeDecoder, PlainRangeEncoder
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


@pytest.mark.parametrize("ones", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_plain_python_writes_the_same_bytes(ones: float):
    """The coder for platforms without constriction: same words, same bits, whatever they are."""
    random = np.random.default_rng(int(1000 * ones))
    for count in (1, 2, 7, 3000):
        probability = random.integers(32, 65505, count) / 65536
        bits = random.random(count) < ones
        writer, plain = RangeWriter(), PlainRangeEncoder()
        writer.code(probability, bits)
        plain.encode(bits[: count // 2], probability[: count // 2])
        plain.encode(bits[count // 2 :], probability[count // 2 :])
        words = plain.words()
        assert words.astype("<u4").tobytes() == writer.to_bytes()
        decoder = PlainRangeDecoder(words)
        found = [decoder.decode(part) for part in np.array_split(probability, 3)]
        assert np.array_equal(np.concatenate(found), bits)
        assert decoder.maybe_exhausted()


def test_plain_python_refuses_what_constriction_refuses():
    """Changed and lengthened streams end alike: with an error, or with the same bits."""
    random = np.random.default_rng(2)
    probability = random.integers(32, 65505, 200) / 65536
    writer = RangeWriter()
    writer.code(probability, random.random(200) < probability)
    stream = np.frombuffer(writer.to_bytes(), "<u4")
    for _ in range(200):
        words = np.append(stream, random.integers(0, 2**32, random.integers(0, 3), np.uint32))
        words[random.integers(len(words))] = random.choice([0, 2**32 - 1, random.integers(2**32)])
        words = words.astype(np.uint32)
        plain = PlainRangeDecoder(words)
        found = plain.decode(probability)
        reader = RangeReader(words.astype("<u4").tobytes())
        if found is None:
            with pytest.raises(FormatError, match="no encoder writes"):
                reader.code(probability)
            continue
        assert np.array_equal(found, reader.code(probability))
        if plain.maybe_exhausted():
            reader.finish()
        else:
            with pytest.raises(FormatError, match="longer than"):
                reader.finish()


def test_without_constriction_files_are_the_same(fresh_python):
    """All golden files decode, and a picture encodes, to the same bytes; one warning says why."""
    code = f"""if True:
        import hashlib, sys, warnings
        if sys.argv[1] == "without":
            sys.modules["constriction"] = None
        import numpy as np
        import pillow_cwic
        from pathlib import Path
        from pillow_cwic.weights import models
        folder = Path({str(GOLDEN)!r})
        models.load(folder / "tiny" / "tiny.safetensors", "cpu")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for path in sorted(folder.rglob("*.cwic")):
                print(path.stem, hashlib.sha256(pillow_cwic.decode(path)).hexdigest())
            picture = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
            print(hashlib.sha256(pillow_cwic.encode(picture)).hexdigest())
        assert len(caught) == (sys.argv[1] == "without")"""
    shown = fresh_python(code, "without")
    assert shown == fresh_python(code, "with")
    assert len(shown.splitlines()) == 13
    quick = "import sys; sys.modules['constriction'] = None; import pillow_cwic"
    warn = "pillow_cwic.encode(__import__('numpy').zeros((9, 9), 'uint8'))"
    with pytest.raises(AssertionError, match="constriction is not installed: bits are coded in"):
        fresh_python(f"{quick}; {warn}")  # where warnings are errors
