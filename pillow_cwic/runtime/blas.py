"""How many threads BLAS uses: one, where several would wait for each other.

Entropy coding is many small products. BLAS's threads meet after each, and on a busy machine every
product then waits for the slowest. Invariant: the caller's setting is back once the last call ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


class _Holders:
    """Who wants one thread at the moment; the first sets the limit, the last lifts it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.limits: Any = None

    def enter(self) -> None:
        """Count one more; set the limit if it is the first."""
        with self.lock:
            if self.count == 0:
                self.limits = _controller().limit(limits=1, user_api="blas")
            self.count += 1

    def leave(self) -> None:
        """Count one less; lift the limit if it was the last."""
        with self.lock:
            self.count -= 1
            if self.count == 0:
                self.limits.restore_original_limits()


_holders = _Holders()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products on one thread, process-wide while any caller is inside."""
    _holders.enter()
    try:
        yield
    finally:
        _holders.leave()


@cache
def _controller() -> Any:
    """Finds the BLAS libraries in this process, once."""
    import numpy as np  # noqa: F401 (its BLAS must be loaded to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _after_fork_in_child() -> None:
    """Whoever held the limit does not exist here; a limit that was set stays, in the child."""
    global _holders
    _holders = _Holders()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
