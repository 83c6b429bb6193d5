"""How far pictures are from their originals, differentiable and fast enough to minimise: MSE, MS-SSIM and SSIM.

What training minimises and what refinement does. Both similarities equal what `evaluate` reports:
MS-SSIM of R, G and B, SSIM of the luma. This module knows pictures only, no networks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import LUMA, SIGMA, WINDOW

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SCALE = 671.0
SSIM_SCALE = 200.0


def distortion(
    picture: Tensor, x: Tensor, ms_ssim_weight: float | Tensor, ssim_weight: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures [B,3,H,W] in [0,1] -> MSE [B], MS-SSIM [B] and the distortion [B], all float32.

    With weights w and v, numbers or [B]: (1 - w - v) * 255^2 * MSE + w * 671 * (1 - MS-SSIM) + v *
    200 * (1 - SSIM). The constants bring all three to about the same size around 30 dB.
    """
    picture = picture.float()
    mse = ((picture - x) ** 2).mean((1, 2, 3))  # [B]
    w, v = ms_ssim_weight, ssim_weight
    # No gradient of similarities wanted.
    plain = isinstance(w, float) and isinstance(v, float) and w == v == 0
    with torch.set_grad_enabled(not plain and torch.is_grad_enabled()):
        multi, single = similarities(picture, x)  # [B] each
    total = (1 - w - v) * 255**2 * mse
    if not plain:
        total = total + w * MS_SSIM_SCALE * (1 - multi) + v * SSIM_SCALE * (1 - single)
    return mse, multi, total


def similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Multi-scale SSIM, mean over bands, and SSIM of the luma, of [B,3,H,W] in [0,1] -> [B] each.

    Both equal pytorch-msssim's. Pictures under 161 pixels have fewer scales, their weights scaled
    to the same sum.
    """
    shorter = min(x.shape[2:])
    scales = sum(shorter >= (WINDOW - 1) * 2**s + 1 for s in range(len(SCALE_WEIGHTS)))
    if scales == 0:
        raise ValueError(f"MS-SSIM needs at least {WINDOW} pixels on each side, found {shorter}")
    weights = [w * sum(SCALE_WEIGHTS) / sum(SCALE_WEIGHTS[:scales]) for w in SCALE_WEIGHTS[:scales]]
    product = torch.ones(x.shape[:2], device=x.device)  # [B,3]
    luminance, contrast = _ssim_maps(_with_luma(x), _with_luma(y))  # [B,4,h,w] each
    single = (luminance[:, 3] * contrast[:, 3]).mean((1, 2))
    luminance, contrast = luminance[:, :3], contrast[:, :3]
    for scale, weight in enumerate(weights):
        if scale > 0:
            padding = (x.shape[2] % 2, x.shape[3] % 2)
            x, y = (
                F.avg_pool2d(x, 2, padding=padding),
                F.avg_pool2d(y, 2, padding=padding),
            )  # [B,3,h/2,w/2]
            luminance, contrast = _ssim_maps(x, y)  # [B,3,h,w] each
        value = (luminance * contrast if scale == scales - 1 else contrast).mean((2, 3))
        product = product * value.clamp(min=1e-4) ** weight
    return product.mean(1), single


def _with_luma(x: Tensor) -> Tensor:
    """[B,3,H,W] -> [B,4,H,W]: the luma behind the bands."""
    red, green, blue = LUMA.tolist()  # plain numbers: a captured step copies nothing to the GPU
    luma = red * x[:, 0] + green * x[:, 1] + blue * x[:, 2] + 16 / 255  # [B,H,W]
    return torch.cat([x, luma[:, None]], 1)


def _ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    c1, c2 = 0.01**2, 0.03**2
    x, y = x.contiguous(), y.contiguous()
    mean_x, mean_y, squares, xy = blurred(x), blurred(y), blurred(x * x + y * y), blurred(x * y)
    product, sum_of_squares = mean_x * mean_y, mean_x**2 + mean_y**2
    luminance = (2 * product + c1) / (sum_of_squares + c1)
    return luminance, (2 * (xy - product) + c2) / (squares - sum_of_squares + c2)


def blurred(x: Tensor) -> Tensor:
    """The Gaussian window where it fits: [B,C,H,W] -> [B,C,H-10,W-10].

    On a CPU as sums of shifted pictures, on GPUs as products with banded matrices: each is by far
    the faster there, and depthwise filters of 11 taps are slow on both.
    """
    return banded(x) if x.is_cuda else Blur.apply(x)  # type: ignore[no-untyped-call]


class Blur(torch.autograd.Function):
    """`blurred` as sums of shifted pictures.

    The window is symmetric, so the gradient is blurred by the same sums.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """As `blurred`."""
        return shifted_sums(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """[B,C,H-10,W-10] -> [B,C,H,W]."""
        return shifted_sums(F.pad(gradient, [WINDOW - 1] * 4))


def shifted_sums(x: Tensor) -> Tensor:
    """`blurred`, along both axes in turn."""
    taps = gaussian(x.device).tolist()
    for axis in (3, 2):
        size = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, size) * taps[0]
        for shift, tap in enumerate(taps[1:], 1):
            total.add_(x.narrow(axis, shift, size), alpha=tap)
        x = total
    return x


def banded(x: Tensor) -> Tensor:
    """`blurred` as two products with banded matrices."""
    return gaussian_band(x.shape[2], x.device).t() @ (x @ gaussian_band(x.shape[3], x.device))


def gaussian(device: torch.device) -> Tensor:
    """The window's 11 taps, their sum 1."""
    taps = torch.exp(
        -((torch.arange(WINDOW, device=device) - WINDOW // 2).float() ** 2) / (2 * SIGMA**2)
    )
    return taps / taps.sum()


def gaussian_band(size: int, device: torch.device) -> Tensor:
    """The 11-tap Gaussian as a banded matrix [size, size - 10]: a product with it is the valid part of the filter."""
    taps = gaussian(device)
    offset = (
        torch.arange(size, device=device)[:, None]
        - torch.arange(size - WINDOW + 1, device=device)[None]
    )
    inside = (offset >= 0) & (offset < WINDOW)
    return torch.where(inside, taps[offset.clamp(0, WINDOW - 1)], torch.zeros((), device=device))
