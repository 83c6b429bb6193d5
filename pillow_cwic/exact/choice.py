"""Which blocks are exact: those whose lossless bits are fewer than bits + lambda * distortion.

Estimated per block by the pixels, then settled per tile by real sizes of three ways: no exact
block, those estimated, all. Where the estimates leave no doubt, no network is asked. A tile is
tried only if it looks like text or graphics, so that photographs pay for a look at their pixels.
Knows of the model its lambda, its bits and its pictures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..analysis import Analysis, Coded
from ..format.exact_tile import ExactTile, Mask, pack_tile
from ..format.grid import GRID, Box, covering
from ..format.lossless_picture import LosslessPicture
from ..format.quality_map import Offsets
from ..model import Model
from ..options import Picture
from ..runtime.blas import one_blas_thread
from ..synthesis import synthesize
from .continuation import continue_smoothly
from .estimate import block_sums, coded_cost, exact_bits
from .layer import of_pixels, tile_picture

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

FLAT_SHARE = 0.5
"""Of a block of text or graphics: pixels that equal the one to their right."""

SHARP_STEP = 40
SHARP_PIXELS = 4
"""So many pixels of such a block differ so much from the one to their right."""

GRAPHICS_SHARE = 0.05
"""Of a tile that is tried: such blocks. No Kodak picture has more than .036."""

REACH = 3
"""Code positions over which a block without codes would ring."""

FEW_LEVELS = 16
"""A tile with no more levels of green is tried whatever its blocks look like."""

NEIGHBOURS = 0.5
"""What those around a block say beside what it says itself."""

BROAD = 3
"""Sides of the squares that lossy parts consist of. Lone blocks cost codes, and smear a letter."""

DOUBT = 2.0
"""An estimate this many times below another needs no real sizes."""

SMALL = 1000
"""Bits of a lossless picture that is not worth a run of the networks, whatever would be cheaper."""

CONTINUED = 8.0
"""Bits of the codes of an exact block beside others: its smooth continuation."""


class Chosen(NamedTuple):
    """A picture at one quality, smooth where its blocks are exact."""

    analysis: Analysis
    coded: Coded
    exact: Mask  # [h,w]: of the code grid


class ExactChoice:
    """The choice for one picture, at any quality."""

    def __init__(self, analysis: Analysis, picture: Picture, boxes: list[Box]) -> None:
        """boxes: the tiles on the picture's code grid that may have exact blocks."""
        self._analysis = analysis
        self._picture = picture
        self._tried = [box for box in boxes if looks_like_graphics(self._pixels(box))]
        self._exact_bits = {box: exact_bits(self._pixels(box), box) for box in self._tried}
        self._pictures: dict[tuple[Box, bytes], LosslessPicture | None] = {}

    def at(self, quality_index: int) -> Chosen:
        """What is exact at a quality index, and the codes beside it."""
        none = np.zeros((self._analysis.grid.height, self._analysis.grid.width), np.bool_)
        ways = {box: self._ways(box, quality_index) for box in self._tried}
        likely = none.copy()
        for box, masks in ways.items():
            likely[box.slices] = masks[0]
        chosen = self._without(likely, quality_index)
        if all(len(masks) == 1 for masks in ways.values()):
            return chosen

        # Where there is doubt, the cheapest by real sizes.
        exact = likely.copy()
        plain = chosen if not likely.any() else self._without(none, quality_index)
        for box, masks in ways.items():
            if len(masks) > 1:
                costs = [self._real_cost(mask, (plain, chosen), box) for mask in masks]
                exact[box.slices] = masks[int(np.argmin(costs))]
        if (exact == likely).all():
            return chosen
        return self._without(exact, quality_index) if exact.any() else plain

    def payload(self, chosen: Chosen, box: Box) -> bytes:
        """A tile of what `at` gave, or of what was refined from it, in a file with exact blocks."""
        exact = chosen.exact[box.slices]
        stream = b""
        if not self._is_idle(chosen.exact, box):
            stream = self._analysis.model.entropy.encode(*chosen.coded.tile(box))
        return pack_tile(ExactTile(exact, self._lossless(box, exact), stream))

    def _without(self, exact: Mask, quality_index: int) -> Chosen:
        """The picture without its exact blocks [h,w]; no network runs where all are."""
        analysis = self._analysis
        if not exact.any():
            return Chosen(analysis, analysis.coded(quality_index), exact)
        if exact.all():
            codes = np.zeros((*exact.shape, analysis.model.config.channels), np.int16)
            return Chosen(
                analysis, Coded(codes, np.zeros(exact.shape, np.uint8), quality_index), exact
            )
        colour = self._picture.colour
        pixels = continue_smoothly(colour, of_pixels(exact, colour.shape[:2]))
        analysis = Analysis(analysis.model, pixels, analysis.offsets)
        coded = analysis.coded(quality_index)
        for box in self._tried:
            if self._is_idle(exact, box):
                coded.level[box.slices] = 0
                coded.codes[box.slices] = 0
        return Chosen(analysis, coded, exact)

    def _is_idle(self, exact: Mask, box: Box) -> bool:
        """Whether no network's pixels are shown in a tile or near it: it needs no codes then."""
        return bool(exact[box.grow(REACH, self._analysis.grid).slices].all())

    def _ways(self, box: Box, quality_index: int) -> list[Mask]:
        """Which blocks of a tile may be exact [h,w], the likeliest first; one if none is near."""
        none = np.zeros((box.height, box.width), np.bool_)
        every = ~none
        weight = _distortion_weight(
            self._analysis.model, quality_index, self._analysis.offsets, box
        )
        coded = coded_cost(self._pixels(box), weight, box)
        evidence = _smooth(np.log2((coded + 1) / (self._exact_bits[box] + 1)))
        estimated = ~_broad(evidence <= 0)
        if not estimated.any():
            return [none]

        # All, if what that adds to the picture is less than the codes.
        picture = self._picture_bits(box, estimated)
        likely = estimated
        if not estimated.all():
            codes = float(coded[~estimated].sum()) + CONTINUED * float(estimated.sum())
            if self._exact_bits[box][~estimated].sum() < 2 * codes:
                whole = self._picture_bits(box, every)
                if whole - picture < DOUBT * codes:
                    picture, likely = whole, every

        # None, if what is exact costs as much.
        instead = float((coded[likely] - CONTINUED).sum())
        if picture <= SMALL:
            return [likely if picture < instead else none]
        return [likely] if picture * DOUBT < instead else [likely, none]

    def _real_cost(self, exact: Mask, seen: tuple[Chosen, Chosen], box: Box) -> float:
        """Bits and lambda * distortion of a way for a tile, in bits; seen: none, the likeliest."""
        if exact.all():
            return self._picture_bits(box, exact)
        chosen = seen[int(exact.any())]
        distortion = float(self._distortion(chosen, box).sum())
        return self._stream_bits(chosen, box) + self._picture_bits(box, exact) + distortion

    def _pixels(self, box: Box) -> Pixels:
        """A tile's pixels [H,W,3]."""
        return self._picture.colour[box.scale(GRID).slices]

    def _stream_bits(self, chosen: Chosen, box: Box) -> int:
        with one_blas_thread():
            return 8 * len(self._analysis.model.entropy.encode(*chosen.coded.tile(box)))

    def _picture_bits(self, box: Box, exact: Mask) -> int:
        return 8 * len(pack_tile(ExactTile(exact, self._lossless(box, exact), b"")))

    def _lossless(self, box: Box, exact: Mask) -> LosslessPicture | None:
        """The lossless picture of a tile's exact blocks [h,w]; made once."""
        key = (box, exact.tobytes())
        if key not in self._pictures:
            self._pictures[key] = tile_picture(self._picture, box, exact)
        return self._pictures[key]

    def _distortion(self, chosen: Chosen, box: Box) -> Floats:
        """Lambda times the squared error of a tile's blocks [h,w], in bits; 0 for exact ones."""
        model = self._analysis.model
        offsets = self._analysis.offsets
        place = box.scale(GRID).intersection(Box(0, 0, *self._picture.size))
        seen = covering(place)
        quality = (chosen.coded.quality_index, offsets)
        shown = synthesize(
            model,
            chosen.coded.codes,
            quality,
            self._analysis.grid,
            place,
            exact=chosen.exact[seen.slices],
        )
        error = shown.astype(np.float32) - self._picture.colour[place.slices]
        squares = block_sums((error * error).mean(2), box)
        squares[chosen.exact[box.slices]] = 0
        weighted: Floats = squares * _distortion_weight(model, *quality, box)
        return weighted


