"""The paper's hard decisions with proxy gradients: binarizer and importance mask.

Forward, they decide as the codec does (`networks.binarizer`, `networks.importance`). Backward, a
proxy function stands in for the step (paper, sections 3.2 and 3.3). Everything is elementwise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RAMP_LEVELS = 2.5
"""Width of the mask's proxy gradient, in levels."""


def binarize(features: Tensor) -> Tensor:
    """`B(e) = [e > 0.5]` of the sigmoid `e` of the features, any shape -> the same, 0 or 1.

    Backward, the proxy function is the identity on [0, 1], where a sigmoid always lies.
    """
    e = torch.sigmoid(features)
    return e + ((e > 0.5).to(e.dtype) - e).detach()


def sign_through(features: Tensor) -> Tensor:
    """The binary codes as -1 and +1: 0 is left for a code that the importance mask leaves out."""
    return binarize(features) * 2 - 1


def round_through(features: Tensor) -> Tensor:
    """The binarizer at a ladder of thresholds, any shape -> the same shape.

    `sign(y) * sum_j B(|y| - j + 1/2)` with B(t) = [t > 0] counts the thresholds 1/2, 3/2, ... that
    |y| passes, which is y rounded. Backward, the proxy functions of all steps, each the identity on
    its own unit interval, add up to the identity.
    """
    return features + (torch.round(features) - features).detach()


def importance_level(p: Tensor, levels: int) -> Tensor:
    """Importance p in (0, 1), any shape -> level 0..levels-1 in the same shape and float type."""
    return torch.floor(p * levels).clamp(0, levels - 1)


def mask(p: Tensor, first_level: Sequence[int] | Tensor, levels: int) -> Tensor:
    """Importance p [B,1,h,w] -> importance mask [B,n,h,w] of 0 and 1.

    Channel k is kept where the quantized level reaches `first_level[k]`. Backward, the step is
    replaced by a ramp RAMP_LEVELS wide around it: the paper's proxy for the mask, wide enough to
    reach neighbouring levels.
    """
    # first_level is a tensor where a CUDA graph is captured: no copy from the host.
    first = torch.as_tensor(first_level, device=p.device, dtype=p.dtype)[None, :, None, None]
    hard = (importance_level(p, levels) >= first).to(p.dtype)  # [B,n,h,w]
    ramp = ((p * levels - first) / RAMP_LEVELS + 0.5).clamp(0, 1)
    return ramp + (hard - ramp).detach()
