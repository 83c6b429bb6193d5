"""Convolutions by Winograd's method, against their definition."""

import numpy as np
import pytest

from pillow_cwic.networks.registers import Workspace
from pillow_cwic.networks.winograd import SIDE, Winograd, scatter, tiles_over


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (8, 3), (30, 17)])
@pytest.mark.parametrize("widths", [(3, 7), (48, 16)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_it_is_the_convolution_on_any_map(size, widths, stride, relu):
    """Sums over neighbourhoods of 3 x 3, or 4 x 4 with stride 2, zeros around, `size` outputs.

    To 1e-4 of the largest; one memory for all.
    """
    random = np.random.default_rng(5)
    height, width = size
    side = stride + 2
    x = random.normal(0, 1, (stride * height, stride * width, widths[0]))
    weight = random.normal(0, 0.3, (widths[1], widths[0], side, side))
    bias = random.normal(0, 1, widths[1])
    wide = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    near = np.lib.stride_tricks.sliding_window_view(wide, (side, side), (0, 1))
    near = near[::stride, ::stride]  # [h,w,in,side,side]
    expected = np.einsum("hwiyx,oiyx->hwo", near, weight) + bias
    expected = np.maximum(expected, 0) if relu else expected

    rows, columns = (SIDE * stride * tiles_over(count) + 2 for count in size)
    padded = np.zeros((rows, columns, widths[0]), np.float32)
    padded[1 : len(x) + 1, 1 : x.shape[1] + 1] = x
    space = Workspace()
    layer = Winograd(weight.astype(np.float32), bias.astype(np.float32), stride)
    for _ in range(2):  # the second time in memory that holds other numbers
        out = np.empty(expected.shape, np.float32)
        scatter(layer(padded, relu, space), out)
        assert np.abs(out - expected).max() < 1e-4 * np.abs(expected).max()
        scatter(layer(padded, relu, space), out, add=True)
        assert np.abs(out - 2 * expected).max() < 2e-4 * np.abs(expected).max()
