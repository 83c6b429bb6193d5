"""Which device runs, and a torch that computes what it says whatever the caller set.

The caller's torch stays as it was.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve_device(device: "str | torch.device | None") -> torch.device:
    """Argument, else PILLOW_CWIC_DEVICE, else the GPU if there is one.

    ValueError names what is wrong.
    """
    name = str(device) if device is not None else os.environ.get("PILLOW_CWIC_DEVICE") or "auto"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not known; use cpu, cuda, cuda:N or auto") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} asked for, but torch finds {torch.cuda.device_count()} CUDA device(s)"
        )
    return found


def exact_float32() -> bool:
    """Whether float32 matrix products on this CPU are sure to multiply all 24 bits.

    torch.set_float32_matmul_precision("medium"), and its newer kin for oneDNN, allow bfloat16
    products, which round integers. Whether a processor then does so depends on it and on the
    shapes: permission is enough to say no.
    """
    onednn = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    allowed = getattr(onednn, "fp32_precision", "none")
    return torch.get_float32_matmul_precision() == "highest" and allowed in ("none", "ieee")


@contextmanager
def inference() -> Iterator[None]:
    """Run networks without gradients and in full float32, whatever the caller's autocast says."""
    with (
        torch.inference_mode(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


@contextmanager
def differentiable(enabled: bool = True) -> Iterator[None]:
    """Run networks in full float32 with gradients, whatever the caller's autocast, no_grad and inference mode say."""
    full = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with full[0], full[1], torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield
