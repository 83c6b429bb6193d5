"""How near two pictures are."""

import numpy as np
from numpy.typing import ArrayLike


def assert_close(found: ArrayLike, expected: ArrayLike, within: int = 1) -> None:
    """Two arrays of integers have one shape, and no sample differs by more than `within`."""
    a, b = np.asarray(found), np.asarray(expected)
    assert a.dtype.kind in "iu", f"found {a.dtype}, expected integers"
    assert b.dtype.kind in "iu", f"{b.dtype} is expected, not integers"
    assert a.shape == b.shape, f"found shape {a.shape}, expected {b.shape}"
    assert a.size > 0, f"shape {a.shape} has no samples to compare"
    apart = np.abs(a.astype(np.int64) - b.astype(np.int64))
    worst = np.unravel_index(apart.argmax(), apart.shape)
    place = tuple(map(int, worst))
    assert apart[worst] <= within, f"found {a[worst]} at {place}, expected {b[worst]} +- {within}"
