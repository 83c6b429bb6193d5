"""The CNNs over pictures of any size: pixels -> codes and levels, codes -> pixels, window by window.

A window carries a halo as wide as the network's receptive field, so the result does not depend on how a picture was
cut (up to float rounding). Memory is bounded by the window, not by the picture.
"""

import ctypes
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .binarizer import remainders
from .config import GRID
from .importance import kept, quantize
from .model import Model, inference
from .networks import part
from .tiling import Box, code_grid, covering, windows

Pixels = NDArray[np.uint8]
QualityShift = NDArray[np.float32]

KEPT_PIXELS = 1 << 25
"""Pixels up to which the features of a whole picture are kept: 256 MB at 512 channels and 1/16 resolution."""


class Analysis:
    """A picture on its way to codes; the part of the encoder that no quality changes is run once.

    (For pictures of more than KEPT_PIXELS it is run for each quality: time instead of memory.)
    """

    def __init__(self, model: Model, pixels: Pixels, quality_shift: QualityShift | None = None) -> None:
        """pixels uint8 [H,W,3]; quality_shift [h,w] is added to the quality index at each code position."""
        self.model, self.pixels, self.quality_shift = model, pixels, quality_shift
        self.grid = code_grid(pixels.shape[1], pixels.shape[0])
        self._large = pixels.shape[0] * pixels.shape[1] > KEPT_PIXELS
        self._kept: Tensor | None = None

    def codes(self, quality_index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The codes int16 [h,w,n], the importance levels uint8 [h,w], and what rounding left.

        That is int8 [h,w,n] in sixteenths of a step; None where codes are signs.
        """
        shape = self.grid.height, self.grid.width
        codes = torch.empty(*shape, self.model.config.planes, dtype=torch.int16, device="cpu")
        level = torch.empty(shape, dtype=torch.uint8, device="cpu")
        rest = None if self.model.config.one_bit else torch.empty_like(codes, dtype=torch.int8)
        for core in windows(self.grid):
            window = core.grow(self.model.config.heads_halo, self.grid)
            with inference():
                y, q = self._window(window, quality_index)
                inside = core.within(window).slices
                y, q = y[inside], q[inside]
                whole = self.model.binarize(y)
                codes[core.slices] = (whole * kept(q, self.model.config.first_level)).cpu()
                level[core.slices] = q.to(torch.uint8).cpu()
                if rest is not None:
                    rest[core.slices] = remainders(y, whole).cpu()
        if self._large:
            give_back()
        return codes, level, rest

    def picture(self, window: Box) -> Tensor:
        """The pixels of a window on the code grid as networks see them: [1,3,H,W] in [0,1], channels last in memory."""
        x = torch.from_numpy(cut(self.pixels, window.scale(GRID))).to(self.model.device)
        return x.permute(2, 0, 1)[None].float() / 255

    def _window(self, window: Box, quality_index: int) -> tuple[Tensor, Tensor]:
        """Code features [h,w,n] and levels [h,w] of one window, halo included."""
        config = self.model.config
        index = quality_at(self.model, quality_index, self.quality_shift, window)
        y, logit = self.model.encoder.heads(self._features(window), index)
        return y[0].permute(1, 2, 0), quantize(torch.sigmoid(logit[0, 0]), config.levels)

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
        whole = torch.empty(shape, dtype=found.dtype, device=found.device).contiguous(memory_format=torch.channels_last)
        part(whole, first).copy_(found)
        for core in others:
            part(whole, core).copy_(self._computed(core))
        return whole

    def _computed(self, box: Box) -> Tensor:
        window = box.grow(self.model.config.features_halo, self.grid)
        return part(self.model.encoder.features(self.picture(window)), box.within(window))


def give_back() -> None:
    """Have glibc return memory that was freed: what windows leave in one thread's arena, coding threads cannot use.

    Half a gigabyte; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def quality_at(model: Model, quality_index: int, shift: QualityShift | None, window: Box) -> Tensor:
    """The networks' quality input in a window: [1], or [1,h,w] where the picture has regions."""
    if shift is None:
        return torch.tensor([quality_index], device=model.device)
    index = torch.from_numpy(shift[window.slices]) + quality_index
    return index.clamp(0, model.config.quality_count - 1)[None].to(model.device)


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The pixels [H,W,3] in `box`; beyond the right and lower border the last column and row repeat."""
    inside = pixels[box.slices]
    missing = (box.height - inside.shape[0], box.width - inside.shape[1])
    if missing == (0, 0):
        return inside.copy()  # writable, which torch insists on
    return np.pad(inside, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def synthesize(
    model: Model, codes: Tensor, quality: tuple[int, QualityShift | None], present: Box, region: Box
) -> Pixels:
    """Codes [h,w,n] -> the pixels uint8 [H,W,3] of `region`.

    quality: the index and its shift on the picture's whole code grid. `present` is where on that grid the codes lie:
    they may be a part of it, as long as it holds the region and a halo around it.
    """
    out = np.empty((region.height, region.width, 3), np.uint8)
    for core in windows(covering(region)):
        window = core.grow(model.config.decoder_halos[-1], present)
        present_codes = codes[window.within(present).slices].to(model.device)
        with inference():
            x = present_codes.float().permute(2, 0, 1)[None]  # [1,n,h,w], channels last in memory
            picture = model.decoder(x, quality_at(model, *quality, window), core.within(window))[0]
            picture = picture.clamp_(0, 1).mul_(255).round_().to(torch.uint8)  # [3,H,W]
        seen = core.scale(GRID).grow(0, region)  # the core's pixels, cut off at the region
        inside = picture[:, *seen.within(core.scale(GRID)).slices]
        out[seen.within(region).slices] = inside.permute(1, 2, 0).cpu().numpy()
    return out
