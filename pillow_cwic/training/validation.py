"""Validation while training: whole held-out pictures, at several qualities.

Invariant: the rate is the entropy networks' own estimate; no file is written. This module changes
nothing in what it measures.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .joint_codec import JointCodec
from .losses import decibels, ms_ssim


@dataclass(frozen=True)
class Point:
    """Means over the validation pictures at one quality index."""

    quality_index: int
    bpp: float  # estimated, importance map included
    map_bpp: float
    psnr: float  # decibels, of 8-bit values
    ms_ssim: float
    level: float  # mean importance level

    @property
    def is_finite(self) -> bool:
        """False where the networks have diverged."""
        return all(map(math.isfinite, asdict(self).values()))

    def as_dict(self) -> dict[str, Any]:
        """For the log."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


@torch.no_grad()
def validate(
    joint: JointCodec,
    held_out: list[tuple[str, Tensor]],
    qualities: tuple[int, ...],
    device: torch.device,
) -> list[Point]:
    """Pictures uint8 [3,h,w] (multiples of the code grid) -> one point per quality index."""
    return [_point(joint, held_out, quality, device) for quality in qualities] if held_out else []


def _point(
    joint: JointCodec, held_out: list[tuple[str, Tensor]], quality: int, device: torch.device
) -> Point:
    rows = []
    for _, picture in held_out:
        x = picture.to(device)[None].float() / 255  # [1,3,h,w]
        outcome = joint(x, torch.tensor([quality], device=device))
        rounded = (outcome.picture.float().clamp(0, 1) * 255).round() / 255
        pixels = x.shape[2] * x.shape[3]
        map_bpp = outcome.map_bits.item() / pixels
        mse = ((rounded - x) ** 2).mean().item()
        bpp = outcome.code_bits.item() / pixels + map_bpp
        rows.append(
            [bpp, map_bpp, decibels(mse), ms_ssim(rounded, x).item(), outcome.level.mean().item()]
        )
    return Point(quality, *(float(mean) for mean in np.mean(rows, 0)))


@torch.no_grad()
def reconstruct(
    joint: JointCodec, picture: Tensor, quality: int, device: torch.device
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """One picture uint8 [3,h,w] -> its reconstruction and its importance levels.

    They are uint8 [h,w,3] and [h/16,w/16].
    """
    outcome = joint(picture.to(device)[None].float() / 255, torch.tensor([quality], device=device))
    bands_first = (outcome.picture[0].float().clamp(0, 1) * 255).round().byte()  # [3,h,w]
    pixels = bands_first.permute(1, 2, 0)  # [h,w,3]
    return pixels.cpu().numpy(), outcome.level[0, 0].cpu().numpy()
