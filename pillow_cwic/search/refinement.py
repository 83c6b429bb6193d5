"""Refinement: a search for better codes than the encoder's own, for those who can wait (`effort`).

The encoder network answers in one pass, for all pictures alike. Here the codes of one picture are
changed, one step or a few at a time, wherever that lowers bits + lambda * distortion: the
distortion's gradient comes through the decoder, the bits from the integer entropy model. Decoders
notice nothing. Known as content-adaptive or iterative encoding (Campos et al. 2019, arXiv
1906.01223; Yang et al. 2020, arXiv 2006.04240), there on features in place of codes.

On the processor always, in NumPy. Invariant: the same codes for the same picture, whatever random
numbers the caller draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..analysis import Analysis, Coded, absent
from ..entropy.ladder import UNIT
from ..format.exact_tile import Mask
from ..format.grid import Box
from ..networks.binarizer import LARGEST
from ..networks.importance import kept_channels, kept_mask
from ..networks.windows import windows
from ..runtime.blas import one_blas_thread
from ..runtime.progress import PASS_WORK
from .strip import HALO, Strip

STRIP = 48
"""Largest height in code positions of the strips in which gradients are computed: memory again."""

CURVATURE = 20.0
"""First guess of the cost's second derivative in a code, in bits per squared step.

Gains make it alike for all codes. Afterwards it is measured, between the two limits below.
"""

FLATTEST = 10.0
STEEPEST = 200.0

SHARE = 0.8
"""Of the promising changes, so many are made in a pass.

Made all at once, they would correct the same error many times over.
"""

TEMPERATURE = 0.6
"""How much worse a change may be, in bits: the mean of an exponential distribution.

In the first pass; it falls to 0 in the last. As in annealing, a search that takes only what helps
at once stops early.
"""

FARTHEST = 8
"""Steps that a code may go in one pass.

Photographs need one, but the encoder may be far off on what it never saw.
"""

Codes = NDArray[np.int16]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def refine(
    analysis: Analysis,
    tiles: list[Box],
    coded: Coded,
    effort: int,
    *,
    exact: Mask | None = None,
    strip: int = STRIP,
) -> Coded:
    """What `Analysis.coded` gave, with remainders -> the same with better codes, without them.

    effort: passes over every tile; one takes about as long as three runs of the decoder. Tiles see
    the refined codes of those before them. exact [h,w]: positions whose pixels the decoder does not
    show, by default none; only bits count there. strip: see STRIP.
    """
    if exact is None:
        exact = np.zeros(coded.level.shape, np.bool_)
    model = analysis.model
    refined = absent(analysis.grid, model.config.channels, np.int16)
    with one_blas_thread():
        for box in tiles:
            codes, level, index, left_over = coded.tile(box)
            if left_over is None:
                raise ValueError(
                    "refinement starts from features that were rounded: remainders are missing"
                )
            chosen = model.entropy.chosen_codes(codes, level, left_over, index)
            count = kept_channels(level, model.config.kept_planes)
            refined[(*box.slices, slice(count))] = chosen[..., :count]

        work = PASS_WORK / len(tiles)  # each pass tells its share
        for box in tiles:
            if exact[box.slices].all():
                continue
            search = Search(analysis, coded._replace(codes=refined), box, exact=exact, strip=strip)
            for number in range(1, effort + 1):
                search.step(number / effort)
                analysis.progress.add(work)
            refined[(*box.slices, slice(search.channels))] = search.finish()
    return coded._replace(codes=refined, remainders=None)


class Expected(NamedTuple):
    """What a decoder expects of a tile's codes, and what these cost; each [h,w,n]."""

    mean: Integers  # sixteenths
    scale: Integers  # indices
    bits: Floats


