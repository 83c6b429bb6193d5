"""Every documented switch of PyTorch's precision: files and pixels are as without, and so is it."""

from pathlib import Path

import pytest

from pillow_cwic.networks import torch_precision

SWITCHES = """
import sys
from pathlib import Path
import numpy as np, torch
import pillow_cwic

torch.set_num_threads(1)
backends = torch.backends

def switches():
    '''Where fp32_precision is, by its documented name; older switches as functions.'''
    names = ["", "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn",
             "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"]
    for name in names:
        owner = backends
        for part in name.split("."):
            owner = getattr(owner, part, None) if part else owner
        if hasattr(owner, "fp32_precision"):
            values = ["tf32"] + (["bf16"] if "mkldnn" in name else [])
            for value in values:
                yield f"{name} {value}", lambda o=owner, v=value: setattr(o, "fp32_precision", v)
    for value in ("high", "medium", "highest"):
        yield value, lambda v=value: torch.set_float32_matmul_precision(v)
    for owner in (backends.cuda.matmul, backends.cudnn):
        for value in (True, False):
            yield f"allow_tf32 {value}", lambda o=owner, v=value: setattr(o, "allow_tf32", v)
    yield "deterministic", lambda: torch.use_deterministic_algorithms(True)
    yield "denormals", lambda: torch.set_flush_denormal(True)
"""

CODING = """
model = sys.argv[1]
pixels = np.cumsum(np.random.default_rng(1).integers(-3, 4, (48, 48, 3)), 1).astype(np.uint8)

def settings():
    found = [torch.are_deterministic_algorithms_enabled()]
    leaves = [backends.cuda.matmul, *(getattr(owner, name, None) for owner in
              (backends.cudnn, backends.mkldnn) for name in ("conv", "matmul", "rnn"))]
    found += [leaf.fp32_precision for leaf in leaves if hasattr(leaf, "fp32_precision")]
    for read in (torch.get_float32_matmul_precision, lambda: backends.cuda.matmul.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:  # torch's own, where older and newer switches disagree
            found.append("mixed")
    return found

def file():
    return pillow_cwic.encode(pixels, model=model, quality=0.9, device="torch")

data = file()
shown = pillow_cwic.decode(data, device="torch")
for name, switch in switches():
    switch()
    before = settings()
    assert file() == data, f"{name}: another file"
    assert np.array_equal(pillow_cwic.decode(data, device="torch"), shown), f"{name}: other pixels"
    assert settings() == before, f"{name}: {before} became {settings()}"
    print(name)
"""

TRAINING = """
from safetensors.numpy import load_file
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.export import export_weights
from pillow_cwic.training.step import Step

class Crops:
    crops = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    advance = lambda self: None
    draw = lambda self: self.crops

torch.manual_seed(1)
smoke = recipes.load("smoke")
step = Step(smoke, Crops(), torch.device("cpu"))
step.begin(smoke.stages[0])
step.rate.fill_(1e-3)
path = Path(sys.argv[1]) / "trained.safetensors"
pixels = (step.source.crops[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
exported = []
for name, switch in switches():
    switch()
    step()
    if name in ("medium", "denormals"):
        export_weights(step.joint, path)
        exported.append(path.read_bytes())
        files = [pillow_cwic.encode(pixels, model=path, device=device)
                 for device in ("cpu", "torch")]
        for file in files:
            shown = [pillow_cwic.decode(file, device=device) for device in ("cpu", "torch")]
            assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1, name
        for key, tensor in load_file(path).items():
            assert tensor.dtype.kind in "iu" or not key.startswith("entropy."), key
        switch()
        export_weights(step.joint, path)
        assert path.read_bytes() == exported[-1], name
    print(name)
assert len(set(exported)) == len(exported)
sums = step.take_sums()
assert sums["skipped"] == 0 and 0 < sums["loss"] < 1e4, sums
"""


def test_no_switch_of_precision_matters(tiny: Path, fresh_python) -> None:
    """Encoding and decoding in PyTorch under each switch in turn, with effort under some."""
    done = fresh_python(SWITCHES + CODING, tiny).splitlines()
    assert len(done) >= 9
    assert "medium" in done


def test_no_switch_of_precision_stops_a_training(tmp_path: Path, fresh_python) -> None:
    """A step under each switch, set in mid-run, then an export: its networks code alike everywhere.

    The same weights are the same file.
    """
    done = fresh_python(SWITCHES + TRAINING, tmp_path).splitlines()
    assert len(done) >= 9
    assert "denormals" in done


@pytest.mark.parametrize("kind", [torch_precision._Products, torch_precision._Convolutions])
def test_older_switches_are_read_and_written(kind) -> None:
    """What torch before 2.9 has: full precision and back."""
    switch = kind()
    before = switch.read()
    switch.write(switch.full)
    assert switch.read() == switch.full
    switch.write(before)
    assert switch.read() == before
