"""The distortion in NumPy against the one that training has in PyTorch."""

import numpy as np
import pytest
import torch
from PIL import Image

from pillow_cwic.search.original import Original
from pillow_cwic.training.distortion import distortion


@pytest.mark.parametrize("size", [(200, 181), (65, 64), (11, 40)])
@pytest.mark.parametrize("shares", [(0.3, 0.4), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_value_and_gradient_are_pytorchs(photo: Image.Image, size, shares):
    """Of pictures of odd sides and of few scales: to 1e-4 of the largest."""
    height, width = size
    resized = photo.convert("RGB").resize((width, height))
    original = np.asarray(resized, np.float32) / 255
    noise = np.random.default_rng(1).normal(0, 0.08, original.shape)
    picture = (original + noise).clip(0, 1).astype(np.float32)

    x = torch.from_numpy(picture).permute(2, 0, 1)[None].requires_grad_()
    y = torch.from_numpy(original).permute(2, 0, 1)[None]
    expected = distortion(x, y, *shares)[2].sum()
    (gradient,) = torch.autograd.grad(expected, x)

    compared = Original(original, *shares)
    value, slope = compared.total([part() for part in compared.parts(picture, True)])
    assert value == pytest.approx(expected.item(), rel=1e-4)
    wanted = gradient[0].permute(1, 2, 0).numpy()
    assert np.abs(slope - wanted).max() < 1e-4 * np.abs(wanted).max()
    alone, _ = compared.total([part() for part in compared.parts(picture, False)])
    assert alone == value


def test_parts_that_are_unlike_have_no_infinite_slope():
    """A picture's negative has no similarity to lose: MS-SSIM's powers stay finite."""
    original = np.random.default_rng(2).random((40, 40, 3), np.float32)
    compared = Original(original, 1.0, 0.0)
    value, slope = compared.total([part() for part in compared.parts(1 - original, True)])
    assert value > 600
    assert np.isfinite(slope).all()


def test_too_small_pictures_are_refused():
    """The window has to fit."""
    with pytest.raises(ValueError, match="at least 11 pixels on each side, found 10"):
        Original(np.zeros((10, 40, 3), np.float32), 0.3, 0.3)
