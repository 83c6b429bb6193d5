"""Refinement: a search for better codes than the encoder's own, for those who can wait (`effort`).

The encoder network answers in one pass, for all pictures alike. Here the codes of one picture are
changed, one step or a few at a time, wherever that lowers bits + lambda * distortion: the
distortion's gradient comes through the decoder, the bits from the integer entropy model. Decoders
notice nothing. Known as content-adaptive or iterative encoding (Campos et al. 2019, arXiv
1906.01223; Yang et al. 2020, arXiv 2006.04240), there on features in place of codes.

Needs PyTorch. Invariant: the caller's PyTorch, its random numbers included, stays as it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..analysis import Analysis, Coded
from ..entropy.ladder import UNIT
from ..format.exact_tile import Mask
from ..format.grid import Box
from ..metrics.distortion import distortion
from ..networks.binarizer import LARGEST
from ..networks.importance import kept_channels, kept_mask
from ..networks.torch_precision import differentiable
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

FIRST_SHARE = 0.8
LAST_SHARE = 0.32
"""Shares of the promising changes that are made in the first pass and in the last.

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

    effort: passes over every tile; one takes about as long as four runs of the decoder. Tiles see
    the refined codes of those before them. exact [h,w]: positions whose pixels the decoder does not
    show, by default none; only bits count there. strip: see STRIP.
    """
    if exact is None:
        exact = np.zeros(coded.level.shape, np.bool_)
    if coded.remainders is None:
        raise ValueError(
            "refinement starts from features that were rounded: remainders are missing"
        )
    refined = np.empty_like(coded.codes)
    with one_blas_thread():
        for box in tiles:
            refined[box.slices] = analysis.model.entropy.chosen_codes(
                coded.codes[box.slices],
                coded.level[box.slices],
                coded.remainders[box.slices],
                coded.quality_index,
            )

    # Each pass tells its share.
    work = PASS_WORK / len(tiles)

    # Whatever the caller's: gradients can't pass what is made in inference mode.
    with torch.inference_mode(False), torch.device("cpu"):
        for box in tiles:
            if exact[box.slices].all():
                continue
            search = Search(analysis, coded._replace(codes=refined), box, exact=exact, strip=strip)
            for number in range(1, effort + 1):
                search.step(number / effort)
                analysis.progress.add(work)
            refined[box.slices] = search.finish()
    return coded._replace(codes=refined, remainders=None)


class Expected(NamedTuple):
    """What a decoder expects of a tile's codes, and what these cost; each [h,w,n]."""

    mean: Tensor  # sixteenths
    scale: Tensor  # indices
    bits: Tensor


