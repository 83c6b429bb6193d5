"""Forks at any moment: what a fork waits for, and locks that a forked child gets anew.

A child has the memory of its parent as it was at the fork, and one thread. A lock that another
thread held stays held there, and a BLAS in the middle of a product stays there: OpenBLAS then
hangs, parent or child. Invariant: a fork by Python finds no thread inside `no_fork()`, and no
`ForkedLock` is held in a child.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

LONGEST_WAIT_SECONDS = 5.0
"""A fork then goes on: late is better than never, whatever holds a thread up."""

_own = threading.local()  # .lock: this thread's
_registry = threading.RLock()  # guards `_threads`; a fork holds it
_threads: weakref.WeakSet[Any] = weakref.WeakSet()  # the RLock of each thread
_held: list[Any] = []  # by a fork that is under way
_locks: weakref.WeakSet[ForkedLock] = weakref.WeakSet()


def no_fork() -> Any:
    """A context for what takes moments: forks by other threads wait for its end. May be nested."""
    lock = getattr(_own, "lock", None)
    if lock is None:
        lock = threading.RLock()
        with _registry:
            _threads.add(lock)
        _own.lock = lock
    return lock


class ForkedLock:
    """A lock that nobody holds in a forked child.

    What it guards must make sense at any moment: a thread may stop in its middle.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)  # waits for no fork, since it may happen in a section

    @property
    def held(self) -> threading.Lock:
        """For a with statement: nothing, such as Ctrl-C, comes between its taking and its block."""
        return self._lock

    def remake(self) -> None:
        """Forget who holds it."""
        self._lock = threading.Lock()


def _before_fork() -> None:
    """Hold every other thread's lock, each as soon as it is free."""
    end = time.monotonic() + LONGEST_WAIT_SECONDS
    _hold(_registry, end)
    for lock in list(_threads):
        _hold(lock, end)  # this thread's own is had at once


def _hold(lock: Any, end: float) -> None:
    if lock.acquire(timeout=max(0.0, end - time.monotonic())):
        _held.append(lock)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    global _registry
    _registry = threading.RLock()
    _held.clear()
    _threads.clear()
    _own.__dict__.clear()
    for lock in list(_locks):
        lock.remake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
