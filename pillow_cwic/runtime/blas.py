"""Matrix products, and how many threads they use: one, where several would wait for each other.

Entropy coding is many small products. BLAS's threads meet after each, and on a busy machine every
product then waits for the slowest. Invariants: the caller's setting is back once the last call
ends; a fork finds no product of ours in its middle.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .forks import ForkedLock, no_fork

T = TypeVar("T", bound=np.floating[Any])


def matmul(x: NDArray[T], weight: NDArray[T], out: NDArray[T] | None = None) -> NDArray[T]:
    """`x @ weight`, into the memory `out` if there is one."""
    with no_fork():
        return np.matmul(x, weight, out=out)


class _Holders:
    """Who wants one thread at the moment; the first sets the limit, the last lifts it."""

    def __init__(self) -> None:
        self.lock = ForkedLock()
        self.threads: list[int] = []
        self.limits: Any = None

    def enter(self) -> None:
        """Note one more; set the limit if it is the first."""
        controller = _controller()
        with self.lock, no_fork():
            if not self.threads:
                _take_control()
                self.limits = controller.limit(limits=1, user_api="blas")
            self.threads.append(threading.get_ident())

    def leave(self) -> None:
        """Note one less; lift the limit if it was the last."""
        with self.lock, no_fork():
            self.threads.remove(threading.get_ident())
            if not self.threads:
                self._lift()

    def after_fork_in_child(self) -> None:
        """Other threads do not exist here, and what they wanted does not count."""
        others = [ident for ident in self.threads if ident != threading.get_ident()]
        for ident in others:
            self.threads.remove(ident)
        if others and not self.threads:
            self._lift()

    def _lift(self) -> None:
        _take_control()
        self.limits.restore_original_limits()
        _take_control()  # and leave it to whoever asks next


_holders = _Holders()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products on one thread, process-wide while any caller is inside."""
    _holders.enter()
    try:
        yield
    finally:
        _holders.leave()


def _take_control() -> None:
    """Where threadpoolctl obeys one thread at a time, and silently no other: the next one."""
    from threadpoolctl import OpenBLASController

    clear = getattr(OpenBLASController, "clear_controlling_thread", None)  # since 3.8
    if clear is not None:
        clear(force=True)


@cache
def _controller() -> Any:
    """Finds the BLAS libraries in this process, once."""
    with no_fork():
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holders.after_fork_in_child)
