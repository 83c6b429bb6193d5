"""Layers of one position each in NumPy: modulation, gain, rescaling.

They look at no neighbour, so no strips are needed. This module knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.blas import matmul
from .layers import Gain, Modulation, Rescale
from .registers import Floats, Quality, Register, Workspace, as_floats


class ModulationRun:
    """`Modulation`."""

    def __init__(
        self, layer: Modulation, tensors: Mapping[str, NDArray[Any]], quality_count: int
    ) -> None:
        self.last = max(1, quality_count - 1)
        self.hidden = as_floats(tensors[f"{layer.name}.hidden.weight"].T)  # [3,64]
        self.hidden_bias = as_floats(tensors[f"{layer.name}.hidden.bias"])
        self.out = as_floats(tensors[f"{layer.name}.out.weight"].T)  # [64,2c]
        self.out_bias = as_floats(tensors[f"{layer.name}.out.bias"])

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        """As `numpy_layers.Run`."""
        t = _position(quality, self.last)
        basis = np.stack([t, t * t, t**3], -1)  # [3] or [h,w,3]
        hidden = gelu(matmul(basis, self.hidden) + self.hidden_bias)
        both = matmul(hidden, self.out) + self.out_bias
        scale, shift = np.split(_finer(both, source.scale), 2, -1)  # [c] or [h,w,c] each
        x = source.x * (1 + scale)
        x += shift
        return Register(x, source.area, source.scale)


class GainRun:
    """`Gain`."""

    def __init__(
        self, layer: Gain, tensors: Mapping[str, NDArray[Any]], quality_count: int
    ) -> None:
        self.divides = layer.divides
        self.last = max(1, quality_count - 1)
        self.coefficients = as_floats(tensors[f"{layer.name}.coefficients"])  # [3,c]

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        """As `numpy_layers.Run`."""
        t = _position(quality, self.last)
        basis = np.stack([np.ones_like(t), t, t * t], -1)  # [3] or [h,w,3]
        coefficients = self.coefficients[:, : source.x.shape[2]]
        gain = _finer(np.exp(matmul(basis, coefficients)), source.scale)
        x = source.x / gain if self.divides else source.x * gain
        return Register(x, source.area, source.scale)


class RescaleRun:
    """`Rescale`."""

    def __init__(self, layer: Rescale) -> None:
        self.factor = np.float32(layer.factor)
        self.offset = np.float32(layer.offset)

    def __call__(self, source: Register, quality: Quality, space: Workspace) -> Register:
        """As `numpy_layers.Run`."""
        x = source.x * self.factor
        x += self.offset
        return Register(x, source.area, source.scale)


def _position(quality: Quality, last: int) -> Floats:
    """Quality indices -> -1 at the lowest, 1 at the highest; of the same shape."""
    return np.asarray(quality, np.float32) / np.float32(last) * 2 - 1


def _finer(values: Floats, scale: int) -> Floats:
    """Values for every code position [h,w,c] -> for every position of a finer map; [c] stays."""
    if values.ndim == 1 or scale == 1:
        return values
    return values.repeat(scale, 0).repeat(scale, 1)


def gelu(x: Floats) -> Floats:
    """x * Phi(x), by Abramowitz and Stegun's formula 7.1.26 for erf: within 2e-7."""
    z = np.abs(x.astype(np.float64)) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = 0.254829592 + t * (
        -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    )
    erf = np.sign(x) * (1 - t * series * np.exp(-z * z))
    return np.asarray(x * (1 + erf) / 2, np.float32)
