"""JPEG, JPEG 2000, WebP and AVIF as Pillow makes them, and how every decoded picture is measured.

The settings are those of the published table; the measures come from kept libraries: scikit-image for SSIM,
pytorch-msssim for MS-SSIM (extra `training`).
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, features

from ..metrics import bits_per_pixel, luma, psnr

Pixels = npt.NDArray[np.uint8]
MS_SSIM_MIN_SIDE = 161  # pixels; below, pytorch-msssim has no value

_JPEG2000: dict[str, Any] = {"irreversible": True, "mct": 1, "num_resolutions": 6, "quality_mode": "rates"}

CODECS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {  # name: (title, Pillow's format, settings by rising rate)
    "jpeg": (
        "JPEG 4:2:0",
        "JPEG",
        [{"quality": q, "subsampling": 2, "optimize": True} for q in (2, 4, 6, 9, 13, 18, 25, 35, 50, 65, 80)],
    ),
    "jpeg2000": (
        "JPEG 2000",
        "JPEG2000",
        [
            {**_JPEG2000, "quality_layers": [24 / bpp]}
            for bpp in (0.06, 0.09, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
        ],
    ),
    "webp": ("WebP m6", "WEBP", [{"quality": q, "method": 6} for q in (0, 2, 5, 10, 18, 28, 40, 55, 70, 82)]),
    "avif": (
        "AVIF 4:4:4 s4",
        "AVIF",
        [{"quality": q, "subsampling": "4:4:4", "speed": 4} for q in (4, 9, 14, 20, 27, 34, 42, 50, 58, 66, 74)],
    ),
}


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


def available(codec: str) -> bool:
    """Whether this Pillow can write it."""
    feature = {"jpeg": "jpg", "jpeg2000": "jpg_2000"}.get(codec, codec)
    return bool(features.check(feature))


def measure(codec: str, name: str, pixels: Pixels) -> Iterator[Result]:
    """Encode and decode one picture uint8 [h,w,3] at every setting of a codec; nothing if Pillow lacks it."""
    title, kind, settings = CODECS[codec]
    if not available(codec):
        return
    for number, options in enumerate(settings):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        with Image.open(file) as image:
            decoded = np.asarray(image.convert("RGB"))
        yield compared(title, number, name, pixels, decoded, len(file.getvalue()))


def compared(codec: str, setting: int, name: str, pixels: Pixels, decoded: Pixels, size_bytes: int) -> Result:
    """Measure a decoded picture against its original, uint8 [h,w,3] each."""
    height, width = pixels.shape[:2]
    bpp = bits_per_pixel(size_bytes, width, height)
    return Result(codec, setting, name, bpp, psnr(pixels, decoded), ssim(pixels, decoded), ms_ssim(pixels, decoded))


def ssim(a: Pixels, b: Pixels) -> float | None:
    """SSIM by scikit-image on rounded luma, Gaussian window 11 / 1.5."""
    from skimage.metrics import structural_similarity

    if min(a.shape[:2]) < 11:
        return None
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
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