def _distortion_weight(
    model: Model, quality_index: int, offsets: Offsets | None, box: Box
) -> float | NDArray[np.float32]:
    """The model's lambda in a tile: one, or one for each position [h,w]."""
    weight = model.config.distortion_weight
    if offsets is None:
        return weight(float(quality_index))
    index: Any = model.quality_input(quality_index, offsets, box)
    positions = weight(np.asarray(index))
    return np.asarray(positions, np.float32)


def _smooth(evidence: Floats) -> Floats:
    """Evidence for each block, and part of that for those around it, [h,w]."""
    bounded = evidence.clip(-3, 3)
    nine = sliding_window_view(np.pad(bounded, 1, mode="edge"), (3, 3)).sum((2, 3))
    smooth: Floats = bounded + NEIGHBOURS / 8 * (nine - bounded)
    return smooth


def _broad(blocks: Mask) -> Mask:
    """What of some blocks [h,w] lies in squares of them, BROAD wide; past the tile they go on."""
    side = (BROAD, BROAD)
    padded = np.pad(blocks, BROAD - 1, mode="edge")
    squares = sliding_window_view(padded, side).all((2, 3))  # by their upper left corners
    return np.asarray(sliding_window_view(squares, side).any((2, 3)))


def looks_like_graphics(pixels: Pixels) -> bool:
    """Whether it is worth to try exact blocks on a tile, uint8 [H,W,3]; looks at green alone."""
    levels = np.bincount(pixels[:, :, 1].reshape(-1), minlength=256)
    if np.count_nonzero(levels) <= FEW_LEVELS:
        return True
    sharp = block_sums(_steps(pixels) >= SHARP_STEP, _positions(pixels)) >= SHARP_PIXELS
    return bool((flat_blocks(pixels) & sharp).mean() >= GRAPHICS_SHARE)


def flat_blocks(pixels: Pixels) -> Mask:
    """Which blocks are mostly of pixels that equal the next, uint8 [H,W,3] -> [h,w]."""
    flat: Mask = block_sums(_steps(pixels) == 0, _positions(pixels)) >= FLAT_SHARE * GRID * GRID
    return flat


def _steps(pixels: Pixels) -> NDArray[np.int16]:
    """From each pixel's green to that of the one to its right, [H,W-1]."""
    steps: NDArray[np.int16] = np.abs(np.diff(pixels[:, :, 1].astype(np.int16), axis=1))
    return steps


def _positions(pixels: Pixels) -> Box:
    return covering(Box(0, 0, pixels.shape[1], pixels.shape[0]))
