"""Features -> codes, levels and remainders on NumPy arrays."""

import numpy as np

from pillow_cwic.networks import binarizer
from pillow_cwic.networks.importance import importance_level, kept_mask


def test_codes_are_rounded_and_bounded():
    """Halves go to even numbers, as in training; a code never leaves what the escape can write."""
    features = np.array([0.5, 1.5, -2.5, 1e9, -1e9, 4095.4, np.inf, -0.49], np.float32)
    codes = binarizer.code_integers(features)
    assert codes.dtype == np.int16
    assert codes.tolist() == [0, 2, -2, 4095, -4095, 4095, 4095, 0]


def test_signs_say_which_side_of_zero():
    """+1 above zero, -1 elsewhere, zero included."""
    signs = binarizer.code_signs(np.array([0.1, 0.0, -3.0, 1e-30], np.float32))
    assert signs.dtype == np.int16
    assert signs.tolist() == [1, -1, -1, 1]


def test_remainders_are_sixteenths():
    """Feature minus code in sixteenths, rounded, at most 8 where codes were cut off."""
    features = np.array([1.25, -0.5, 2.03, 5000.0], np.float32)
    remainders = binarizer.remainders(features, np.array([1, 0, 2, 4095], np.int16))
    assert remainders.dtype == np.int8
    assert remainders.tolist() == [4, -8, 0, 8]


def test_levels_divide_the_unit_interval():
    """Importance in L equal parts; the ends stay within the levels."""
    importance = np.array([0.001, 0.2499, 0.2501, 0.99, 0.9999], np.float32)
    level = importance_level(np.log(importance / (1 - importance)), 4)
    assert level.dtype == np.uint8
    assert level.tolist() == [0, 0, 1, 3, 3]


def test_a_level_keeps_the_first_channels():
    """As many as `kept_planes` says."""
    mask = kept_mask(np.array([[0, 1, 2]], np.uint8), (0, 3, 16))
    assert mask.shape == (1, 3, 16)
    assert mask.sum(2).tolist() == [[0, 3, 16]]
    assert mask[0, 1, :3].all()
