"""The binarizer: features -> one-bit codes, with the proxy function's gradient (paper, section 3.2)."""

import torch
from torch import Tensor


def binarize(features: Tensor) -> Tensor:
    """`B(e) = [e > 0.5]` of the sigmoid `e` of the features, any shape -> the same shape, 0 or 1.

    Backward, the proxy function stands in for the step: the identity on [0, 1], where a sigmoid always lies.
    """
    e = torch.sigmoid(features)
    return e + ((e > 0.5).to(e.dtype) - e).detach()


def signs(features: Tensor) -> Tensor:
    """The binary codes as -1 and +1, so that 0 can stand for a code that the importance mask left out."""
    return binarize(features) * 2 - 1


def code_signs(features: Tensor) -> Tensor:
    """The same signs as int8 for coding, without a gradient: the sigmoid exceeds 0.5 where the feature exceeds 0."""
    return (features > 0).to(torch.int8) * 2 - 1
