"""Which blocks are exact: those whose lossless bits are fewer than bits + lambda * distortion.

Estimated per block, then settled per tile by the real sizes of three ways: no exact block, those
estimated, all. A tile is tried only if it looks like text or graphics, so that photographs pay for
a look at their pixels. Knows of the model its lambda, its bits and its pictures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
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
from .layer import of_pixels, tile_picture

Floats = NDArray[np.float64]
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
        self._tried = [
            box for box in boxes if looks_like_graphics(picture.colour[box.scale(GRID).slices])
        ]
        self._pictures: dict[tuple[Box, bytes], LosslessPicture | None] = {}

    def at(self, quality_index: int) -> Chosen:
        """What is exact at a quality index, and the codes beside it."""
        coded = self._analysis.coded(quality_index)
        none = np.zeros(coded.level.shape, np.bool_)
        plain = Chosen(self._analysis, coded, none)
        if not self._tried:
            return plain

        # None, those estimated, all.
        estimated = none.copy()
        for box in self._tried:
            estimated[box.slices] = self._estimate(plain, box)
        partly = self._without(estimated, quality_index) if estimated.any() else plain

        # The cheapest of them, tile by tile.
        exact = none.copy()
        for box in self._tried:
            all_exact = np.ones((box.height, box.width), np.bool_)
            ways = [
                (self._cost(plain, box), none[box.slices]),
                (self._cost(partly, box), estimated[box.slices]),
                (self._picture_bits(box, all_exact), all_exact),
            ]
            exact[box.slices] = min(ways, key=lambda way: way[0])[1]
        if (exact == estimated).all():
            return partly
        return self._without(exact, quality_index) if exact.any() else plain

    def payload(self, chosen: Chosen, box: Box) -> bytes:
        """A tile of what `at` gave, or of what was refined from it, in a file with exact blocks."""
        exact = chosen.exact[box.slices]
        stream = b""
        if not self._is_idle(chosen.exact, box):
            stream = self._analysis.model.entropy.encode(*chosen.coded.tile(box))
        return pack_tile(ExactTile(exact, self._lossless(box, exact), stream))

    def _without(self, exact: Mask, quality_index: int) -> Chosen:
        """The picture without its exact blocks [h,w]."""
        colour = self._picture.colour
        pixels = continue_smoothly(colour, of_pixels(exact, colour.shape[:2]))
        analysis = Analysis(self._analysis.model, pixels, self._analysis.offsets)
        coded = analysis.coded(quality_index)
        for box in self._tried:
            if self._is_idle(exact, box):
                coded.level[box.slices] = 0
                coded.codes[box.slices] = 0
        return Chosen(analysis, coded, exact)

    def _is_idle(self, exact: Mask, box: Box) -> bool:
        """Whether no network's pixels are shown in a tile or near it: it needs no codes then."""
        return bool(exact[box.grow(REACH, self._analysis.grid).slices].all())

    def _estimate(self, plain: Chosen, box: Box) -> Mask:
        """Which blocks of a tile [h,w] promise to cost less if they are exact.

        Sizes of the tile, either way, are shared out by what makes a block cost.
        """
        coded_bits = self._stream_bits(plain, box) * _share(_activity(plain.coded.tile(box)))
        coded_cost = coded_bits + self._distortion(plain, box)

        # Flat blocks are told apart: where a photograph surprises as much, it costs more.
        pixels = self._picture.colour[box.scale(GRID).slices]
        flat = flat_blocks(pixels)
        flat = np.pad(flat, ((0, box.height - flat.shape[0]), (0, box.width - flat.shape[1])))
        all_bits = self._picture_bits(box, np.ones_like(flat))
        flat_bits = min(self._picture_bits(box, flat), all_bits)
        surprise = _surprise(pixels, box)
        exact_bits = flat_bits * _share(surprise * flat)
        exact_bits += (all_bits - flat_bits) * _share(surprise * ~flat)
        estimate: Mask = exact_bits < coded_cost
        return estimate

    def _cost(self, chosen: Chosen, box: Box) -> float:
        """Bits and lambda * distortion of a tile, in bits."""
        picture_bits = self._picture_bits(box, chosen.exact[box.slices])
        distortion = float(self._distortion(chosen, box).sum())
        return self._stream_bits(chosen, box) + picture_bits + distortion

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
        squares = _block_sums((error * error).mean(2), box)
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
    positions: NDArray[np.float32] = weight(index)
    return positions


def _activity(coded: Coded) -> Floats:
    """About the bits of each position's codes, [h,w]."""
    magnitudes = np.abs(coded.codes).astype(np.float32)
    bits: Floats = np.log2(1 + magnitudes).sum(2, dtype=np.float64)
    return bits


def _surprise(pixels: Pixels, box: Box) -> Floats:
    """About the bits of each block's pixels, [h,w], where the one to the left predicts."""
    step = np.abs(np.diff(pixels.astype(np.int16), axis=1, prepend=pixels[:, :1].astype(np.int16)))
    return _block_sums(np.log2(1 + step.astype(np.float32)).sum(2), box)


def _share(weights: Floats) -> Floats:
    """Weights [h,w], whose sum becomes 1."""
    total = weights.sum()
    return weights / total if total else np.full(weights.shape, 1 / weights.size)


def _block_sums(values: NDArray[Any], box: Box) -> Floats:
    """Values [H,W] of a tile's pixels -> sums over the blocks of its positions, [h,w]."""
    missing = (box.height * GRID - values.shape[0], box.width * GRID - values.shape[1])
    padded = np.pad(values, ((0, missing[0]), (0, missing[1])))
    blocks = padded.reshape(box.height, GRID, box.width, GRID)
    sums: Floats = blocks.sum((1, 3), dtype=np.float64)
    return sums


def looks_like_graphics(pixels: Pixels) -> bool:
    """Whether it is worth to try exact blocks on a tile, uint8 [H,W,3]; looks at green alone."""
    levels = np.bincount(pixels[:, :, 1].reshape(-1), minlength=256)
    if np.count_nonzero(levels) <= FEW_LEVELS:
        return True
    sharp = _block_sums(_steps(pixels) >= SHARP_STEP, _positions(pixels)) >= SHARP_PIXELS
    return bool((flat_blocks(pixels) & sharp).mean() >= GRAPHICS_SHARE)


def flat_blocks(pixels: Pixels) -> Mask:
    """Which blocks are mostly of pixels that equal the next, uint8 [H,W,3] -> [h,w]."""
    flat: Mask = _block_sums(_steps(pixels) == 0, _positions(pixels)) >= FLAT_SHARE * GRID * GRID
    return flat


def _steps(pixels: Pixels) -> NDArray[np.int16]:
    """From each pixel's green to that of the one to its right, [H,W-1]."""
    steps: NDArray[np.int16] = np.abs(np.diff(pixels[:, :, 1].astype(np.int16), axis=1))
    return steps


def _positions(pixels: Pixels) -> Box:
    return covering(Box(0, 0, pixels.shape[1], pixels.shape[0]))
