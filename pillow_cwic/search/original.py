"""What a picture should look like: how far another is from it, and which way it is nearer.

The distortion of `training.distortion`, which training has in PyTorch, and its gradient, in NumPy.
What the original alone decides is computed once. This module knows pictures only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..metrics import (
    CONTRAST_CONSTANT,
    LEAST_MEAN,
    LUMA,
    LUMINANCE_CONSTANT,
    MS_SSIM_FACTOR,
    SSIM_FACTOR,
    scale_weights,
)
from ..metrics.window import blur, spread
from ..runtime.blas import matmul

Floats = NDArray[np.float32]


class Part(NamedTuple):
    """What one band adds to the distortion, and its gradient in that band [H,W]."""

    distortion: float
    slope: Floats


NOT_WANTED: Floats = np.zeros((0, 0), np.float32)


class Original:
    """A picture that others are compared with, and how much each measure counts."""

    def __init__(self, pixels: Floats, ms_ssim_weight: float, ssim_weight: float) -> None:
        """pixels [H,W,3] in [0,1]; ValueError for sides under WINDOW."""
        self._ms_ssim_share = ms_ssim_weight * MS_SSIM_FACTOR / 3
        self._ssim_share = ssim_weight * SSIM_FACTOR
        self._mse_share = (1 - ms_ssim_weight - ssim_weight) * 255**2 / pixels.size
        self._exponents = scale_weights(min(pixels.shape[:2]))
        planes = _planes(pixels)
        pyramids = [_pyramid(plane, len(self._exponents)) for plane in planes[:3]]
        self._bands = [[_Reference(y) for y in pyramid] for pyramid in pyramids]
        self._luma = _Reference(planes[3])

    def parts(self, picture: Floats, with_slope: bool) -> Sequence[Callable[[], Part]]:
        """picture [H,W,3] in [0,1] -> what is to be done, one after the other or at once."""
        red, green, blue, luma = _planes(picture)
        bands = zip((red, green, blue), self._bands, strict=True)
        return [
            partial(self._luma_part, luma, with_slope),
            *(partial(self._band_part, x, references, with_slope) for x, references in bands),
        ]

    @staticmethod
    def total(parts: Sequence[Part]) -> tuple[float, Floats]:
        """What `parts` gave -> the distortion, and its gradient in the picture [H,W,3]."""
        distortion = sum(part.distortion for part in parts)
        luma, *bands = (part.slope for part in parts)
        slope = luma[:, :, None] * LUMA.astype(np.float32)
        for number, band in enumerate(bands):
            slope[:, :, number] += band
        return distortion, slope

    def _luma_part(self, x: Floats, with_slope: bool) -> Part:
        """SSIM of the luma."""
        compared = _Compared(x, self._luma)
        loss = self._ssim_share * (1 - compared.similarity)
        if not with_slope:
            return Part(loss, NOT_WANTED)
        return Part(loss, compared.slope(-self._ssim_share, is_coarsest=True))

    def _band_part(self, x: Floats, references: list[_Reference], with_slope: bool) -> Part:
        """MSE and MS-SSIM of a band."""
        scales = [
            _Compared(finer, reference)
            for finer, reference in zip(_pyramid(x, len(references)), references, strict=True)
        ]
        *fine, coarsest = scales
        means = [scale.structure for scale in fine] + [coarsest.similarity]
        product = 1.0
        for mean, exponent in zip(means, self._exponents, strict=True):
            product *= max(mean, LEAST_MEAN) ** exponent
        error = x - references[0].y
        loss = self._ms_ssim_share * (1 - product) + self._mse_share * float(np.vdot(error, error))
        if not with_slope:
            return Part(loss, NOT_WANTED)

        # From the coarsest scale to the finest, each beside what the one before asks for.
        slope = NOT_WANTED
        for scale, mean, exponent in reversed(
            list(zip(scales, means, self._exponents, strict=True))
        ):
            by_mean = product * exponent / mean if mean >= LEAST_MEAN else 0.0
            own = scale.slope(-self._ms_ssim_share * by_mean, is_coarsest=scale is coarsest)
            if slope.size:
                own += _finer(slope, own.shape)
            slope = own
        slope += 2 * self._mse_share * error
        return Part(loss, slope)


class _Reference:
    """A band of the original at one scale, and its moments under the window."""

    def __init__(self, y: Floats) -> None:
        self.y = y  # [h,w]
        self.mean = blur(y)  # [h-10,w-10]
        self.mean_square = self.mean**2
        self.square = blur(y * y)


class _Compared:
    """A band beside the original's, at one scale (Wang et al. 2004)."""

    def __init__(self, x: Floats, reference: _Reference) -> None:
        self._x = x
        self._reference = reference
        self._mean = blur(x)
        product = self._mean * reference.mean
        squares = self._mean**2 + reference.mean_square
        self._below_luminance = squares + np.float32(LUMINANCE_CONSTANT)
        self._luminance = (2 * product + LUMINANCE_CONSTANT) / self._below_luminance
        self._below_contrast = blur(x * x)
        self._below_contrast += reference.square
        self._below_contrast -= squares
        self._below_contrast += CONTRAST_CONSTANT
        self._contrast = blur(x * reference.y)
        self._contrast -= product
        self._contrast *= 2
        self._contrast += CONTRAST_CONSTANT
        self._contrast /= self._below_contrast

    @property
    def structure(self) -> float:
        """The mean of contrast and structure."""
        return float(self._contrast.mean(dtype=np.float64))

    @property
    def similarity(self) -> float:
        """The mean of all three: SSIM."""
        return float(np.vdot(self._contrast, self._luminance)) / self._contrast.size

    def slope(self, worth: float, *, is_coarsest: bool) -> Floats:
        """The gradient [h,w] of `worth` times the structure, or at the coarsest the similarity."""
        each = np.float32(worth / self._contrast.size)
        in_contrast = each * self._luminance if is_coarsest else each
        in_xy = 2 * in_contrast / self._below_contrast
        in_squares = self._contrast * in_xy  # twice; of the moments, with the other sign
        in_squares *= 0.5
        in_product = -in_xy
        in_means = in_squares.copy()
        if is_coarsest:
            by_luminance = each * self._contrast / self._below_luminance
            in_product += 2 * by_luminance
            by_luminance *= self._luminance
            in_means -= by_luminance
        in_means *= self._mean
        in_means *= 2
        in_product *= self._reference.mean
        in_means += in_product
        slope = spread(in_squares)
        slope *= self._x
        slope *= -2
        slope += spread(in_means)
        from_xy = spread(in_xy)
        from_xy *= self._reference.y
        slope += from_xy
        return slope


def _planes(picture: Floats) -> Floats:
    """[H,W,3] -> red, green, blue and luma [4,H,W]."""
    planes = np.empty((4, *picture.shape[:2]), np.float32)
    planes[:3] = picture.transpose(2, 0, 1)
    matmul(picture.reshape(-1, 3), LUMA.astype(np.float32)[:, None], planes[3].reshape(-1, 1))
    planes[3] += 16 / 255
    return planes


def _pyramid(x: Floats, scales: int) -> list[Floats]:
    """[H,W] and means of its blocks of 2 x 2, over and over; odd sides have zeros before them."""
    pyramid = [x]
    while len(pyramid) < scales:
        height, width = x.shape
        even: Floats = np.pad(x, [(height % 2, 0), (width % 2, 0)])
        x = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
        x /= 4
        pyramid.append(x)
    return pyramid


def _finer(slope: Floats, shape: tuple[int, ...]) -> Floats:
    """A gradient at one scale -> at the finer one, of that shape."""
    quarter: Floats = slope * np.float32(0.25)
    return quarter.repeat(2, 0).repeat(2, 1)[shape[0] % 2 :, shape[1] % 2 :]
