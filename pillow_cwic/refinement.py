"""Refinement: a search for better codes than the encoder's own, for those who can wait (`effort`).

The encoder network answers in one pass, for all pictures alike. Here the codes of one picture are
changed, one step or a few at a time, wherever that lowers bits + lambda * distortion: the
distortion's gradient comes through the decoder, the bits from the integer entropy model. Decoders
notice nothing. Known as content-adaptive or iterative encoding (Campos et al. 2019, arXiv
1906.01223; Yang et al. 2020, arXiv 2006.04240), there on features in place of codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .analysis import Analysis, Coded
from .entropy.ladder import UNIT
from .format.grid import GRID, Box
from .metrics import WINDOW
from .metrics.distortion import distortion
from .networks.binarizer import LARGEST
from .networks.importance import kept
from .networks.windows import windows
from .runtime.devices import differentiable
from .runtime.threads import map_one_thread

HALO = 4
"""Code positions around a tile whose pixels count while its codes are refined: what the decoder's reach holds beyond
them matters little, and memory does."""

STRIP = 48
"""Largest height in code positions of the strips in which gradients are computed: memory again."""

CURVATURE = 20.0
"""First guess of the cost's second derivative in a code, in bits per squared step: gains make it alike for all codes.
Afterwards it is measured, between these limits:"""
FLATTEST, STEEPEST = 10.0, 200.0

FIRST_SHARE, LAST_SHARE = 0.8, 0.32
"""Shares of the promising changes that are made in the first pass and in the last.

