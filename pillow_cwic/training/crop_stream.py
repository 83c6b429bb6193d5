"""Training on sets larger than memory: pictures decoded on the fly by worker processes.

Invariant: item number i of the stream is a function of (seed, i) alone, whatever the number of
workers, so a resumed run sees exactly the crops that the uninterrupted run would have seen. This
module knows pixels, no networks.
"""

import contextlib
import math
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..runtime.processes import worker_processes
from .crops import augment
from .pictures import Picture, Pixels, decode
from .recipe import DataRecipe

CROPS_PER_PICTURE = 4
"""Crops cut from one decoded picture: decoding costs far more than cutting."""

BATCHES_AHEAD = 2
"""Batches that each worker process is given before they are asked for."""

ATTEMPTS = 20
"""Pictures tried in a row before the stream gives up on unreadable data."""


class CropStream:
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
    """The streaming source of training crops; `close` ends its worker processes.

    jobs: processes that decode ahead of the steps; 0 decodes when asked.
    """

    def __init__(
        self, stream: CropStream, device: torch.device, jobs: int, first_step: int
    ) -> None:
        self.stream = stream
        self.batch = stream.recipe.batch
        self.groups = math.ceil(self.batch / CROPS_PER_PICTURE)
        side = stream.recipe.crop
        self.buffer = torch.zeros(self.batch, 3, side, side, dtype=torch.uint8, device=device)

        # Groups in the order of the stream, the first ones on their way already.
        self.next_group = first_step * self.groups
        self.ahead: deque[Future[Pixels]] = deque()
        self.resources = contextlib.ExitStack()
        self.workers: ProcessPoolExecutor | None = None
        if jobs:
            workers = self.resources.enter_context(worker_processes(jobs, _begin_worker, stream))
            for _ in range(BATCHES_AHEAD * jobs * self.groups):
                self._order(workers)
            self.workers = workers

    def advance(self) -> None:
        """Copy the next batch to the device; OSError as of `CropStream`."""
        groups = torch.stack([self._group() for _ in range(self.groups)])
        if self.buffer.device.type == "cuda":
            groups = groups.pin_memory()
        self.buffer.copy_(groups.flatten(0, 1)[: self.batch], non_blocking=True)

    def draw(self) -> Tensor:
        """The current batch, flipped and transposed at random: float [B,3,crop,crop] in [0,1]."""
        return augment(self.buffer.float() / 255).contiguous(memory_format=torch.channels_last)

    def close(self) -> None:
        """End the worker processes."""
        self.resources.close()

    def _group(self) -> Tensor:
        if self.workers is None:
            self.next_group += 1
            return self.stream[self.next_group - 1]
        self._order(self.workers)
        return torch.from_numpy(self.ahead.popleft().result())

    def _order(self, workers: ProcessPoolExecutor) -> None:
        self.ahead.append(workers.submit(_decode_group, self.next_group))
        self.next_group += 1


_streams: list[CropStream] = []
"""In a worker process, the one stream that it decodes."""


def _begin_worker(stream: CropStream) -> None:
    torch.set_num_threads(1)
    _streams.append(stream)


def _decode_group(index: int) -> Pixels:
    # As an array: torch would pass a tensor on as a file of shared memory.
    return _streams[0][index].numpy()
