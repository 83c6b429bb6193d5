"""Analysis: pixels -> codes and importance levels, window by window (paper, sections 3.1 to 3.3).

Invariant: where a picture is cut into windows does not show, up to float rounding.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .format.grid import GRID, Box, code_grid
from .format.quality_map import Offsets
from .model import Model
from .networks.binarizer import remainders
from .networks.importance import importance_level, kept
from .networks.layers import part
from .networks.windows import Pixels, cut, windows
from .runtime.devices import inference
from .runtime.machine import return_freed_memory

KEPT_PIXELS = 1 << 25
"""Pixels up to which the features of a whole picture are kept: 256 MB at 512 channels and 1/16 resolution."""


class Coded(NamedTuple):
    """What analysis returns: a picture, or a tile of it, at one quality."""

    codes: Tensor  # int16 [h,w,n]
    level: Tensor  # uint8 [h,w], importance levels
    quality_index: int
    remainders: Tensor | None = None  # int8 [h,w,n]: sixteenths of a step that rounding left

    def tile(self, box: Box) -> Self:
        """The part in a box of code positions."""
        remainders = None if self.remainders is None else self.remainders[box.slices]
        return self._replace(
            codes=self.codes[box.slices], level=self.level[box.slices], remainders=remainders
        )


class Analysis:
    """A picture on its way to codes; the part of the encoder that no quality changes is run once.

    (For pictures of more than KEPT_PIXELS it is run for each quality: time instead of memory.)
    """

    def __init__(self, model: Model, pixels: Pixels, offsets: Offsets | None = None) -> None:
        """pixels uint8 [H,W,3].

        offsets [h,w] are added to the quality index at each code position.
        """
        self.model = model
        self.pixels = pixels
        self.offsets = offsets
        self.grid = code_grid(pixels.shape[1], pixels.shape[0])
        self._large = pixels.shape[0] * pixels.shape[1] > KEPT_PIXELS
        self._kept: Tensor | None = None

    def coded(self, quality_index: int) -> Coded:
        """The picture at a quality index; without remainders where codes are signs."""
        shape = self.grid.height, self.grid.width
        codes = torch.empty(*shape, self.model.config.channels, dtype=torch.int16, device="cpu")
        level = torch.empty(shape, dtype=torch.uint8, device="cpu")
        remainders_of_all = (
            None if self.model.config.one_bit else torch.empty_like(codes, dtype=torch.int8)
        )
        for core in windows(self.grid):
            window = core.grow(self.model.config.heads_halo, self.grid)
            with inference():
                y, q = self._window(window, quality_index)
                inside = core.within(window).slices
                y, q = y[inside], q[inside]
                whole = self.model.binarize(y)
                codes[core.slices] = (whole * kept(q, self.model.config.first_level)).cpu()
                level[core.slices] = q.to(torch.uint8).cpu()
                if remainders_of_all is not None:
                    remainders_of_all[core.slices] = remainders(y, whole).cpu()
        if self._large:
            return_freed_memory()
        return Coded(codes, level, quality_index, remainders_of_all)

    def picture(self, window: Box) -> Tensor:
        """The pixels of a window on the code grid as networks see them: [1,3,H,W] in [0,1], channels last in memory."""
        x = torch.from_numpy(cut(self.pixels, window.scale(GRID))).to(self.model.device)
        return x.permute(2, 0, 1)[None].float() / 255

    def _window(self, window: Box, quality_index: int) -> tuple[Tensor, Tensor]:
        """Code features [h,w,n] and levels [h,w] of one window, halo included."""
        config = self.model.config
        index = self.model.quality_input(quality_index, self.offsets, window)
        y, logit = self.model.encoder.heads(self._features(window), index)
        return y[0].permute(1, 2, 0), importance_level(torch.sigmoid(logit[0, 0]), config.levels)

    def _features(self, box: Box) -> Tensor:
        """Quality-independent features [1,c,h,w] of a part of the picture."""
        if self._large:
            return self._computed(box)
        if self._kept is None:
            self._kept = self._whole()
        return part(self._kept, box)

    def _whole(self) -> Tensor:
        """The features of the whole picture, window by window."""
        first, *others = windows(self.grid)
        found = self._computed(first)
        if not others:
            return found
        shape = 1, found.shape[1], self.grid.height, self.grid.width
        whole = torch.empty(shape, dtype=found.dtype, device=found.device).contiguous(
            memory_format=torch.channels_last
        )
        part(whole, first).copy_(found)
        for core in others:
            part(whole, core).copy_(self._computed(core))
        return whole

    def _computed(self, box: Box) -> Tensor:
        window = box.grow(self.model.config.features_halo, self.grid)
        return part(self.model.encoder.features(self.picture(window)), box.within(window))
