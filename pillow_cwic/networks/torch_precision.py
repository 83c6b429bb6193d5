"""PyTorch's switches of precision and of gradients, whatever the caller has chosen.

Products are in full float32. Invariant: the caller's choice is back once the last call ends; the
switches are the process's, so that it does not count meanwhile. With torch 2.9 each kind of product
has a switch of its own, which follows more general ones where it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..runtime.meanwhile import Meanwhile


class _Switch:
    """`fp32_precision` of one kind of product."""

    full = "ieee"

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def read(self) -> Any:
        """What applies now."""
        return self._backend.fp32_precision

    def write(self, value: Any) -> None:
        """Make a value apply: by saying nothing, where that is enough."""
        self._backend.fp32_precision = "none"
        if self._backend.fp32_precision != value:
            self._backend.fp32_precision = value


class _Products:
    """The matrix products of torch before 2.9, on all devices."""

    full = "highest"

    def read(self) -> Any:
        return torch.get_float32_matmul_precision()

    def write(self, value: Any) -> None:
        torch.set_float32_matmul_precision(value)


class _Convolutions:
    """The convolutions of torch before 2.9, on GPUs."""

    full = False

    def read(self) -> Any:
        return torch.backends.cudnn.allow_tf32

    def write(self, value: Any) -> None:
        torch.backends.cudnn.allow_tf32 = value


def _switches() -> list[_Switch | _Products | _Convolutions]:
    backends: Any = torch.backends
    kinds = (backends.cuda.matmul, backends.cudnn, backends.mkldnn)
    if not all(hasattr(kind, "fp32_precision") for kind in kinds):
        return [_Products(), _Convolutions()]
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return [_Switch(kind) for kind in (kinds[0], cudnn.conv, mkldnn.matmul, mkldnn.conv)]


def _read() -> list[Any]:
    return [switch.read() for switch in _switches()]


def _switch_to_full() -> None:
    for switch in _switches():
        switch.write(switch.full)


def _switch_back(values: list[Any]) -> None:
    for switch, value in zip(_switches(), values, strict=True):
        switch.write(value)


full_precision = Meanwhile(_read, _switch_to_full, _switch_back)
"""A context: products in full float32, process-wide while any caller is inside."""


@contextmanager
def inference() -> Iterator[None]:
    """Run networks without gradients and in full float32, whatever the caller's settings say."""
    full = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with torch.inference_mode(), full[0], full[1], full_precision():
        yield