Made all at once, they correct the
same error many times over."""

TEMPERATURE = 0.6
"""How much worse a change may be, in bits, as the mean of an exponential distribution: in the first pass; it falls to 0
in the last. As in annealing, a search that takes only what helps at once stops early."""

FARTHEST = 8
"""Steps that a code may go in one pass: photographs need one, but the encoder may be far off on what it never saw."""


def refine(analysis: Analysis, tiles: list[Box], coded: Coded, effort: int) -> Coded:
    """What `Analysis.coded` gave, with remainders, in `effort` passes over every tile -> better codes, without.

    A pass takes about as long as four runs of the decoder. Tiles see the refined codes of those
    before them.
    """

    def chosen(tile: Box) -> Tensor:
        return analysis.model.entropy.chosen_codes(*coded.tile(tile))

    start = map_one_thread(chosen, tiles)
    # Whatever the caller's: gradients can't pass what is made in inference mode.
    with torch.inference_mode(False), torch.device("cpu"):
        refined = torch.empty_like(coded.codes)
        for tile, part in zip(tiles, start, strict=True):
            refined[tile.slices] = part
        for tile in tiles:
            search = Search(analysis, coded._replace(codes=refined), tile)
            for done in range(1, effort + 1):
                search.step(done / effort)
            refined[tile.slices] = search.finish()
    return coded._replace(codes=refined, remainders=None)


class Strip:
    """A part of a tile, for which gradients take little memory: where its codes are, and what they should look like."""

    def __init__(self, analysis: Analysis, quality_index: int, part: Box, core: Box) -> None:
        window = part.grow(HALO, analysis.grid)
        self.window = window.within(
            core.grow(HALO, analysis.grid)
        ).slices  # in the tile's codes, halo included
        self.inside = part.within(window).slices  # the part in the window
        self.own = part.within(core).slices  # the part in the tile
        full, (rows, columns) = window.scale(GRID), analysis.pixels.shape[:2]
        # What lies beyond the picture does not count, as far as similarities fit without it.
        rows, columns = (
            max(WINDOW, min(full.height, rows - full.upper)),
            max(WINDOW, min(full.width, columns - full.left)),
        )
        self.x = analysis.picture(window)[:, :, :rows, :columns]
        self.index = analysis.model.quality_input(quality_index, analysis.offsets, window)
        # Its share.
        self.pixels = (
            self.x[0, 0].numel() * part.width * part.height // (window.width * window.height)
        )


class Search:
    """One tile's codes on their way. Costs are in bits of the picture's quality index."""

    def __init__(self, analysis: Analysis, coded: Coded, core: Box) -> None:
        model, window = analysis.model, core.grow(HALO, analysis.grid)
        quality_index = coded.quality_index
        config, self.entropy, self.decoder = model.config, model.entropy, model.decoder
        self.device, self.quality_index, self.inside = (
            model.device,
            quality_index,
            core.within(window).slices,
        )
        self.codes, self.level = coded.codes[window.slices].clone(), coded.level[core.slices].long()
        self.kept = kept(self.level, config.first_level)  # [h,w,n]
        self.prices = torch.from_numpy(self.entropy.prices)
        self.lagrangian = config.distortion_weight(quality_index)
        self.similarity = config.similarity_weights(float(quality_index))
        self.strips = [Strip(analysis, quality_index, part, core) for part in windows(core, STRIP)]

        self.worth = torch.ones(core.height, core.width, 1)  # of a bit
        if analysis.offsets is not None:
            # Where a region has a higher quality, distortion weighs more: here, bits weigh less.
            index = analysis.model.quality_input(quality_index, analysis.offsets, core)[
                0
            ].cpu()  # [h,w]
            self.worth = (self.lagrangian / config.distortion_weight(index.float()))[..., None]
        self.curvature = CURVATURE * self.worth  # [h,w,1]
        self.slopes = self.squares = torch.zeros_like(self.worth)
        self.last: tuple[Tensor, Tensor] | None = (
            None  # gradient and changes [h,w,n] of the pass before
        )
        self.best, self.least = self.core.clone(), float("inf")
        self.generator = torch.Generator("cpu").manual_seed(0)

    @property
    def core(self) -> Tensor:
        """The tile's own codes."""
        return self.codes[self.inside]

    def step(self, progress: float) -> None:
        """One pass: of the changes that promise a lower cost, make a random share.

        Progress runs up to 1.
        """
        share = FIRST_SHARE + (LAST_SHARE - FIRST_SHARE) * progress
        gradient, mean, scale, bits = self._look()
        with torch.inference_mode():
            self._measure(gradient)
            # Towards less distortion by Newton's step; or, for the sake of the bits, by one the
            # other way.
            nearer = -gradient.sign() * (gradient.abs() / self.curvature).round().clamp(1, FARTHEST)
            ways = nearer, gradient.sign()
            costs = [
                way * gradient
                + way.square() * self.curvature / 2
                + self.worth * (self._bits(way.long(), mean, scale) - bits)
                for way in ways
            ]
            allowed = torch.empty_like(bits).exponential_(generator=self.generator) * (
                TEMPERATURE * (1 - progress)
            )
            made = self.kept & (torch.minimum(*costs) < allowed * self.worth)
            made &= torch.rand(made.shape, generator=self.generator) < share
            changes = torch.where(costs[0] < costs[1], *ways) * made
            self.last = gradient, changes
            self.core.add_(changes.to(torch.int16)).clamp_(-LARGEST, LARGEST)

    def finish(self) -> Tensor:
        """The best codes found, int16 [h,w,n]."""
        self._look(differentiate=False)
        return self.best

    def _look(self, differentiate: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keep the codes if they are the best so far.

        The distortion's gradient, means, scale indices, bits [h,w,n].
        """
        mean, scale = self._expected()
        cost, gradient = self._distortion(differentiate)
        with torch.inference_mode():
            bits = self._bits(0, mean, scale)
            cost += float((bits * self.kept * self.worth).sum())
            if cost < self.least:
                self.best, self.least = self.core.clone(), cost
        return gradient, mean, scale, bits

    def _expected(self) -> tuple[Tensor, Tensor]:
        """Means and scale indices of the codes as they are.

        On one thread, as all entropy coding.
        """
        (both,) = map_one_thread(
            lambda codes: self.entropy.distributions(codes, self.level, self.quality_index),
            [self.core],
        )
        return both

    def _distortion(self, differentiate: bool) -> tuple[float, Tensor]:
        """The distortion's cost, and its gradient in the tile's codes [h,w,n]."""
        total, gradient = 0.0, torch.zeros(self.core.shape)
        for strip in self.strips:
            with differentiable(differentiate):
                # [1,n,h,w].
                codes = self.codes[strip.window].to(self.device).float().permute(2, 0, 1)[None]
                codes.requires_grad_(differentiate)
                picture = self.decoder(codes, strip.index)[
                    :, :, : strip.x.shape[2], : strip.x.shape[3]
                ].clamp(0, 1)
                mean = self.lagrangian * distortion(picture, strip.x, *self.similarity)[2].sum()
                total += mean.item() * strip.pixels
                if differentiate:
                    (found,) = torch.autograd.grad(mean * strip.x[0, 0].numel(), codes)
                    gradient[strip.own] = found[0].permute(1, 2, 0)[strip.inside].cpu()
        return total, gradient

    def _bits(self, change: int | Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Bits of every code after a change by as many steps, [h,w,n].

        Also of those that do not exist.
        """
        distance = (
            ((self.core.long() + change) * UNIT - mean).abs_().clamp_(max=self.prices.shape[1] - 1)
        )
        return self.prices.view(-1)[scale * self.prices.shape[1] + distance]

    def _measure(self, gradient: Tensor) -> None:
        """The curvature around each position, from what the last changes did to the gradient there."""
        if self.last is None:
            return
        before, changes = self.last
        self.slopes = self.slopes / 2 + ((gradient - before) * changes).sum(2, keepdim=True)
        self.squares = self.squares / 2 + changes.square().sum(2, keepdim=True)
        slopes, squares = (
            F.avg_pool2d(x.permute(2, 0, 1), 5, 1, 2, count_include_pad=False).permute(1, 2, 0)
            for x in (self.slopes, self.squares)
        )
        self.curvature = (slopes + CURVATURE * self.worth / 10) / (squares + 0.1)
        self.curvature = self.curvature.clamp(FLATTEST * self.worth, STEEPEST * self.worth)
