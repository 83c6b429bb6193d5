"""How every decoded picture is measured, by kept libraries (extra `training`).

scikit-image for SSIM, pytorch-msssim for MS-SSIM. Invariant: a rate comes from the size of a file,
a quality from its decoded pixels. This module knows no models.
"""

import io
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..metrics import MS_SSIM_MIN_SIDE, SIGMA, WINDOW, bits_per_pixel
from ..metrics.pictures import luma, psnr
from ..runtime.files import write_atomically
from ..tools.rivals import CURVES
from .records import to_json

Pixels = npt.NDArray[np.uint8]


class Trial(NamedTuple):
    """What was tried: one picture by one codec at one setting."""

    codec: str
    setting: int  # rises with the rate
    picture: str


@dataclass(frozen=True)
class Result:
    """One picture by one codec at one setting."""

    codec: str
    setting: int  # rises with the rate
    picture: str
    bpp: float  # from the file's size
    psnr: float  # decibels, over R, G and B
    ssim: float | None  # on the rounded BT.601 luma; None for sides under WINDOW
    ms_ssim: float | None  # on RGB; None for sides under MS_SSIM_MIN_SIDE


def measure(codec: str, name: str, pixels: Pixels) -> Iterator[Result]:
    """Encode and decode one picture uint8 [h,w,3] along the curve of a rival, by its name."""
    rival = CURVES[codec]
    for number, dial in enumerate(rival.curve):
        data = rival.encode(Image.fromarray(pixels), dial)
        with Image.open(io.BytesIO(data)) as image:
            decoded = np.asarray(image.convert("RGB"))
        yield compare_trial(Trial(rival.title, number, name), pixels, decoded, len(data))


def compare_trial(trial: Trial, pixels: Pixels, decoded: Pixels, size_bytes: int) -> Result:
    """Measure a decoded picture against its original, uint8 [h,w,3] each."""
    height, width = pixels.shape[:2]
    return Result(
        *trial,
        bpp=bits_per_pixel(size_bytes, width, height),
        psnr=psnr(pixels, decoded),
        ssim=ssim(pixels, decoded),
        ms_ssim=ms_ssim(pixels, decoded),
    )


def ssim(a: Pixels, b: Pixels) -> float | None:
    """SSIM by scikit-image on rounded luma, Gaussian window; None for sides under WINDOW."""
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
    """MS-SSIM by pytorch-msssim, mean over R, G and B; None for sides under MS_SSIM_MIN_SIDE."""
    from pytorch_msssim import ms_ssim as library

    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    x, y = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (a, b))  # [1,3,h,w]
    return float(library(x, y, data_range=255))


def ms_ssim_decibels(value: float) -> float:
    """-10 log10(1 - x): differences near 1 become visible."""
    return -10 * math.log10(max(1 - value, 1e-10))


def write_results(path: Path, results: list[Result]) -> None:
    """One line of JSON per result."""
    rows = [
        to_json({k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(r).items()})
        for r in results
    ]
    write_atomically(path, ('{"results": [\n' + ",\n".join(rows) + "\n]}\n").encode())


def read_results(path: Path, pictures: Collection[str]) -> list[Result]:
    """The results in an earlier rd.json; ValueError if it is none, or of other pictures."""
    try:
        results = [Result(**row) for row in json.loads(path.read_text("utf-8"))["results"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an rd.json that `evaluate` wrote: {error}") from None
    if {result.picture for result in results} != set(pictures):
        raise ValueError(
            f"{path} is of other pictures than these {len(pictures)}: its figures can't stand "
            "beside them"
        )
    return results
