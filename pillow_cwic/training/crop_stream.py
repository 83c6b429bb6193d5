"""Training on sets larger than memory: pictures decoded on the fly by torch's DataLoader.

Invariant: item number i of the stream is a function of (seed, i) alone, whatever the number of
workers, so a resumed run sees exactly the crops that the uninterrupted run would have seen. This
module knows pixels, no networks.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .crops import augment
from .pictures import Picture, Pixels, decode
from .recipe import DataRecipe

CROPS_PER_PICTURE = 4
"""Crops cut from one decoded picture: decoding costs far more than cutting."""

ATTEMPTS = 20
"""Pictures tried in a row before the stream gives up on unreadable data."""


class CropStream(Dataset[Tensor]):
    """An endless sequence of groups of crops, by random access.

    A group is uint8 [CROPS_PER_PICTURE,3,crop,crop].
    """

    def __init__(self, chosen: list[Picture], recipe: DataRecipe, seed: int) -> None:
        self.chosen = chosen
        self.recipe = recipe
        self.seed = seed
        chance = np.array([p.width * p.height for p in chosen], float) ** recipe.area_power
        self.chance = chance / chance.sum()

    def __getitem__(self, index: int) -> Tensor:
        """Group number `index`; OSError if many pictures in a row cannot be decoded."""
        random = np.random.default_rng((self.seed, index))
        for _ in range(ATTEMPTS):
            pixels = decode(self.chosen[random.choice(len(self.chosen), p=self.chance)])
            if not isinstance(pixels, str):
                return torch.stack([self._crop(pixels, random) for _ in range(CROPS_PER_PICTURE)])
        raise OSError(
            f"{ATTEMPTS} training pictures in a row could not be decoded; the last: {pixels}"
        )

    def _crop(self, pixels: Pixels, random: np.random.Generator) -> Tensor:
        side = self.recipe.crop
        if random.random() < self.recipe.downscaled_share:
            largest = min(self.recipe.max_downscale, min(pixels.shape[:2]) / side)
            span = min(round(side * random.uniform(1, largest)), *pixels.shape[:2])
        else:
            span = side
        top, left = (int(random.integers(n - span + 1)) for n in pixels.shape[:2])
        square = pixels[top : top + span, left : left + span].copy()
        window = torch.from_numpy(square).permute(2, 0, 1)  # [3,span,span]
        if span == side:
            return window
        resized = torch.nn.functional.interpolate(window[None].float(), side, mode="area")
        return resized[0].round().byte()  # [3,crop,crop]


class StreamPool:
    """The streaming source of training crops."""

    def __init__(
        self, stream: CropStream, device: torch.device, jobs: int, first_step: int
    ) -> None:
        self.stream = stream
        self.batch = stream.recipe.batch
        self.groups = math.ceil(self.batch / CROPS_PER_PICTURE)
        side = stream.recipe.crop
        self.buffer = torch.zeros(self.batch, 3, side, side, dtype=torch.uint8, device=device)

        # Workers decode ahead of the steps.
        loader = DataLoader(
            stream,
            batch_size=self.groups,
            sampler=_CountingSampler(first_step * self.groups),
            num_workers=jobs,
            pin_memory=device.type == "cuda",
            multiprocessing_context="spawn" if jobs else None,
            # The loader must not draw from the training's own random numbers.
            generator=torch.Generator(),
        )
        self.batches: Iterator[Tensor] = iter(loader)

    def advance(self) -> None:
        """Copy the next batch to the device."""
        self.buffer.copy_(next(self.batches).flatten(0, 1)[: self.batch], non_blocking=True)

    def draw(self) -> Tensor:
        """The current batch, flipped and transposed at random: float [B,3,crop,crop] in [0,1]."""
        return augment(self.buffer.float() / 255).contiguous(memory_format=torch.channels_last)


class _CountingSampler(torch.utils.data.Sampler[int]):
    """first, first + 1, first + 2, ... without end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        index = self.first
        while True:
            yield index
            index += 1
