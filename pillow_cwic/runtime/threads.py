"""Threads that run torch on one core each, without touching the caller's own thread count.

Entropy coding is many small steps. A second thread inside a step saves little and, where another
process wants the core, costs up to fifty times as much, because every step waits for both.
torch.set_num_threads would help but is process-wide as well: it sets the calling thread's count
(OpenMP keeps one per thread) and the default of threads to come. So each worker sets its own count
to one, once, and a short-lived thread then puts the default back.

Code that runs here is also free of the caller's autocast, default device and inference mode: those
are per thread.
"""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .machine import available_cores

T = TypeVar("T")
R = TypeVar("R")

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def _in_new_thread(function: Callable[[], R]) -> R:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _start_pool() -> ThreadPoolExecutor:
    count = min(available_cores(), 8)  # each tile in work needs about 100 MB
    default = _in_new_thread(torch.get_num_threads)
    ready = threading.Barrier(count + 1)

    def start_worker() -> None:
        # A thread takes over the default at its first use of torch: now, not later.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "pillow-cwic", start_worker)
    for _ in range(count):
        pool.submit(int)  # starts one more thread each, as none is idle before `ready`
    ready.wait()
    _in_new_thread(lambda: torch.set_num_threads(default))
    return pool


def _pool() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = _start_pool()
        return _executor


def map_one_thread(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`[function(item) for item in items]`, in parallel, each call on a single-threaded torch."""

    def call(item: T) -> R:
        with torch.inference_mode():
            return function(item)

    return list(_pool().map(call, items))


def beside(function: Callable[[], R]) -> Callable[[], R]:
    """Start `function` on a worker, if one is free.

    The returned call gives its result, or else does the work here.

    So a worker may use it, too, without waiting for workers that wait for it.
    """

    def call() -> R:
        with torch.inference_mode():
            return function()

    future = _pool().submit(call)
    return lambda: call() if future.cancel() else future.result()


def _after_fork_in_child() -> None:
    global _executor, _lock
    _executor, _lock = None, threading.Lock()  # the parent's threads do not exist here
    torch.set_num_threads(1)  # a forked OpenMP pool hangs at its first parallel region


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
