"""Which device runs the networks. PyTorch is loaded where it is asked for, nowhere else.

Devices are names: "cpu" is NumPy on the processor, "torch" PyTorch on the processor, "cuda" and
"cuda:N" PyTorch on a GPU. Entropy coding runs on the processor in NumPy, whatever the device.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

DEVICE_VARIABLE = "PILLOW_CWIC_DEVICE"

NUMPY = "cpu"
KNOWN = "cpu, torch, cuda, cuda:N or auto"


def resolve_device(device: object = None) -> str:
    """Argument, else PILLOW_CWIC_DEVICE, else "auto" -> "cpu", "torch", "cuda" or "cuda:N".

    "auto" is "cpu", or "cuda" where this process has imported PyTorch already and it finds a GPU.
    ValueError names what is wrong: an unknown name, a GPU that is not there, PyTorch missing.
    """
    name = str(device) if device is not None else os.environ.get(DEVICE_VARIABLE) or "auto"
    if name == "auto":
        return "cuda" if _gpu_is_at_hand() else NUMPY
    if name == NUMPY:
        return name
    if name != "torch" and not re.fullmatch(r"cuda(:[0-9]{1,4})?", name):
        origin = f"; {DEVICE_VARIABLE} has it" if device is None else ""
        raise ValueError(f"device {name!r} is not known; use {KNOWN}{origin}")
    torch = import_torch(f"device {name!r}")
    count = torch.cuda.device_count()
    if name != "torch" and int(name.partition(":")[2] or 0) >= count:
        raise ValueError(f"device {name!r} asked for, but torch finds {count} CUDA device(s)")
    return name


def describe_device(device: str) -> str:
    """A resolved device for people: what runs where."""
    if device == NUMPY:
        return "cpu (NumPy)"
    return "cpu (PyTorch)" if device == "torch" else f"{device} (PyTorch)"


def import_torch(what: str) -> Any:
    """PyTorch; ValueError where it is missing, saying what needs it and how to get it."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{what} needs PyTorch, which is not installed: pip install 'pillow-cwic[torch]'"
        ) from error
    return torch


def _gpu_is_at_hand() -> bool:
    """Whether PyTorch is imported (wholly) and has a GPU; it is not imported for the question."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_available())
