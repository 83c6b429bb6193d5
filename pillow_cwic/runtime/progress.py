"""How far a call is: work that is expected and work that is done, told as a share of 0 to 1.

Invariant: what is told never falls, and 1 is told once, at the end. Work is counted in units of the
caller's; what an estimate leaves out only bends the curve.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias, TypeVar

FEATURES_WORK = 1.0
"""The half of the encoder that no quality changes, on a picture: the unit of encoding."""

HEADS_WORK = 0.3
"""The other half, once for each quality that is tried."""

CODING_WORK = 0.7
"""Entropy coding, likewise."""

CORRECTION_WORK = 0.9
"""A run of the decoder, and what the encoder learns from it, likewise."""

PASS_WORK = 6.0
"""One pass of effort."""

T = TypeVar("T")
R = TypeVar("R")

Tell: TypeAlias = Callable[[float], object]
"""Takes the share that is done."""


class Progress:
    """Counts, from several threads; `tell` is called from one of them at a time.

    What it raises ends the call.
    """

    def __init__(self, tell: Tell | None = None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._expected = 0.0
        self._done = 0.0
        self._told = 0.0

    def expect(self, units: float) -> None:
        """So much more is to be done."""
        with self._lock:
            self._expected += units

    def add(self, units: float) -> None:
        """So much more is done."""
        if self._tell is None:
            return
        with self._lock:
            self._done += units
            share = min(self._done / max(self._expected, self._done), 0.99)
            if share > self._told:
                self._told = share
                self._tell(share)

    def counting(self, function: Callable[[T], R], units: float) -> Callable[[T], R]:
        """The function, each call of which is so much work."""

        def counted(item: T) -> R:
            result = function(item)
            self.add(units)
            return result

        return counted

    def finish(self) -> None:
        """All is done."""
        if self._tell is not None:
            self._tell(1.0)
