"""The importance map: which code channels exist where (paper, section 3.3). NumPy, no gradients.

The encoder's importance branch gives p in (0, 1) at every code position. Quantized to L levels,
level l keeps the first `kept_planes[l]` channels there. Gradients are in
`training.proxy_gradients`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]


def importance_level(logit: NDArray[np.float32], levels: int) -> Levels:
    """The branch's output before its sigmoid, any shape -> level 0..levels-1."""
    p = 1 / (1 + np.exp(-logit))
    return np.floor(p * levels).clip(0, levels - 1).astype(np.uint8)


def kept_channels(level: Levels, kept_planes: Sequence[int]) -> int:
    """How many first channels hold all that exists in a map of levels; at least one."""
    return max(1, kept_planes[int(level.max())])


def kept_mask(
    level: Levels, kept_planes: Sequence[int], channels: int | None = None
) -> NDArray[np.bool_]:
    """Levels [h,w] -> which of the first channels, by default of all, exist where, [h,w,n]."""
    kept = np.array(kept_planes)[level]  # [h,w]
    return np.arange(channels or kept_planes[-1]) < kept[..., None]
