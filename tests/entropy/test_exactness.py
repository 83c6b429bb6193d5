"""The same file gives the same probabilities and codes, whatever the processor's settings."""

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import GOLDEN as GOLDEN_FOLDER
from processes import environment

import pillow_cwic
from pillow_cwic.entropy.range_coder import RangeReader
from pillow_cwic.entropy.tile_coder import TileCoder
from pillow_cwic.errors import WeightsError
from pillow_cwic.format import container
from pillow_cwic.format.grid import tiles
from pillow_cwic.runtime import threads
from pillow_cwic.weights import models

FOLDER = GOLDEN_FOLDER
GOLDEN = sorted(FOLDER.glob("*.cwic"))  # of the default model
TINY = sorted((FOLDER / "tiny").glob("*.cwic"))


class HashingReader(RangeReader):
    """Reads bits and keeps a hash of every probability it was given, and of every bit."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.sha256 = hashlib.sha256()

    def __call__(self, probability, bits=None):
        """As RangeReader, remembering."""
        bits = super().__call__(probability, bits)
        self.sha256.update(probability.tobytes())
        self.sha256.update(bits.tobytes())
        return bits


def fingerprint(entropy: TileCoder, path: Path) -> str:
    """One hash over all probabilities and bits of a file's tiles, in coding order."""
    parsed = container.read(path.read_bytes())
    hashes = []
    for stream, tile in zip(
        parsed.tiles, tiles(*parsed.header.size, parsed.header.tile_size), strict=True
    ):
        reader = HashingReader(stream)
        entropy.walk(reader, (tile.height, tile.width), parsed.header.quality_index)
        hashes.append(reader.sha256.hexdigest())
    return ",".join(hashes)


def entropy_models(dtype: torch.dtype) -> list[tuple[TileCoder, list[Path]]]:
    """The entropy models of the default and of a tiny model, each with its golden files."""
    found = []
    for model, paths in ((None, GOLDEN), (str(FOLDER / "tiny" / "tiny.safetensors"), TINY)):
        loaded = models.load(model, torch.device("cpu"))
        found.append((TileCoder(loaded._tensors, loaded.config, dtype), paths))
    return found


def named(path: Path) -> str:
    """A golden file's name within the folder."""
    return path.relative_to(FOLDER).as_posix()


def all_fingerprints() -> dict[str, str]:
    """Fingerprints of the golden files by threads (1, 2), oneDNN (on, off) and float type."""
    found = {}
    settings = itertools.product((torch.float32, torch.float64), (1, 2), (True, False))
    for dtype, count, onednn in settings:
        torch.set_num_threads(count)
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=onednn):
            for entropy, paths in entropy_models(dtype):
                for path in paths:
                    setting = f"{named(path)} {dtype} {count} threads oneDNN {onednn}"
                    found[setting] = fingerprint(entropy, path)
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Fingerprints by file name, computed once in this process in the plainest setting."""
    return {
        named(path): threads.map_one_thread(lambda p, model=entropy: fingerprint(model, p), [path])[
            0
        ]
        for entropy, paths in entropy_models(torch.float64)
        for path in paths
    }


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_probabilities_do_not_depend_on_the_processor_or_its_settings(capability, expected):
    """Every probability and bit is the same whatever the processor and its settings.

    At every CPU capability, thread count, oneDNN setting and float type.
    """
    result = subprocess.run(
        [sys.executable, __file__],
        env=environment(ATEN_CPU_CAPABILITY=capability),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(result.stdout)
    assert len(found) == 8 * len(GOLDEN + TINY)
    assert {
        setting: value for setting, value in found.items() if value != expected[setting.split()[0]]
    } == {}


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_lowered_float32_precision_changes_no_code(precision, expected):
    """torch.set_float32_matmul_precision() may make products inexact.

    The entropy model then uses float64.
    """
    loaded = models.load(None, torch.device("cpu"))
    try:
        torch.set_float32_matmul_precision(precision)
        found = {named(path): fingerprint(loaded.entropy, path) for path in GOLDEN}
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.items() <= expected.items()
    assert found


def test_the_callers_autocast_and_defaults_change_no_code(expected):
    """The caller's settings leave the decoded picture as it is.

    Autocast, a default dtype of float64, and a default device around a call.
    """
    data = GOLDEN[0].read_bytes()
    plain = pillow_cwic.decode(data, device="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(pillow_cwic.decode(data, device="cpu"), plain)
    torch.set_default_dtype(torch.float64)
    try:
        assert np.array_equal(pillow_cwic.decode(data, device="cpu"), plain)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert np.array_equal(pillow_cwic.decode(data, device="cpu"), plain)


def test_every_layer_stays_far_within_exact_arithmetic():
    """The proven accumulator bound of the shipped model is well below 2^24 in every layer."""
    bounds = models.load(None, torch.device("cpu")).entropy.bounds
    assert len(bounds) == 4 + 2 + 7 * (5 + 4)  # of the map, of the map as context, of seven steps
    assert 0 < max(bounds.values()) < 0.6 * 2**24


def test_weights_that_could_leave_exact_arithmetic_are_refused():
    """A model whose sums may exceed 2^24 does not load, and the message names the layer."""
    loaded = models.load(None, torch.device("cpu"))
    tensors = dict(loaded._tensors)
    tensors["entropy.maps.conv2.weight"] = torch.full_like(
        tensors["entropy.maps.conv2.weight"], 1000
    )
    with pytest.raises(
        WeightsError, match=r"entropy\.maps\.conv2: sums may reach \d+, beyond exact arithmetic"
    ):
        TileCoder(tensors, loaded.config)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_decodes_the_same_picture():
    """Networks on a GPU give the CPU's pixels within 1 of 255.

    Codes come from the same integer walk.
    """
    for path in GOLDEN:
        data = path.read_bytes()
        cpu, gpu = (
            pillow_cwic.decode(data, device=device).astype(int) for device in ("cpu", "cuda")
        )
        assert np.abs(cpu - gpu).max() <= 1


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_float64_is_used_where_float32_may_be_inexact(precision):
    """Permission for reduced precision is enough.

    Whether a processor uses it depends on it and on the shapes.
    """
    loaded = models.load(None, torch.device("cpu"))
    assert loaded.entropy.map.conv1.weight.dtype == torch.float32
    torch.set_float32_matmul_precision(precision)
    try:
        assert loaded.entropy.map.conv1.weight.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(all_fingerprints()))
