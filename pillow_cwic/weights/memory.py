"""What is kept in memory once loaded: loaded once whoever asks, the least recently used goes first.

Invariant: no lock of its own is held while something loads, and a forked child waits for no thread
of its parent.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..runtime.forks import ForkedLock

T = TypeVar("T")


class Memory(Generic[T]):
    """Things by key, at most so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = ForkedLock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._loading: dict[Hashable, Future[T]] = {}  # by a thread, at the moment
        _all.add(self)

    def get(self, key: Hashable) -> T | None:
        """What is kept under this key."""
        with self._lock.held:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def load(self, key: Hashable, load: Callable[[], T]) -> T:
        """What is kept, else what `load` gives; threads that ask at once get the same, or error."""
        ours: Future[T] = Future()
        with self._lock.held:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._loading.setdefault(key, ours)
        if future is ours:
            self._fill(ours, key, load)
        return future.result()

    def forget(self) -> None:
        """Keep nothing; what is loading now is not kept either."""
        with self._lock.held:
            self._kept.clear()
            self._loading.clear()

    def _fill(self, future: Future[T], key: Hashable, load: Callable[[], T]) -> None:
        try:
            result = load()
        except BaseException as error:  # whoever waits must hear of it, a KeyboardInterrupt too
            self._end(future, key)
            future.set_exception(error)
        else:
            self._end(future, key, result)
            future.set_result(result)

    def _end(self, future: Future[T], key: Hashable, *results: T) -> None:
        with self._lock.held:
            if self._loading.get(key) is not future:
                return  # forgotten
            del self._loading[key]
            for result in results:
                self._kept[key] = result
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)

    def after_fork_in_child(self) -> None:
        """The threads that load do not exist here."""
        self._loading.clear()


_all: weakref.WeakSet[Memory[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for memory in _all:
        memory.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
