"""Worker processes: spawned, and gone soon after their parent, whatever ended it.

Spawned, not forked: a forked child of a process that used torch can hang. Invariant: a worker
outlives its parent by moments at most, and holds nobody's pipe open.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any


@contextmanager
def worker_processes(
    count: int, set_up: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """An executor of so many processes, each of which begins with `set_up(*arguments)`.

    At the end, and on Ctrl-C, TERM and HUP, what is being done is finished and the rest dropped.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = _Pool(count, spawn, initializer=_begin_worker, initargs=(set_up, arguments))
    with _signals_as_interrupts():
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


class _Pool(ProcessPoolExecutor):
    """Its processes know no Ctrl-C from their first moment on, before `_begin_worker` runs."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As that of the executor, which starts processes here."""
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        # A process has the signals blocked that its parent had. The tracker of resources, which is
        # started with the first one, would unblock them: it is started before.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(set_up: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches all: this process ends what it does, and is ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if set_up is not None:
        set_up(*arguments)


def _end_with_parent() -> None:
    """Its pipe closes when a parent is gone, even one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """TERM and HUP are KeyboardInterrupt here, as Ctrl-C is; unless someone else handles them."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only it may say so
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
