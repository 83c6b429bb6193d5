"""PSNR and SSIM are those of the field.

Equal to scikit-image, and to what can be worked out by hand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pillow_cwic.metrics import bits_per_pixel
from pillow_cwic.metrics.pictures import luma, psnr, ssim


def noisy(photo: Image.Image, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    original = np.asarray(photo)
    noise = np.random.default_rng(0).normal(0, sigma, original.shape)
    return original, np.clip(np.rint(original + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.3, 4, 40])
def test_psnr_is_scikit_images(photo: Image.Image, sigma: float) -> None:
    """PSNR of RGB pictures equals scikit-image's."""
    a, b = noisy(photo, sigma)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 4, 40])
def test_ssim_is_scikit_images(photo: Image.Image, sigma: float) -> None:
    """SSIM is scikit-image's with Gaussian weights and population covariance, on rounded luma."""
    a, b = noisy(photo, sigma)
    expected = structural_similarity(
        luma(a),
        luma(b),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_grey_uses_the_pixels_themselves(photo: Image.Image) -> None:
    """A grey picture is its own luma; one window's size is enough."""
    a, b = (np.asarray(Image.fromarray(x).convert("L"))[:11, :11] for x in noisy(photo, 10))
    expected = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_luma_is_bt601_studio_range() -> None:
    """Black, white and the primaries have the luma that BT.601 gives them, rounded."""
    primaries = np.array(
        [[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8
    )
    assert luma(primaries).tolist() == [[16, 235, 81, 145, 41]]


def test_equal_pictures(photo: Image.Image) -> None:
    """Equal pictures have infinite PSNR and SSIM 1."""
    a = np.asarray(photo)
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_psnr_by_hand() -> None:
    """One step off everywhere is 48.13 dB."""
    a = np.zeros((2, 3), np.uint8)
    assert psnr(a, a + np.uint8(1)) == pytest.approx(20 * math.log10(255))


def test_bits_per_pixel() -> None:
    """The rate counts the whole file against all pixels."""
    assert bits_per_pixel(768 * 512 // 16, 768, 512) == 0.5


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            np.zeros((4, 4)),
            np.zeros((4, 4)),
            "expected two uint8 pictures, found float64 and float64",
        ),
        (
            np.zeros((4, 4), np.uint8),
            np.zeros((4, 5), np.uint8),
            r"of one shape, found \[4, 4\] and \[4, 5\]",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(a: np.ndarray, b: np.ndarray, message: str) -> None:
    """Wrong types and different shapes are a ValueError that says what was found."""
    with pytest.raises(ValueError, match=message):
        psnr(a, b)


def test_too_small_for_ssim() -> None:
    """A picture without room for one window has no SSIM, and the error says how much it needs."""
    small = np.zeros((30, 10), np.uint8)
    with pytest.raises(ValueError, match="SSIM needs at least 11 x 11 pixels, found 10 x 30"):
        ssim(small, small)


def test_alpha_has_no_luma() -> None:
    """Alpha would be counted as a colour: refused."""
    with pytest.raises(ValueError, match="without alpha"):
        luma(np.zeros((12, 12, 4), np.uint8))
