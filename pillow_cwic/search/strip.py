"""A part of a tile whose codes are refined, small enough for gradients.

Invariant: what lies beyond the picture, or is shown from elsewhere, counts for nothing. This module
knows no entropy model: bits are `refinement`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..analysis import Analysis
from ..format.exact_tile import Mask
from ..format.grid import GRID, Box
from ..metrics import WINDOW
from ..networks.numpy_gradient import Passed
from ..networks.numpy_network import quality_in
from ..networks.windows import cut, windows
from ..runtime.threads import map_parallel, threads_within, usable_threads
from .original import Original, Part

Codes = NDArray[np.int16]
Floats = NDArray[np.float32]
Work = Callable[[], None]

HALO = 4
"""Code positions around a tile whose pixels count while its codes are refined.

What the decoder's reach holds beyond them matters little, and memory does.
"""


class Strip:
    """A part of a tile for which gradients take little memory, and what it should look like."""

    def __init__(
        self,
        analysis: Analysis,
        quality_index: int,
        area: Box,
        core: Box,
        exact: Mask,
    ) -> None:
        """area: the strip, in the tile `core`; both on the picture's code grid, as `exact` is."""
        model = analysis.model
        window = area.grow(HALO, analysis.grid)
        self.window = window.within(core.grow(HALO, analysis.grid)).slices
        """In the tile's codes, halo included."""

        self.inside = area.within(window).slices
        """The strip in its window."""

        self.own = area.within(core).slices
        """The strip in the tile."""

        # What lies beyond the picture does not count, as far as similarities fit without it.
        full = window.scale(GRID)
        height, width = analysis.pixels.shape[:2]
        rows = max(WINDOW, min(full.height, height - full.upper))
        columns = max(WINDOW, min(full.width, width - full.left))
        self._pixels = cut(analysis.pixels, full)[:rows, :columns].astype(np.float32)
        self._pixels /= 255  # [H,W,3]
        unseen = exact[window.slices].repeat(GRID, 0).repeat(GRID, 1)
        self._unseen = unseen[:rows, :columns]
        """Pixels [H,W] that the decoder takes from elsewhere: no error there counts."""

        similarity = model.config.similarity_weights(float(quality_index))
        self._original = Original(self._pixels, *similarity)
        share = area.width * area.height / (window.width * window.height)
        self._lagrangian = float(model.config.distortion_weight(float(quality_index)))
        self._own_pixels = int(rows * columns * share)
        """The strip's share of the window's pixels."""

        # The decoder's work, window by window: a core for every processor core.
        self._decoder = model.decoder_gradient
        network = self._decoder.network
        self._area = Box(0, 0, window.width, window.height)
        self._quality = model.quality_input(quality_index, analysis.offsets, window)
        self._cores = windows(self._area, least=usable_threads(), halo=network.halo)
        largest_bytes = max(network.work_bytes(part) for part in self._cores)
        self._threads = threads_within(full.width * full.height, 2 * largest_bytes)

    def cost(self, codes: Codes) -> float:
        """Lambda times the distortion in bits, by the strip's share of the window's pixels.

        codes [h,w,n]: the window's, of the first channels.
        """
        picture, _ = self._run(codes)
        return self._weighted(self._compared(picture, False)[0])

    def slope(self, codes: Codes, beside: Sequence[Work] = ()) -> tuple[float, Floats]:
        """The same, and the cost's gradient in the strip's own codes [h,w,n].

        In the gradient every pixel of the window counts alike. beside: other work, for threads that
        would wait.
        """
        picture, runs = self._run(codes)
        distortion, slope = self._compared(picture, True, beside)
        rows, columns = slope.shape[:2]
        slope *= self._lagrangian * rows * columns
        slope *= (picture[:rows, :columns] >= 0) & (picture[:rows, :columns] <= 1)
        slope[self._unseen] = 0
        picture[...] = 0  # and beyond the picture
        picture[:rows, :columns] = slope

        def pull_back(run: tuple[Box, Passed]) -> tuple[Box, Floats]:
            core, passed = run
            part = picture[core.scale(GRID).slices]
            return passed.whole, self._decoder.pull_back(part, passed)

        gradient = np.zeros(codes.shape, np.float32)
        for area, part in map_parallel(pull_back, runs, self._threads):
            gradient[area.slices] += part
        return self._weighted(distortion), gradient[self.inside]

    def _weighted(self, distortion: float) -> float:
        return self._lagrangian * distortion * self._own_pixels

    def _run(self, codes: Codes) -> tuple[Floats, list[tuple[Box, Passed]]]:
        """What the window's codes decode to [16h,16w,3], and every core's way back."""
        halo = self._decoder.network.halo

        def run(core: Box) -> tuple[Floats, Passed]:
            area = core.grow(halo, self._area)
            quality = quality_in(self._quality, self._area, area)
            return self._decoder.run(codes[area.slices], quality, area, core)

        picture = np.empty((*(GRID * side for side in codes.shape[:2]), 3), np.float32)
        runs = []
        results = map_parallel(run, self._cores, self._threads)
        for core, (part, passed) in zip(self._cores, results, strict=True):
            picture[core.scale(GRID).slices] = part
            runs.append((core, passed))
        return picture, runs

    def _compared(
        self, picture: Floats, with_slope: bool, beside: Sequence[Work] = ()
    ) -> tuple[float, Floats]:
        """A window's picture -> its distortion, and the gradient [H,W,3], if it is wanted."""
        height, width = self._pixels.shape[:2]
        seen = picture[:height, :width].clip(0, 1)
        seen[self._unseen] = self._pixels[self._unseen]
        jobs: list[Callable[[], Part | None]] = [
            *beside,
            *self._original.parts(seen, with_slope),
        ]
        parts = map_parallel(lambda job: job(), jobs)
        return self._original.total([part for part in parts if part is not None])
