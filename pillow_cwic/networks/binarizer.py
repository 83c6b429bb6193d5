"""The binarizer: features -> codes, with the proxy function's gradient (paper, section 3.2)."""

import torch
from torch import Tensor

LARGEST = 4095
"""Largest magnitude of a coded integer; the entropy model's escape reaches further."""


def binarize(features: Tensor) -> Tensor:
    """`B(e) = [e > 0.5]` of the sigmoid `e` of the features, any shape -> the same shape, 0 or 1.

    Backward, the proxy function stands in for the step: the identity on [0, 1], where a sigmoid
    always lies.
    """
    e = torch.sigmoid(features)
    return e + ((e > 0.5).to(e.dtype) - e).detach()


def sign_through(features: Tensor) -> Tensor:
    """The binary codes as -1 and +1, so that 0 can stand for a code that the importance mask left out."""
    return binarize(features) * 2 - 1


def code_signs(features: Tensor) -> Tensor:
    """The same signs as int8 for coding, without a gradient: the sigmoid exceeds 0.5 where the feature exceeds 0."""
    return (features > 0).to(torch.int8) * 2 - 1


def round_through(features: Tensor) -> Tensor:
    """The binarizer at a ladder of thresholds, `sign(y) * sum_j B(|y| - j + 1/2)`, any shape -> the same shape.

    B(t) = [t > 0] here: the sum counts the thresholds 1/2, 3/2, ... that |y| passes, which is y
    rounded. Backward, the proxy functions of all steps, each the identity on its own unit interval,
    add up to the identity.
    """
    return features + (torch.round(features) - features).detach()


def code_integers(features: Tensor) -> Tensor:
    """The same integers as int16 for coding, without a gradient, at most LARGEST in magnitude."""
    return torch.round(features).clamp(-LARGEST, LARGEST).to(torch.int16)


def remainders(features: Tensor, codes: Tensor) -> Tensor:
    """What rounding left of the features, in sixteenths of a step: int8, -8..8.

    The coder may round the other way.
    """
    return ((features - codes) * 16).round().clamp(-8, 8).to(torch.int8)
