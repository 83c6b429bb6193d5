"""The importance map: which code planes exist where (paper, section 3.3).

The encoder's importance branch gives `p` in (0, 1) at every code position. Quantized to L levels,
level q keeps the first `kept_planes[q]` planes there. Everything here is elementwise and knows
neither networks nor bytes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RAMP_LEVELS = 2.5
"""Width of the mask's proxy gradient, in levels."""


def importance_level(p: Tensor, levels: int) -> Tensor:
    """Importance `p` in (0, 1), any shape -> level 0..levels-1 in the same shape and float type."""
    return torch.floor(p * levels).clamp(0, levels - 1)


def mask(p: Tensor, first_level: Sequence[int] | Tensor, levels: int) -> Tensor:
    """Importance `p` [B,1,h,w] -> importance mask [B,n,h,w] of 0 and 1.

    Plane k is kept where the quantized level reaches `first_level[k]`. Backward, the step is
    replaced by a ramp `RAMP_LEVELS` wide around it: the paper's proxy for the mask, wide enough to
    reach neighbouring levels.
    """
    # first_level is a tensor where a CUDA graph is captured: no copy from the host.
    on = torch.as_tensor(first_level, device=p.device, dtype=p.dtype)[None, :, None, None]
    hard = (importance_level(p, levels) >= on).to(p.dtype)  # [B,n,h,w]
    ramp = ((p * levels - on) / RAMP_LEVELS + 0.5).clamp(0, 1)
    return ramp + (hard - ramp).detach()


def kept(level: Tensor, first_level: Sequence[int]) -> Tensor:
    """Quantized levels [h,w] -> boolean mask [h,w,n] of the planes that exist."""
    return level[:, :, None] >= torch.tensor(first_level, device=level.device, dtype=level.dtype)
