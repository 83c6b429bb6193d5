"""Analysis: pixels -> codes and importance levels, window by window (paper, sections 3.1 to 3.3).

Invariant: where a picture is cut into windows does not show, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .format.grid import GRID, Box, code_grid
from .format.quality_map import Offsets
from .model import Model
from .networks.binarizer import channels_in_use, code_integers, code_signs, remainders
from .networks.encoder import codes_network
from .networks.importance import importance_level, kept_channels, kept_mask
from .networks.windows import LARGEST_WINDOW, Pixels, cut, windows
from .runtime.blas import one_blas_thread
from .runtime.progress import FEATURES_WORK, HEADS_WORK, Progress
from .runtime.threads import map_parallel, threads_within, usable_threads

Floats = NDArray[np.float32]
R = TypeVar("R")
S = TypeVar("S", bound=np.signedinteger[Any])

KEPT_PIXELS = 1 << 25
"""Pixels up to which the trunk of a whole picture is kept: 168 MB at 320 channels and 1/16."""


class Coded(NamedTuple):
    """What analysis returns: a picture, or a tile of it, at one quality."""

    codes: NDArray[np.int16]  # [h,w,n], as `absent` makes them
    level: NDArray[np.uint8]  # [h,w], importance levels
    quality_index: int
    remainders: NDArray[np.int8] | None = None  # [h,w,n]: sixteenths of a step that rounding left

    def tile(self, box: Box) -> Coded:
        """The part in a box of code positions."""
        codes = self.codes[box.slices]
        left_over = None if self.remainders is None else self.remainders[box.slices]
        count = channels_in_use(codes)
        if left_over is not None:
            count = max(count, channels_in_use(left_over))
            left_over = _position_by_position(left_over, count)
        codes = _position_by_position(codes, count)
        return Coded(codes, self.level[box.slices], self.quality_index, left_over)

    def binarize(self, box: Box, features: Floats, kept_planes: Sequence[int]) -> None:
        """Code features [h,w,m] in a box, of the first channels: those that exist become codes.

        They are rounded, or signs where there are no remainders.
        """
        places = (*box.slices, slice(features.shape[2]))
        decided = code_signs if self.remainders is None else code_integers
        codes = decided(features)
        kept = kept_mask(self.level[box.slices], kept_planes, features.shape[2])
        self.codes[places] = codes * kept
        if self.remainders is not None:
            self.remainders[places] = remainders(features, codes)


def absent(grid: Box, channels: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros [h,w,n] for the codes of a picture, or for what belongs to them.

    They lie channel by channel, so that channels which exist nowhere take no memory: it is the
    system that has zeros there, until something is written.
    """
    return np.zeros((channels, grid.height, grid.width), dtype).transpose(1, 2, 0)


def _position_by_position(values: NDArray[S], channels: int) -> NDArray[S]:
    """A copy of values [h,w,n] that lies as arrays do; 0 behind so many first channels."""
    copy = np.zeros(values.shape, values.dtype)
    copy[..., :channels] = values[..., :channels]
    return copy


class Analysis:
    """A picture on its way to codes; the half of the encoder that no quality changes is run once.

    (For pictures of more than `kept_pixels` it is run for each quality: time instead of memory.)
    """

    def __init__(
        self,
        model: Model,
        pixels: Pixels,
        offsets: Offsets | None = None,
        *,
        largest_window: int = LARGEST_WINDOW,
        kept_pixels: int = KEPT_PIXELS,
        progress: Progress | None = None,
    ) -> None:
        """pixels uint8 [H,W,3]; offsets [h,w] are added to the quality index at each position."""
        self.model = model
        self.pixels = pixels
        self.offsets = offsets
        self.progress = progress or Progress()
        self.grid = code_grid(pixels.shape[1], pixels.shape[0])
        networks = (model.features.network, model.heads.network, codes_network(model.config))
        self._codes_halo = networks[2].halo
        halo = max(network.halo for network in networks)
        least = usable_threads()
        self._cores = windows(self.grid, least=least, largest=largest_window, halo=halo)
        window_bytes = max(net.work_bytes(core) for net in networks for core in self._cores)
        self._threads = threads_within(pixels.shape[0] * pixels.shape[1], window_bytes)
        self._is_large = pixels.shape[0] * pixels.shape[1] > kept_pixels
        self._kept: Floats | None = None  # the trunk of the whole picture [h,w,c]

    def pixels_of(self, box: Box) -> Floats:
        """The picture in a box of code positions as networks see it, [16h,16w,3] in [0, 1]."""
        pixels = cut(self.pixels, box.scale(GRID)).astype(np.float32)
        pixels /= 255
        return pixels

    def coded(self, quality_index: int) -> Coded:
        """The picture at a quality index; without remainders where codes are signs."""
        config = self.model.config
        shape = (self.grid.height, self.grid.width)
        codes = absent(self.grid, config.channels, np.int16)
        left_over = None if config.one_bit else absent(self.grid, config.channels, np.int8)
        coded = Coded(codes, np.empty(shape, np.uint8), quality_index, left_over)

        def analyse(core: Box) -> None:
            near = core.grow(self._codes_halo, self.grid)
            quality = self.model.quality_input(quality_index, self.offsets, near)
            x, logit = self._heads(near, quality_index)
            inside = core.within(near).slices
            coded.level[core.slices] = importance_level(logit[inside][:, :, 0], config.levels)
            count = kept_channels(coded.level[core.slices], config.kept_planes)
            inputs = {"x": x, "pixels": self.pixels_of(near)}
            (y,) = self.model.codes(count)(inputs, quality, near, core)
            coded.binarize(core, y, config.kept_planes)

        if not self._is_large and self._kept is None:
            self._kept = self._whole_trunk()
        with one_blas_thread():
            map_parallel(self._counting(analyse, HEADS_WORK), self._cores, self._threads)
        return coded

    def _heads(self, core: Box, quality_index: int) -> list[Floats]:
        """What code features of a core are made of [h,w,c], and its importance logits [h,w,1]."""
        window = core.grow(self.model.heads.network.halo, self.grid)
        inputs = {"trunk": self._trunk(window)}
        quality = self.model.quality_input(quality_index, self.offsets, window)
        return self.model.heads(inputs, quality, window, core)

    def _trunk(self, box: Box) -> Floats:
        """What no quality changes [h,w,c], of a part of the picture."""
        return self._computed_trunk(box) if self._kept is None else self._kept[box.slices]

    def _whole_trunk(self) -> Floats:
        """The trunk of the whole picture, window by window."""
        with one_blas_thread():
            compute = self._counting(self._computed_trunk, FEATURES_WORK)
            parts = map_parallel(compute, self._cores, self._threads)
        if len(parts) == 1:
            return parts[0]
        shape = (self.grid.height, self.grid.width, parts[0].shape[2])
        whole = np.empty(shape, np.float32)
        for core, part in zip(self._cores, parts, strict=True):
            whole[core.slices] = part
        return whole

    def _counting(self, function: Callable[[Box], R], work: float) -> Callable[[Box], R]:
        """A function of windows that tells its share of so much work."""
        return self.progress.counting(function, work / len(self._cores))

    def _computed_trunk(self, core: Box) -> Floats:
        window = core.grow(self.model.features.network.halo, self.grid)
        inputs = {"pixels": self.pixels_of(window)}
        (trunk,) = self.model.features(inputs, 0.0, window, core)
        return trunk
