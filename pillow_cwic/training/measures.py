"""How every decoded picture is measured, by kept libraries (extra `training`).

scikit-image for SSIM, pytorch-msssim for MS-SSIM.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..metrics import MS_SSIM_MIN_SIDE, SIGMA, WINDOW, bits_per_pixel
from ..metrics.pictures import luma, psnr
from ..tools.rivals import RIVALS

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    """One picture by one codec at one setting."""

    codec: str
    setting: int  # rises with the rate
    picture: str
    bpp: float  # from the file's size
    psnr: float  # decibels, over R, G and B
    ssim: float | None  # on the rounded BT.601 luma; None under 11 pixels
    ms_ssim: float | None  # on RGB; None under 161 pixels


def measure(codec: str, name: str, pixels: Pixels) -> Iterator[Result]:
    """Encode and decode one picture uint8 [h,w,3] along the curve of a rival, by its name."""
    rival = RIVALS[codec]
    for number, dial in enumerate(rival.curve):
        data = rival.encode(Image.fromarray(pixels), dial)
        with Image.open(io.BytesIO(data)) as image:
            decoded = np.asarray(image.convert("RGB"))
        yield compared(rival.title, number, name, pixels, decoded, len(data))


def compared(
    codec: str, setting: int, name: str, pixels: Pixels, decoded: Pixels, size_bytes: int
) -> Result:
    """Measure a decoded picture against its original, uint8 [h,w,3] each."""
    height, width = pixels.shape[:2]
    bpp = bits_per_pixel(size_bytes, width, height)
    return Result(
        codec,
        setting,
        name,
        bpp,
        psnr(pixels, decoded),
        ssim(pixels, decoded),
        ms_ssim(pixels, decoded),
    )


def ssim(a: Pixels, b: Pixels) -> float | None:
    """SSIM by scikit-image on rounded luma, Gaussian window 11 / 1.5."""
    from skimage.metrics import structural_similarity

    if min(a.shape[:2]) < WINDOW:
        return None
    options = {
        "data_range": 255,
        "gaussian_weights": True,
        "sigma": SIGMA,
        "use_sample_covariance": False,
    }
    return float(structural_similarity(luma(a), luma(b), **options))  # type: ignore[no-untyped-call]


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """MS-SSIM by pytorch-msssim, mean over R, G and B."""
    from pytorch_msssim import ms_ssim as library

    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (a, b))  # [1,3,h,w]
    return float(library(x, y, data_range=255))


def ms_ssim_decibels(value: float) -> float:
    """-10 log10(1 - x): differences near 1 become visible."""
    return -10 * math.log10(max(1 - value, 1e-10))
