"""What the package asks of the machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CwicError


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def memory_errors(doing: str, advice: str) -> Iterator[None]:
    """Turns a MemoryError into a CwicError that says what was asked for and what would help."""
    try:
        yield
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        raise CwicError(f"not enough memory to {doing}{reason}: {advice}") from error
