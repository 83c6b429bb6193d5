"""A setting of the whole process that differs while any caller is inside.

The first caller changes it, the last one's end brings back what was. Invariant: that holds whatever
ends a caller, an exception at any point of this module, such as Ctrl-C makes, included; and in a
forked child, where the other threads that were inside do not exist.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from .forks import ForkedLock

T = TypeVar("T")


class _Caller:
    """One that is inside: it is gone with the caller's frame, however that ends."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Meanwhile(Generic[T]):
    """A setting that is read, changed and restored by the functions it is given."""

    def __init__(
        self, read: Callable[[], T], change: Callable[[], None], restore: Callable[[T], None]
    ) -> None:
        """`restore` takes what `read` gave; each may be called once too often."""
        self._read = read
        self._change = change
        self._restore = restore
        self._lock = ForkedLock()
        self._inside: weakref.WeakSet[_Caller] = weakref.WeakSet()
        self._before: list[T] = []  # what was, from before the change until it is restored
        self._is_changed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork_in_child)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The setting, changed until the context ends; contexts may overlap and be nested."""
        caller = _Caller()
        # Where an exception keeps what follows from its end, this does it with the frame.
        late = weakref.finalize(caller, self._settle_late)
        late.atexit = False
        try:
            self._enter(caller)
            yield
        finally:
            self._leave(caller)
            late.detach()

    def _enter(self, caller: _Caller) -> None:
        with self._lock.held:
            self._inside.add(caller)
            if not self._before:
                self._before.append(self._read())
            if not self._is_changed:
                self._change()
                self._is_changed = True

    def _leave(self, caller: _Caller) -> None:
        with self._lock.held:
            self._inside.discard(caller)
            self._settle()

    def _settle(self) -> None:
        """Restore what was, if nobody is inside."""
        if self._before and not len(self._inside):
            self._is_changed = False
            self._restore(self._before[0])
            self._before.clear()

    def _settle_late(self) -> None:
        """The same, called at any moment: who has the lock then does it."""
        lock = self._lock.held
        if lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                lock.release()

    def _after_fork_in_child(self) -> None:
        for caller in list(self._inside):
            if caller.thread != threading.get_ident():
                self._inside.discard(caller)
        self._settle()
