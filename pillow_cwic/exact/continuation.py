"""What is put where a picture is hidden from the networks: a smooth continuation of what is around.

Neighbours of exact blocks would else pay for edges that nobody sees. A pull-push pyramid (Gortler
et al. 1996, "The Lumigraph"): means of what is visible, coarser and coarser, fill what is hidden.
The finest levels are worked on in strips of rows, so memory does not follow the picture; where it
is cut does not show. Knows pixels only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

STRIP_LEVELS = 4
"""Levels of the pyramid that are made in strips; what is coarser is a 256th of the picture."""

STRIP_PIXELS = 1 << 20
"""About so many at a time."""

_SIDE = 1 << STRIP_LEVELS
_MARGIN = 2 * _SIDE
"""Rows around a strip that it depends on: one of every level above and below."""


class _Level(NamedTuple):
    """A level of the pyramid."""

    weighted: Floats  # values times their weights [H,W,3]
    weight: Floats  # [H,W,1], 0..1

    @property
    def is_seen(self) -> bool:
        """Whether it has a value everywhere."""
        return bool(self.weight.all())

    def coarser(self) -> _Level:
        """The next one, of half the sides."""
        below_sum, below_weight = _halved(self.weighted), _halved(self.weight)
        full: Floats = np.maximum(below_weight, 1)  # several visible pixels count as one
        return _Level(below_sum / full, below_weight / full)

    def filled(self, below: Floats) -> Floats:
        """Values everywhere: its own, and those of the next level where it has none."""
        height, width = self.weight.shape[:2]
        around = _doubled(below, (height, width))
        around *= 1 - self.weight
        around += self.weighted
        return around


def continue_smoothly(pixels: Pixels, hidden: Mask) -> Pixels:
    """Pixels uint8 [H,W,3] -> the same, but for those that are hidden [H,W].

    Where all are hidden, they stay as they are.
    """
    if hidden.all() or not hidden.any():
        return pixels
    height, width = hidden.shape
    step = max(1, STRIP_PIXELS // width // _SIDE) * _SIDE
    tops = range(0, height, step)

    # Down: the coarsest level of every strip, and on which levels everything is seen.
    coarsest = []
    seen = np.ones(STRIP_LEVELS + 1, bool)
    for top in tops:
        levels = _levels(pixels, hidden, top, top + step)
        seen &= [level.is_seen for level in levels]
        coarsest.append(levels[-1])
    whole = _Level(*(np.concatenate(parts) for parts in zip(*coarsest, strict=True)))
    filled = _fill(whole)

    # Up again, from the finest level that needs nothing of the next; with margins around strips.
    first = int(seen.argmax()) if seen.any() else STRIP_LEVELS
    out = pixels.copy()
    for top in tops:
        above = max(top - _MARGIN, 0)
        bottom = min(top + step, height)
        levels = _levels(pixels, hidden, above, bottom + _MARGIN)
        if first == STRIP_LEVELS:
            values = filled[above // _SIDE :][: len(levels[-1].weight)]
        else:
            values = levels[first].weighted / levels[first].weight
        for level in reversed(levels[:first]):
            values = level.filled(values)
        inside = values[top - above : bottom - above]
        np.rint(inside, out=inside)
        rows = slice(top, bottom)
        np.copyto(out[rows], inside.clip(0, 255), casting="unsafe", where=hidden[rows, :, None])
    return out


def _levels(pixels: Pixels, hidden: Mask, top: int, bottom: int) -> list[_Level]:
    """The finest levels of rows from `top` on, up to STRIP_LEVELS."""
    weight = (~hidden[top:bottom]).astype(np.float32)[:, :, None]  # [h,W,1]
    levels = [_Level(pixels[top:bottom] * weight, weight)]
    for _ in range(STRIP_LEVELS):
        levels.append(levels[-1].coarser())
    return levels


def _fill(level: _Level) -> Floats:
    """Values everywhere."""
    if level.is_seen:
        return level.weighted / level.weight
    if level.weight.size == 1:  # nothing is visible in this corner
        return level.weighted
    return level.filled(_fill(level.coarser()))


def _halved(values: Floats) -> Floats:
    """Sums of 2 x 2 values, [H,W,C] -> [ceil(H/2),ceil(W/2),C]."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    sums: Floats = padded[::2] + padded[1::2]
    return sums[:, ::2] + sums[:, 1::2]


def _doubled(values: Floats, shape: tuple[int, int]) -> Floats:
    """Values [h,w,C] interpolated linearly -> [H,W,C]."""
    tall = _doubled_rows(values)[: shape[0]]
    wide = _doubled_rows(tall.transpose(1, 0, 2))[: shape[1]]
    return wide.transpose(1, 0, 2)


def _doubled_rows(values: Floats) -> Floats:
    above = np.concatenate([values[:1], values[:-1]])
    below = np.concatenate([values[1:], values[-1:]])
    out = np.empty((2 * values.shape[0], *values.shape[1:]), np.float32)
    out[::2] = values * np.float32(0.75) + above * np.float32(0.25)
    out[1::2] = values * np.float32(0.75) + below * np.float32(0.25)
    return out
