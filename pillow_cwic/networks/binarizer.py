"""The binarizer: features -> codes as they are coded (paper, section 3.2). NumPy, no gradients.

The paper's one-bit decision at a ladder of thresholds: `sign(y) * sum_j B(|y| - j + 1/2)`, which is
y rounded; or at one threshold, the sign. Gradients are in `training.proxy_gradients`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Codes = NDArray[np.int16]
Remainders = NDArray[np.int8]

LARGEST = 4095
"""Largest magnitude of a coded integer; the entropy model's escape reaches further."""

SIXTEENTHS = 16
"""The unit of remainders: so many make a step of a code."""


def code_integers(features: Features) -> Codes:
    """The features rounded, halves to even, at most LARGEST in magnitude; any shape."""
    return np.rint(features).clip(-LARGEST, LARGEST).astype(np.int16)


def code_signs(features: Features) -> Codes:
    """The codes of one threshold, any shape: +1 where a feature is above 0, else -1."""
    return np.where(features > 0, np.int16(1), np.int16(-1))


def channels_in_use(codes: NDArray[np.signedinteger[Any]]) -> int:
    """How many first channels hold all codes [h,w,n] that are not 0; at least one.

    The others can be left out of what a decoder is given.
    """
    used = np.flatnonzero(codes.any((0, 1)))
    return int(used[-1]) + 1 if used.size else 1


def remainders(features: Features, codes: Codes) -> Remainders:
    """What rounding left of the features, in sixteenths of a step, -8..8; any common shape.

    The coder may round the other way.
    """
    sixteenths: Features = np.rint((features - codes) * SIXTEENTHS).clip(-8, 8)
    return sixteenths.astype(np.int8)
