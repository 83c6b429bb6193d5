"""Independent pieces of work, such as tiles and windows, on several threads.

NumPy releases the interpreter's lock while it computes. Threads live as long as a call: nothing
waits in the background, and a forked child has none to miss. Each piece in work needs memory of its
own: `threads_within` has so few at a time that they keep to what a call may take, however many
cores there are. Invariant: where no thread can be started, the caller's own does all the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from .machine import available_cores

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 8
"""Of a call: work is divided into as many pieces, and small ones cost more together."""

LEAST_BYTES = 96 << 20
BYTES_PER_PIXEL = 64
MOST_BYTES = 600 << 20
"""What all pieces in work may take together: so much, more for each pixel asked for, and an end."""


def usable_threads() -> int:
    """How many threads a call has at most on this machine."""
    return min(available_cores(), MOST_THREADS)


def threads_within(pixels: int, piece_bytes: int) -> int:
    """How many pieces of so much memory may be in work, where so many pixels are asked for."""
    memory_bytes = min(LEAST_BYTES + BYTES_PER_PIXEL * pixels, MOST_BYTES)
    return max(1, min(usable_threads(), memory_bytes // max(piece_bytes, 1)))


def map_parallel(
    function: Callable[[T], R], items: Iterable[T], threads: int | None = None
) -> list[R]:
    """`[function(item) for item in items]`, several at a time; the first error ends it.

    threads: at most, by default `usable_threads()`.
    """
    jobs = list(enumerate(items))
    results: dict[int, R] = {}
    errors: list[BaseException] = []
    queue = iter(jobs)
    lock = threading.Lock()

    def next_job() -> tuple[int, T] | None:
        with lock:
            return None if errors else next(queue, None)

    def work() -> None:
        try:
            while (job := next_job()) is not None:
                results[job[0]] = function(job[1])
        except BaseException as error:  # the caller raises it, a KeyboardInterrupt too
            errors.append(error)

    helpers = _started(work, min(threads or usable_threads(), len(jobs)) - 1)
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [results[number] for number, _ in jobs]


@contextmanager
def another_thread_calls(function: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, where there is a core for it; what it raises is left to who calls it again."""

    def work() -> None:
        with suppress(Exception):
            function()

    helpers = _started(work, min(usable_threads() - 1, 1))
    try:
        yield
    finally:
        for helper in helpers:
            helper.join()


def _started(work: Callable[[], None], count: int) -> list[threading.Thread]:
    """As many threads as can be had, up to `count`."""
    threads: list[threading.Thread] = []
    for _ in range(count):
        thread = threading.Thread(target=work, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no room for another thread
            break
        threads.append(thread)
    return threads
