"""How far pictures are from their originals, differentiable: MSE, MS-SSIM and SSIM.

What training minimises; `search.original` has the same in NumPy. Invariant: both similarities equal
what `evaluate` reports, MS-SSIM of R, G and B, SSIM of the luma. This module knows pictures only,
no networks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metrics import (
    CONTRAST_CONSTANT,
    LEAST_MEAN,
    LUMA,
    LUMINANCE_CONSTANT,
    MS_SSIM_FACTOR,
    SIGMA,
    SSIM_FACTOR,
    WINDOW,
    scale_weights,
)

_LUMA = LUMA.tolist()
"""Plain numbers: a captured step copies nothing to the GPU, a compiled one is not broken up."""


def distortion(
    picture: Tensor, x: Tensor, ms_ssim_weight: float | Tensor, ssim_weight: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures [B,3,H,W] in [0,1] -> MSE [B], MS-SSIM [B] and the distortion [B], all float32.

    With weights w and v, numbers or [B]: (1 - w - v) * 255^2 * MSE
    + w * MS_SSIM_FACTOR * (1 - MS-SSIM) + v * SSIM_FACTOR * (1 - SSIM).
    """
    picture = picture.float()
    mse = ((picture - x) ** 2).mean((1, 2, 3))  # [B]
    w = ms_ssim_weight
    v = ssim_weight
    # No gradient of similarities wanted.
    error_only = isinstance(w, float) and isinstance(v, float) and w == v == 0
    with torch.set_grad_enabled(not error_only and torch.is_grad_enabled()):
        ms_ssim, ssim = similarities(picture, x)  # [B] each
    total = (1 - w - v) * 255**2 * mse
    if not error_only:
        total = total + w * MS_SSIM_FACTOR * (1 - ms_ssim) + v * SSIM_FACTOR * (1 - ssim)
    return mse, ms_ssim, total


def similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-scale SSIM, mean over bands, and SSIM of the luma, of [B,3,H,W] in [0,1] -> [B] each.

    Both equal pytorch-msssim's. Pictures with a side under MS_SSIM_MIN_SIDE have fewer scales,
    their weights scaled to the same sum. ValueError for sides under WINDOW.
    """
    weights = scale_weights(min(x.shape[2:]))

    # The finest scale serves both: the bands MS-SSIM, the luma SSIM.
    luminance, contrast = _ssim_maps(_with_luma(x), _with_luma(y))  # [B,4,h,w] each
    ssim = (luminance[:, 3] * contrast[:, 3]).mean((1, 2))  # [B]
    luminance = luminance[:, :3]
    contrast = contrast[:, :3]

    # Contrast and structure at every scale, luminance at the coarsest alone.
    product = torch.ones(x.shape[:2], device=x.device)  # [B,3]
    for scale, weight in enumerate(weights):
        if scale > 0:
            padding = (x.shape[2] % 2, x.shape[3] % 2)
            x = F.avg_pool2d(x, 2, padding=padding)  # [B,3,h/2,w/2]
            y = F.avg_pool2d(y, 2, padding=padding)  # [B,3,h/2,w/2]
            luminance, contrast = _ssim_maps(x, y)  # [B,3,h,w] each
        value = (luminance * contrast if scale == len(weights) - 1 else contrast).mean((2, 3))
        product = product * value.clamp(min=LEAST_MEAN) ** weight
    return product.mean(1), ssim


def _with_luma(x: Tensor) -> Tensor:
    """[B,3,H,W] -> [B,4,H,W]: the luma behind the bands."""
    red, green, blue = _LUMA
    luma = red * x[:, 0] + green * x[:, 1] + blue * x[:, 2] + 16 / 255  # [B,H,W]
    return torch.cat([x, luma[:, None]], 1)


def _ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures [B,C,H,W] -> luminance, and contrast with structure, [B,C,H-10,W-10] each."""
    x = x.contiguous()
    y = y.contiguous()
    mean_x = blur(x)
    mean_y = blur(y)
    squares = blur(x * x + y * y)
    xy = blur(x * y)
    product = mean_x * mean_y
    sum_of_squares = mean_x**2 + mean_y**2
    luminance = (2 * product + LUMINANCE_CONSTANT) / (sum_of_squares + LUMINANCE_CONSTANT)
    return luminance, (2 * (xy - product) + CONTRAST_CONSTANT) / (
        squares - sum_of_squares + CONTRAST_CONSTANT
    )


def blur(x: Tensor) -> Tensor:
    """The Gaussian window where it fits: [B,C,H,W] -> [B,C,H-10,W-10].

    On a CPU as sums of shifted pictures, on GPUs as products with banded matrices: each is the
    faster there, and depthwise filters of so many taps are slow on both.
    """
    return banded(x) if x.is_cuda else Blur.apply(x)  # type: ignore[no-untyped-call]


class Blur(torch.autograd.Function):
    """`blur` as sums of shifted pictures.

    The window is symmetric, so the gradient is blurred by the same sums.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """As `blur`."""
        return shifted_sums(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """[B,C,H-10,W-10] -> [B,C,H,W]."""
        return shifted_sums(F.pad(gradient, [WINDOW - 1] * 4))


def shifted_sums(x: Tensor) -> Tensor:
    """`blur`, along both axes in turn."""
    for axis in (3, 2):
        size = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, size) * _TAPS[0]
        for shift, tap in enumerate(_TAPS[1:], 1):
            total.add_(x.narrow(axis, shift, size), alpha=tap)
        x = total
    return x


def banded(x: Tensor) -> Tensor:
    """`blur` as two products with banded matrices."""
    return gaussian_band(x.shape[2], x.device).t() @ (x @ gaussian_band(x.shape[3], x.device))


def gaussian(device: torch.device) -> Tensor:
    """The window's taps [WINDOW], their sum 1."""
    offsets = (torch.arange(WINDOW, device=device) - WINDOW // 2).float()
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return taps / taps.sum()


_TAPS = gaussian(torch.device("cpu")).tolist()
"""Plain numbers, as `_LUMA`."""


def gaussian_band(size: int, device: torch.device) -> Tensor:
    """The Gaussian as a banded matrix [size,size-10].

    A product with it is the valid part of the filter.
    """
    taps = gaussian(device)
    first_taps = torch.arange(size - WINDOW + 1, device=device)[None]  # [1,size-10]
    offset = torch.arange(size, device=device)[:, None] - first_taps  # [size,size-10]
    inside = (offset >= 0) & (offset < WINDOW)
    return torch.where(inside, taps[offset.clamp(0, WINDOW - 1)], torch.zeros((), device=device))
