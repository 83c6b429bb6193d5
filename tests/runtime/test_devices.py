"""Which device runs: NumPy unless something else is asked for, and PyTorch only where it is."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from closeness import assert_close

import pillow_cwic
from pillow_cwic.runtime.devices import describe_device, resolve_device

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import pillow_cwic, numpy as np\n"


@pytest.mark.parametrize("name", ["tpu", "meta", "mps", "cuda:x", "CPU", ""])
def test_unknown_devices_are_named_with_those_that_are(name, monkeypatch):
    """What PyTorch may know and this package does not is refused in one line."""
    if name:
        with pytest.raises(ValueError, match=f"^device '{name}' is not known; use cpu, torch, "):
            resolve_device(name)
        monkeypatch.setenv("PILLOW_CWIC_DEVICE", name)
        with pytest.raises(ValueError, match=f"^device '{name}' is not known"):
            resolve_device()
    else:
        monkeypatch.setenv("PILLOW_CWIC_DEVICE", "")
        assert resolve_device() in ("cpu", "cuda")


def test_a_gpu_that_is_not_there_is_an_error():
    """A number beyond those that PyTorch finds is refused with how many it finds."""
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"torch finds {count} CUDA device"):
        resolve_device(f"cuda:{count}")


def test_the_default_is_numpy_without_a_gpu():
    """NumPy runs unless PyTorch is in this process already and has a GPU; "cpu" is NumPy always."""
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device(None) == resolve_device("auto") == expected
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == "cpu"
    assert describe_device("cpu") == "cpu (NumPy)"
    assert describe_device("torch") == "cpu (PyTorch)"


def test_everything_but_effort_and_gpus_works_without_pytorch(fresh_python, cwic_file):
    """Encoding, decoding, Pillow, importance map and targets never import torch.

    Effort needs none either. A GPU says that it needs it, and how to get it.
    """
    code = (
        WITHOUT_TORCH
        + """if True:
        from PIL import Image
        a = pillow_cwic.decode(sys.argv[1])
        data = pillow_cwic.encode(a, bpp=0.5, effort=1)
        print(a.shape, pillow_cwic.importance_map(data).shape, Image.open(sys.argv[1]).load()[0, 0])
        for options in ({"device": "cuda"}, {"device": "torch"}):
            try:
                pillow_cwic.encode(a, **options)
            except ValueError as error:
                print(error)"""
    )
    lines = fresh_python(code, cwic_file).splitlines()
    assert lines[0].startswith("(72, 88, 3) (5, 6) (")
    advice = "needs PyTorch, which is not installed: pip install 'pillow-cwic[torch]'"
    assert lines[1:] == [
        f"device 'cuda' {advice}",
        f"device 'torch' {advice}",
    ]


def test_blas_gets_its_threads_back(fresh_python):
    """One thread while anyone computes, nested too; then what the caller had."""
    code = """
from threadpoolctl import threadpool_info
from pillow_cwic.runtime.blas import one_blas_thread

def threads():
    return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

print(threads())
with one_blas_thread():
    print(threads())
    with one_blas_thread():
        print(threads())
    print(threads())
print(threads())
"""
    before, *inside, after = fresh_python(code).splitlines()
    assert inside == ["{1}"] * 3
    assert after == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_after_a_decode_decode(fresh_python, cwic_file):
    """Children of a process that has decoded, and whose model is loaded, decode the same."""
    code = """if True:
        import os, sys
        import pillow_cwic
        expected = pillow_cwic.decode(sys.argv[1])
        for number in range(3):
            child = os.fork()
            if child == 0:
                same = (pillow_cwic.decode(sys.argv[1]) == expected).all()
                os._exit(0 if same else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert fresh_python(code, cwic_file).split() == ["0"] * 3


def test_spawned_workers_decode(cwic_bytes):
    """A pool of new processes decodes, each pixel as here within 1 of 255."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for picture in pool.map(pillow_cwic.decode, [cwic_bytes] * 3):
            assert_close(picture, pillow_cwic.decode(cwic_bytes))
            assert picture.dtype == np.uint8
