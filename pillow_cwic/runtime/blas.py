"""Matrix products, and how many threads they use: one, where several would wait for each other.

Entropy coding is many small products. BLAS's threads meet after each, and on a busy machine every
product then waits for the slowest. Invariants: the caller's setting is back once the last call
ends; a fork finds no product of ours in its middle.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .forks import no_fork
from .meanwhile import Meanwhile

T = TypeVar("T", bound=np.floating[Any])


def matmul(x: NDArray[T], weight: NDArray[T], out: NDArray[T] | None = None) -> NDArray[T]:
    """`x @ weight`, into the memory `out` if there is one."""
    with no_fork():
        return np.matmul(x, weight, out=out)


def _read() -> list[tuple[Any, int]]:
    """BLAS libraries in this process, and their threads."""
    with no_fork():
        return [(library, library.get_num_threads()) for library in _libraries()]


def _limit() -> None:
    """One thread for each."""
    with no_fork():
        _take_control()
        for library in _libraries():
            library.set_num_threads(1)


def _restore(before: list[tuple[Any, int]]) -> None:
    """As many threads as there were."""
    with no_fork():
        _take_control()
        for library, count in before:
            library.set_num_threads(count)
        _take_control()  # and leave it to whoever asks next


one_blas_thread = Meanwhile(_read, _limit, _restore)
"""A context: NumPy's matrix products on one thread, process-wide while any caller is inside."""


def _take_control() -> None:
    """Where threadpoolctl obeys one thread at a time, and silently no other: the next one."""
    from threadpoolctl import OpenBLASController

    clear = getattr(OpenBLASController, "clear_controlling_thread", None)  # since 3.8
    if clear is not None:
        clear(force=True)


@cache
def _libraries() -> list[Any]:
    """Finds the BLAS libraries in this process, once."""
    with no_fork():
        from threadpoolctl import ThreadpoolController

        controller = ThreadpoolController().select(user_api="blas")
        return list(controller.lib_controllers)
