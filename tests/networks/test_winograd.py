"""Convolutions of side 3 by Winograd's method, against their definition."""

import numpy as np
import pytest

from pillow_cwic.networks.registers import Workspace
from pillow_cwic.networks.winograd import SIDE, Winograd, scatter, tiles_over


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (8, 3), (30, 17)])
@pytest.mark.parametrize("widths", [(3, 7), (48, 16)])
@pytest.mark.parametrize("relu", [False, True])
def test_it_is_the_convolution_on_any_map(size, widths, relu):
    """Sums over 3 x 3 neighbourhoods, zeros around, to 1e-4 of the largest; one memory for all."""
    random = np.random.default_rng(5)
    height, width = size
    x = random.normal(0, 1, (*size, widths[0]))
    weight = random.normal(0, 0.3, (widths[1], widths[0], 3, 3))
    bias = random.normal(0, 1, widths[1])
    wide = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    near = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (0, 1))  # [h,w,in,3,3]
    expected = np.einsum("hwiyx,oiyx->hwo", near, weight) + bias
    expected = np.maximum(expected, 0) if relu else expected

    rows, columns = tiles_over(height), tiles_over(width)
    padded = np.zeros((SIDE * rows + 2, SIDE * columns + 2, widths[0]), np.float32)
    padded[1 : height + 1, 1 : width + 1] = x
    space = Workspace()
    layer = Winograd(weight.astype(np.float32), bias.astype(np.float32))
    for _ in range(2):  # the second time in memory that holds other numbers
        out = np.empty(expected.shape, np.float32)
        scatter(layer(padded, relu, space), out)
        assert np.abs(out - expected).max() < 1e-4 * np.abs(expected).max()
        scatter(layer(padded, relu, space), out, add=True)
        assert np.abs(out - 2 * expected).max() < 2e-4 * np.abs(expected).max()