class Search:
    """One tile's codes on their way. Costs are in bits of the picture's quality index."""

    def __init__(
        self, analysis: Analysis, coded: Coded, core: Box, *, exact: Mask, strip: int = STRIP
    ) -> None:
        model = analysis.model
        window = core.grow(HALO, analysis.grid)
        self.entropy = model.entropy
        self.decoder = model.torch_decoder
        self.quality_index = coded.quality_index
        self.lagrangian = model.config.distortion_weight(coded.quality_index)
        self.similarity = model.config.similarity_weights(float(coded.quality_index))
        self.strips = [
            Strip(analysis, coded.quality_index, area, core, exact)
            for area in windows(core, height=strip)
        ]

        # Codes of the tile and, around it, of its halo, which stay as they are. All work is on the
        # first n channels: no others exist here.
        kept_planes = model.config.kept_planes
        self.channels = kept_channels(coded.level[window.slices], kept_planes)
        self.whole = coded.codes[window.slices].copy()  # [h',w',all]
        self.codes = torch.from_numpy(self.whole)[..., : self.channels]  # int16 [h',w',n]
        self.inside = core.within(window).slices
        self.level = coded.level[core.slices]
        self.kept = torch.from_numpy(kept_mask(self.level, kept_planes, self.channels))  # [h,w,n]
        self.prices = torch.from_numpy(self.entropy.codes.ladder.prices)

        # Where the quality map asks for more, distortion weighs more: here, bits weigh less.
        self.worth = torch.ones(core.height, core.width, 1)  # of a bit
        if analysis.offsets is not None:
            quality = model.quality_input(coded.quality_index, analysis.offsets, core)
            weight = model.config.distortion_weight(torch.as_tensor(quality).float())
            self.worth = (self.lagrangian / weight)[..., None]

        # The curvature around each position, and the sums that it is measured from, [h,w,1].
        self.curvature = CURVATURE * self.worth
        self.slopes = torch.zeros_like(self.worth)
        self.squares = torch.zeros_like(self.worth)
        self.last: tuple[Tensor, Tensor] | None = None
        """Gradient and changes [h,w,n] of the pass before."""

        self.best = self.core.clone()
        self.least_cost = float("inf")
        self.generator = torch.Generator("cpu").manual_seed(0)

    @property
    def core(self) -> Tensor:
        """The tile's own codes."""
        return self.codes[self.inside]

    def step(self, progress: float) -> None:
        """One pass: of the changes that promise a lower cost, make a random share.

        progress runs up to 1.
        """
        gradient, expected = self._look()
        share = FIRST_SHARE + (LAST_SHARE - FIRST_SHARE) * progress
        with torch.inference_mode():
            self._measure_curvature(gradient)

            # Towards less distortion by Newton's step; or, for the sake of the bits, by one the
            # other way.
            newton = (gradient.abs() / self.curvature).round().clamp(1, FARTHEST)
            nearer = -gradient.sign() * newton
            cheaper = gradient.sign()
            cost_nearer = self._cost_of(nearer, gradient, expected)
            cost_cheaper = self._cost_of(cheaper, gradient, expected)
            cost = torch.minimum(cost_nearer, cost_cheaper)

            # What may be made: codes that exist, and a little loss, ever less.
            allowed = torch.empty_like(cost).exponential_(generator=self.generator)
            allowed *= TEMPERATURE * (1 - progress)
            made = self.kept & (cost < allowed * self.worth)
            made &= torch.rand(made.shape, generator=self.generator) < share

            changes = torch.where(cost_nearer < cost_cheaper, nearer, cheaper) * made
            self.last = (gradient, changes)
            self.core.add_(changes.to(torch.int16)).clamp_(-LARGEST, LARGEST)

    def finish(self) -> Codes:
        """The best codes of all passes, int16 [h,w,n] of all channels."""
        self._keep_if_best(self._distortion_cost(), self._expected())
        self.core.copy_(self.best)
        return self.whole[self.inside]

    def _cost_of(self, change: Tensor, gradient: Tensor, expected: Expected) -> Tensor:
        """By how much every change alone would raise the cost, [h,w,n]."""
        distortion_cost = change * gradient + change.square() * self.curvature / 2
        bits = self._bits(change.long(), expected.mean, expected.scale) - expected.bits
        return distortion_cost + self.worth * bits

    def _look(self) -> tuple[Tensor, Expected]:
        """The distortion's gradient [h,w,n], and what is expected; keeps the best codes."""
        expected = self._expected()
        cost, gradient = self._distortion_gradient()
        self._keep_if_best(cost, expected)
        return gradient, expected

    def _keep_if_best(self, distortion_cost: float, expected: Expected) -> None:
        with torch.inference_mode():
            cost = distortion_cost + float((expected.bits * self.kept * self.worth).sum())
            if cost < self.least_cost:
                self.best = self.core.clone()
                self.least_cost = cost

    def _expected(self) -> Expected:
        """Means and scale indices of the codes as they are, and their bits."""
        with one_blas_thread():
            whole = self.entropy.codes.distributions(
                self.whole[self.inside], self.level, self.quality_index
            )
        with torch.inference_mode():
            mean, scale = (torch.from_numpy(x[..., : self.channels]).long() for x in whole)
            return Expected(mean, scale, self._bits(0, mean, scale))

    def _distortion_cost(self) -> float:
        """Lambda times the distortion, in bits."""
        with differentiable(False):
            return sum(self._strip_cost(strip, self._window(strip)).item() for strip in self.strips)

    def _distortion_gradient(self) -> tuple[float, Tensor]:
        """The same, and its gradient in the tile's codes [h,w,n]."""
        total = 0.0
        gradient = torch.zeros(self.core.shape)
        for strip in self.strips:
            with differentiable():
                codes = self._window(strip).requires_grad_()
                cost = self._strip_cost(strip, codes)
                scale = strip.original[0, 0].numel() / strip.pixels
                (slope,) = torch.autograd.grad(cost * scale, codes)  # [1,n,h',w']
            total += cost.item()
            gradient[strip.own] = slope[0].permute(1, 2, 0)[strip.inside].cpu()
        return total, gradient

    def _window(self, strip: Strip) -> Tensor:
        """The codes of a strip and its halo as the decoder takes them, [1,n,h',w']."""
        codes = self.codes[strip.window].to(self.decoder.device)
        return codes.float().permute(2, 0, 1)[None]

    def _strip_cost(self, strip: Strip, codes: Tensor) -> Tensor:
        """Lambda times the distortion of a strip, by its own share of the window's pixels."""
        device = self.decoder.device
        rows, columns = strip.original.shape[2:]
        picture = self.decoder(codes, strip.quality.to(device))[:, :, :rows, :columns]
        original = strip.original.to(device)
        picture = torch.where(strip.unseen.to(device), original, picture)
        mean = distortion(picture.clamp(0, 1), original, *self.similarity)[2].sum()
        return self.lagrangian * mean * strip.pixels

    def _bits(self, change: int | Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Bits of every code after a change, [h,w,n]; also of those that do not exist."""
        columns = self.prices.shape[1]
        distance = ((self.core.long() + change) * UNIT - mean).abs_().clamp_(max=columns - 1)
        return self.prices.view(-1)[scale * columns + distance]

    def _measure_curvature(self, gradient: Tensor) -> None:
        """The curvature around each position, from what the last changes did to the gradient."""
        if self.last is None:
            return
        before, changes = self.last
        self.slopes = self.slopes / 2 + ((gradient - before) * changes).sum(2, keepdim=True)
        self.squares = self.squares / 2 + changes.square().sum(2, keepdim=True)
        slopes = _mean_around(self.slopes)
        squares = _mean_around(self.squares)

        # The first guess counts for a tenth of a squared step.
        measured = (slopes + CURVATURE * self.worth / 10) / (squares + 0.1)
        self.curvature = measured.clamp(FLATTEST * self.worth, STEEPEST * self.worth)


def _mean_around(x: Tensor) -> Tensor:
    """Means over 5 x 5 positions, [h,w,1]; at the border over those that exist."""
    return F.avg_pool2d(x.permute(2, 0, 1), 5, 1, 2, count_include_pad=False).permute(1, 2, 0)
