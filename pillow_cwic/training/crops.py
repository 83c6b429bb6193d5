"""Training data in memory: pictures as one flat uint8 buffer, random crops of them in one gather.

Sets that would not fit the recipe's `memory_gib` are streamed instead (`crop_stream`). Both kinds
of source offer the same two calls: `advance()` before a step, outside any CUDA graph, and `draw()`
inside it. Invariant: `draw()` waits for nothing but the device. This module knows pixels, no
networks.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..format.grid import GRID
from . import pictures
from .pictures import Picture, Pixels, Skipped
from .recipe import DataRecipe


class Source(Protocol):
    """Where the crops of a step come from."""

    def advance(self) -> None:
        """Make the next batch available; not part of the captured step."""

    def draw(self) -> Tensor:
        """The batch as float [B,3,crop,crop] in [0,1] on the device."""

    def close(self) -> None:
        """End what fetches crops."""


@dataclass(frozen=True)
class DataSet:
    """What was found on disk, split into training and validation."""

    train: list[Picture]
    validation: list[Picture]
    skipped: list[Skipped]

    @property
    def megapixels(self) -> float:
        """Size of the training part."""
        return sum(picture.width * picture.height for picture in self.train) / 1e6

    @property
    def decoded_bytes(self) -> int:
        """Memory that the training part needs when decoded."""
        return sum(picture.width * picture.height * 3 for picture in self.train)


def open_data(sources: list[str], recipe: DataRecipe, jobs: int) -> DataSet:
    """Find and survey the pictures.

    ValueError if fewer than the recipe's `min_pictures` can be used.
    """
    # What can be used, or a message that says what could not.
    usable, skipped = pictures.survey(pictures.find(sources), recipe.crop, jobs)
    if len(usable) < recipe.min_pictures:
        reasons = "".join(f"\n  skipped {item.name}: {item.reason}" for item in skipped[:10])
        raise ValueError(
            f"found {len(usable)} usable pictures in {', '.join(sources)}; expected at least "
            f"{recipe.min_pictures} "
            f"(min_pictures) of at least {recipe.crop} pixels on the short side{reasons}"
        )

    # Validation pictures are spread over all sources.
    held_out = min(recipe.validation_pictures, len(usable) // 8)
    stride = max(1, len(usable) // max(1, held_out))
    validation = usable[::stride][:held_out]
    names = {(p.path, p.name) for p in validation}
    return DataSet([p for p in usable if (p.path, p.name) not in names], validation, skipped)


class PixelPool:
    """Decoded pictures in (GPU) memory; a batch of random crops is one gather."""

    def __init__(self, images: list[Pixels], recipe: DataRecipe, device: torch.device) -> None:
        if not images:
            raise ValueError("no picture could be decoded")
        self.recipe = recipe
        self.device = device

        # All pictures row-major RGB, one after the other.
        sizes = np.cumsum([0] + [image.size for image in images])
        flat = torch.empty(int(sizes[-1]), dtype=torch.uint8)
        for start, image in zip(sizes, images, strict=False):
            flat[start : start + image.size] = torch.from_numpy(image.reshape(-1).copy())
        self.flat = flat.to(device)
        self.start = torch.tensor(sizes[:-1], device=device)
        self.height = torch.tensor([image.shape[0] for image in images], device=device)
        self.width = torch.tensor([image.shape[1] for image in images], device=device)

        # Larger pictures are drawn more often.
        chance = (self.height * self.width).double() ** recipe.area_power
        self.cumulative = torch.cumsum(chance / chance.sum(), 0).float()
        self.reduced = round(recipe.batch * recipe.downscaled_share)

    def advance(self) -> None:
        """Nothing to do: every picture is at hand."""

    def close(self) -> None:
        """Nothing to do: no one fetches anything."""

    def draw(self) -> Tensor:
        """Random crops, flipped and transposed at random: float [B,3,crop,crop] in [0,1]."""
        crops = []
        if self.reduced < self.recipe.batch:
            crops.append(self._crops(self.recipe.batch - self.reduced))
        if self.reduced:
            crops.append(self._reduced_crops(self.reduced))
        return augment(torch.cat(crops)).contiguous(memory_format=torch.channels_last)

    def _draw_pictures(self, count: int) -> Tensor:
        """Indices [B] of pictures, by their chances."""
        index = torch.searchsorted(self.cumulative, torch.rand(count, device=self.device))
        return index.clamp(max=len(self.start) - 1)

    def _crops(self, count: int) -> Tensor:
        """Crops at random places: float [B,3,crop,crop] in [0,1]."""
        side = self.recipe.crop
        k = self._draw_pictures(count)
        top = (torch.rand(count, device=self.device) * (self.height[k] - side + 1)).long()
        left = (torch.rand(count, device=self.device) * (self.width[k] - side + 1)).long()
        return self._gather(k, top, left, side)

    def _reduced_crops(self, count: int) -> Tensor:
        """Larger windows at random places, averaged down: float [B,3,crop,crop] in [0,1]."""
        # By how much each is reduced, and so how many pixels shrink to one crop [B].
        side = self.recipe.crop
        k = self._draw_pictures(count)
        shorter = torch.minimum(self.height[k], self.width[k])
        largest = (shorter / side).clamp(max=self.recipe.max_downscale)
        factor = 1 + torch.rand(count, device=self.device) * (largest - 1)  # [B]
        span = factor * side

        # Windows of one size, as large as the largest needs.
        top = torch.rand(count, device=self.device) * (self.height[k] - span)
        left = torch.rand(count, device=self.device) * (self.width[k] - span)
        top = top.floor().clamp(min=0).long()
        left = left.floor().clamp(min=0).long()
        widest = math.ceil(side * self.recipe.max_downscale)
        window = self._gather(k, top, left, widest)  # [B,3,widest,widest]
        shrink = area_matrix(factor, side, window.shape[3])[:, None]  # [B,1,crop,widest]
        return shrink @ window @ shrink.transpose(2, 3)

    def _gather(self, k: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
        """Windows of `side` pixels, edges repeated: [B] each -> float [B,3,side,side]."""
        span = torch.arange(side, device=self.device)
        rows = torch.minimum(top[:, None] + span, self.height[k][:, None] - 1)  # [B,side]
        columns = torch.minimum(left[:, None] + span, self.width[k][:, None] - 1)  # [B,side]
        stride = self.width[k][:, None, None]  # [B,1,1]
        pixel = rows[:, :, None] * stride + columns[:, None]  # [B,side,side]
        pixel = self.start[k][:, None, None] + pixel * 3
        crops = self.flat[pixel[..., None] + torch.arange(3, device=self.device)]  # [B,side,side,3]
        return crops.permute(0, 3, 1, 2).float() / 255


def area_matrix(factor: Tensor, out: int, window: int) -> Tensor:
    """Area averaging by `factor` [B] >= 1 as matrices [B,out,window].

    A weight is the overlap of two pixels; rows sum to 1.
    """
    cell = torch.arange(out, device=factor.device)[None, :, None]  # [1,out,1]
    low = cell * factor[:, None, None]  # [B,out,1]
    pixel = torch.arange(window, device=factor.device)[None, None]  # [1,1,window]
    overlap = torch.minimum(low + factor[:, None, None], pixel + 1) - torch.maximum(low, pixel)
    weight = overlap.clamp(min=0)
    return weight / weight.sum(2, keepdim=True)


def augment(crops: Tensor) -> Tensor:
    """Flip and transpose each of [B,3,s,s] at random."""
    chance = torch.rand(3, len(crops), 1, 1, 1, device=crops.device) < 0.5
    crops = torch.where(chance[0], crops.flip(2), crops)
    crops = torch.where(chance[1], crops.flip(3), crops)
    return torch.where(chance[2], crops.transpose(2, 3), crops)


def load_pool(
    chosen: list[Picture], recipe: DataRecipe, device: torch.device, jobs: int
) -> tuple[PixelPool, list[Skipped]]:
    """Decode pictures into a pool; those that fail are listed."""
    images: list[Pixels] = []
    skipped: list[Skipped] = []
    for picture, outcome in pictures.decode_all(chosen, jobs):
        if isinstance(outcome, str):
            skipped.append(Skipped(picture.name, outcome))
        else:
            images.append(outcome)
    return PixelPool(images, recipe, device), skipped


def load_whole(chosen: list[Picture], jobs: int, longest: int = 1024) -> list[tuple[str, Tensor]]:
    """Validation pictures by name, as uint8 [3,h,w].

    Each is cut to multiples of GRID and to `longest` pixels around the centre.
    """
    named = []
    for picture, outcome in pictures.decode_all(chosen, jobs):
        if not isinstance(outcome, str):
            height, width = (min(n, longest) // GRID * GRID for n in outcome.shape[:2])
            top = (outcome.shape[0] - height) // 2
            left = (outcome.shape[1] - width) // 2
            centre = outcome[top : top + height, left : left + width].copy()
            bands_first = torch.from_numpy(centre).permute(2, 0, 1)  # [3,h,w]
            named.append((Path(picture.name).stem, bands_first))
    return named