class Search:
    """One tile's codes on their way. Costs are in bits of the picture's quality index."""

    def __init__(
        self, analysis: Analysis, coded: Coded, core: Box, *, exact: Mask, strip: int = STRIP
    ) -> None:
        model = analysis.model
        window = core.grow(HALO, analysis.grid)
        self.entropy = model.entropy
        self.quality_index = coded.quality_index

        # Codes of the tile and, around it, of its halo, which stay as they are. All work is on the
        # first n channels: no others exist here.
        kept_planes = model.config.kept_planes
        self.channels = kept_channels(coded.level[window.slices], kept_planes)
        self.whole = coded.codes[window.slices].copy()  # [h',w',all]
        self.codes = self.whole[..., : self.channels]  # [h',w',n]
        self.inside = core.within(window).slices
        self.level = coded.level[core.slices]
        self.kept = kept_mask(self.level, kept_planes, self.channels)  # [h,w,n]
        self.prices = self.entropy.codes.ladder.prices
        self.strips = [
            Strip(analysis, coded.quality_index, area, core, exact)
            for area in windows(core, height=strip)
        ]

        # Where the quality map asks for more, distortion weighs more: here, bits weigh less.
        self.worth = np.ones((core.height, core.width, 1), np.float32)  # of a bit
        if analysis.offsets is not None:
            quality = model.quality_input(coded.quality_index, analysis.offsets, core)
            weight = model.config.distortion_weight(np.asarray(quality, np.float32))
            lagrangian = model.config.distortion_weight(float(coded.quality_index))
            self.worth = np.asarray(lagrangian / weight, np.float32)[..., None]

        # The curvature around each position, and the sums that it is measured from, [h,w,1].
        self.curvature = CURVATURE * self.worth
        self.slopes = np.zeros_like(self.worth)
        self.squares = np.zeros_like(self.worth)
        self.last: tuple[Floats, Floats] | None = None
        """Gradient and changes [h,w,n] of the pass before."""

        self.best = self.core.copy()
        self.least_cost = float("inf")
        self.random = np.random.default_rng(0)

    @property
    def core(self) -> Codes:
        """The tile's own codes."""
        return self.codes[self.inside]

    def step(self, progress: float) -> None:
        """One pass: of the changes that promise a lower cost, make a random share.

        progress runs up to 1.
        """
        gradient, expected = self._look()
        self._measure_curvature(gradient)

        # Towards less distortion by Newton's step; or, for the sake of the bits, by one the other
        # way.
        newton = np.rint(np.abs(gradient) / self.curvature).clip(1, FARTHEST)
        cheaper = np.sign(gradient)
        nearer = -cheaper * newton
        cost_nearer = self._cost_of(nearer, gradient, expected)
        cost_cheaper = self._cost_of(cheaper, gradient, expected)
        cost = np.minimum(cost_nearer, cost_cheaper)

        # What may be made: codes that exist, and a little loss, ever less.
        allowed = self.random.standard_exponential(cost.shape, np.float32)
        allowed *= TEMPERATURE * (1 - progress)
        made = self.kept & (cost < allowed * self.worth)
        made &= self.random.random(made.shape, np.float32) < SHARE

        changes = np.where(cost_nearer < cost_cheaper, nearer, cheaper) * made
        self.last = (gradient, changes)
        self.core[...] = (self.core + changes).clip(-LARGEST, LARGEST)

    def finish(self) -> Codes:
        """The best codes of all passes, int16 [h,w,n] of the first `channels`."""
        cost = sum(strip.cost(self.codes[strip.window]) for strip in self.strips)
        self._keep_if_best(cost, self._expected())
        return self.best

    def _cost_of(self, change: Floats, gradient: Floats, expected: Expected) -> Floats:
        """By how much every change alone would raise the cost, [h,w,n]."""
        distortion_cost = change * (gradient + change * (self.curvature / 2))
        bits = self._bits(change, expected.mean, expected.scale) - expected.bits
        return np.asarray(distortion_cost + self.worth * bits, np.float32)

    def _look(self) -> tuple[Floats, Expected]:
        """The distortion's gradient [h,w,n], and what is expected; keeps the best codes."""
        gradient = np.empty(self.core.shape, np.float32)
        expected: list[Expected] = []
        beside = [lambda: expected.append(self._expected())]
        total = 0.0
        for strip in self.strips:
            cost, gradient[strip.own] = strip.slope(self.codes[strip.window], beside)
            total += cost
            beside = []
        self._keep_if_best(total, expected[0])
        return gradient, expected[0]

    def _keep_if_best(self, distortion_cost: float, expected: Expected) -> None:
        cost = distortion_cost + float((expected.bits * self.kept * self.worth).sum())
        if cost < self.least_cost:
            self.best = self.core.copy()
            self.least_cost = cost

    def _expected(self) -> Expected:
        """Means and scale indices of the codes as they are, and their bits."""
        whole = self.entropy.codes.distributions(
            self.whole[self.inside], self.level, self.quality_index
        )
        mean, scale = (x[..., : self.channels].astype(np.int64) for x in whole)
        return Expected(mean, scale, self._bits(0, mean, scale))

    def _bits(self, change: int | Floats, mean: Integers, scale: Integers) -> Floats:
        """Bits of every code after a change, [h,w,n]; also of those that do not exist."""
        columns = self.prices.shape[1]
        distance = np.abs(np.asarray(self.core + change, np.int64) * UNIT - mean)
        np.minimum(distance, columns - 1, out=distance)
        bits: Floats = self.prices.reshape(-1)[scale * columns + distance]
        return bits

    def _measure_curvature(self, gradient: Floats) -> None:
        """The curvature around each position, from what the last changes did to the gradient."""
        if self.last is None:
            return
        before, changes = self.last
        self.slopes = self.slopes / 2 + ((gradient - before) * changes).sum(2, keepdims=True)
        self.squares = self.squares / 2 + (changes**2).sum(2, keepdims=True)
        slopes = _mean_around(self.slopes)
        squares = _mean_around(self.squares)

        # The first guess counts for a tenth of a squared step.
        measured = (slopes + CURVATURE * self.worth / 10) / (squares + 0.1)
        self.curvature = measured.clip(FLATTEST * self.worth, STEEPEST * self.worth)


def _mean_around(x: Floats) -> Floats:
    """Means over 5 x 5 positions, [h,w,1]; at the border over those that exist."""
    both = np.stack([x[:, :, 0], np.ones(x.shape[:2], np.float32)])
    near = sliding_window_view(np.pad(both, [(0, 0), (2, 2), (2, 2)]), (5, 5), (1, 2))
    total, count = near.sum((3, 4))
    return np.asarray(total / count, np.float32)[:, :, None]
