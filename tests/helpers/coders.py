"""What the tests of the entropy layer share: coders, codes, bit coders that look on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from pillow_cwic.entropy.range_coder import RangeReader, RangeWriter
from pillow_cwic.entropy.tile_coder import TileCoder
from pillow_cwic.networks.config import ModelConfig

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "tiny" / "tiny.safetensors"


def read(path: Path) -> tuple[dict[str, np.ndarray], ModelConfig]:
    """Tensors and configuration of a weights file."""
    with safe_open(path, framework="np") as file:
        config = ModelConfig.from_dict(json.loads(file.metadata()["pillow-cwic model 1"]))
    tensors = load_file(path)
    return {name: a for name, a in tensors.items() if name.startswith("entropy.")}, config


def coder_of(path: Path, dtype: type | None = None) -> TileCoder:
    """The tile coder of a weights file."""
    tensors, config = read(path)
    return TileCoder(tensors, config, dtype)


def kept(level: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Which codes exist, [h,w,n]."""
    return np.arange(config.channels) < np.array(config.kept_planes)[level][..., None]


def random_codes(
    shape: tuple[int, int], config: ModelConfig, spread: float = 6.0, highest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes int16 [h,w,n] that the levels uint8 [h,w] allow.

    The first channels spread most, and a few codes escape; signs where there is one threshold.
    """
    random = np.random.default_rng(shape[0] * 1000 + shape[1])
    top = config.levels - 1 if highest is None else highest
    level = random.integers(0, top + 1, shape).astype(np.uint8)
    scale = np.linspace(spread, 0.3, config.channels)
    codes = np.rint(random.normal(0, scale, (*shape, config.channels)))
    codes[0, 0] = 4095
    codes[-1, -1] = -4095
    if config.one_bit:
        codes = np.where(random.normal(0, 1, codes.shape).cumsum(1) > 0, 1, -1)
    return (codes * kept(level, config)).astype(np.int16), level


class HashingWriter(RangeWriter):
    """Writes, and keeps a hash of every probability it was given, and of every bit."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = hashlib.sha256()

    def code(self, probability, bits):
        """As RangeWriter, remembering."""
        bits = super().code(probability, bits)
        self.sha256.update(probability.tobytes())
        self.sha256.update(bits.tobytes())
        return bits


class HashingReader(RangeReader):
    """Reads, and keeps the same hash."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.sha256 = hashlib.sha256()

    def code(self, probability, bits=None):
        """As RangeReader, remembering."""
        bits = super().code(probability, bits)
        self.sha256.update(probability.tobytes())
        self.sha256.update(bits.tobytes())
        return bits


class Cost:
    """A bit coder that adds up the bits that its decisions cost, and counts them."""

    def __init__(self) -> None:
        self.bits = 0.0
        self.count = 0

    def code(self, probability, bits):
        """Writing only."""
        self.bits += float(-np.log2(np.where(bits, probability, 1 - probability)).sum())
        self.count += len(bits)
        return bits


def changed(tensors: Mapping[str, np.ndarray], **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors with some in place of others; names without `entropy.`, and `__` for a dot."""
    return dict(tensors) | {f"entropy.{n.replace('__', '.')}": a for n, a in arrays.items()}


def fewer_bits(x: np.ndarray, lost: int) -> np.ndarray:
    """float32 without its last `lost` bits."""
    return (x.view(np.uint32) & np.uint32(2**32 - 2**lost)).view(np.float32)


def low_inputs(lost: int):
    """A BLAS that drops bits of what it multiplies."""
    return lambda x, w: fewer_bits(x, lost) @ fewer_bits(w, lost)


def low_sums(lost: int):
    """A BLAS that drops bits of what it adds."""

    def product(x, w):
        total = np.zeros((len(x), w.shape[1]), np.float32)
        for k in range(x.shape[1]):
            total = fewer_bits(total + x[:, k : k + 1] * w[k], lost)
        return total

    return product


LIARS = {
    "bfloat16": low_inputs(16),
    "TF32": low_inputs(13),
    "bfloat16, three products": low_inputs(1),
    "float16": lambda x, w: (x.astype(np.float16) @ w.astype(np.float16)).astype(np.float32),
    "sums of 23 bits": low_sums(1),
    "sums of 16 bits": low_sums(8),
}
