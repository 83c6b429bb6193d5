"""The importance map <-> decisions: coarse to fine, each level one walk down a binary tree."""

import numpy as np
from numpy.typing import NDArray

from ..networks.config import ModelConfig
from .integer_layer import CEILING, LEVEL_UNIT, LOGIT, LOGIT_MAX, ONE, Floats, IntegerWeights
from .neighbourhood import bordered, inside, squares
from .range_coder import BitCoder, Bits, Probabilities

Levels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SPACINGS = (4, 2, 1)  # of the grids on which the map is filled in, after the coarsest of 8
STAGES = 7  # rows of the map's first bias: two for each spacing; the last is not used


def halves(shape: tuple[int, ...]) -> tuple[tuple[Mask, Mask], tuple[Mask, Mask]]:
    """Positions of a grid [h,w] seen, and then coded, in its two stages: centres, then edges."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    corners = (row % 2 == 0) & (column % 2 == 0)
    centres = (row % 2 == 1) & (column % 2 == 1)
    return (corners, centres), (corners | centres, ~(corners | centres))


class LogitCoder:
    """Turns integer logits into table probabilities and hands bits to or from a bit coder."""

    def __init__(self, bit_coder: BitCoder, probability: Probabilities) -> None:
        self.bit_coder = bit_coder
        self.probability = probability

    def code(self, logits: Floats, bits: Bits | None) -> Bits:
        """logits [m] in -128..128, bits [m] or None -> bits [m]."""
        index = logits.astype(np.intp) + LOGIT_MAX
        return self.bit_coder.code(self.probability.take(index), bits)


class MapCoder:
    """The importance map of a tile."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        width, nodes = config.map_channels, config.levels - 1
        self.centre = config.levels // 2
        self.depth = nodes.bit_length()
        self.dtype = weights.dtype
        by_quality = (config.quality_count, nodes)
        limits = (-LOGIT_MAX, LOGIT_MAX)
        self.coarsest = weights.table("maps.coarsest", np.int16, by_quality, limits)
        inputs = [self.centre * LEVEL_UNIT, ONE, ONE] * 25
        rows = (config.quality_count, STAGES)
        self.conv1 = weights.layer("maps.conv1", inputs, width, rows=rows)
        self.conv2 = weights.layer("maps.conv2", [CEILING] * (9 * width), width)
        self.conv3 = weights.layer("maps.conv3", [CEILING] * width, width)
        self.out = weights.layer("maps.out", [CEILING] * width, nodes, LOGIT)

    def walk(
        self, coder: LogitCoder, shape: tuple[int, int], quality_index: int, level: Levels | None
    ) -> Levels:
        """Code the levels [h,w] (given: written, None: read) -> the levels [h,w]."""
        coded = np.zeros(shape, np.uint8)
        first = coded[::8, ::8]
        logits = np.broadcast_to(self.coarsest[quality_index], (first.size, self.coarsest.shape[1]))
        given = None if level is None else level[::8, ::8].reshape(-1)
        first[...] = self._tree(coder, logits, given).reshape(first.shape)
        for number, spacing in enumerate(SPACINGS):
            grid = coded[::spacing, ::spacing]
            given = None if level is None else level[::spacing, ::spacing]
            for half, (seen, new) in enumerate(halves(grid.shape)):
                if new.any():
                    stage = (quality_index, 2 * number + half)
                    logits = self._logits(grid, seen, new, stage)
                    grid[new] = self._tree(coder, logits, None if given is None else given[new])
        return coded

    def _logits(self, grid: Levels, seen: Mask, new: Mask, stage: tuple[int, int]) -> Floats:
        """Node logits [m,levels-1] at the positions `new` of a grid [h,w], from the levels `seen`.

        stage: quality index and stage, which pick the first bias.
        """
        shape = (grid.shape[0], grid.shape[1])
        padded = bordered(shape, 3, 2, self.dtype)
        x = inside(padded, 2)  # [h,w,3]
        x[..., 0] = np.where(seen, (grid.astype(np.int16) - self.centre) * LEVEL_UNIT, 0)
        x[..., 1] = seen * ONE
        x[..., 2] = ONE
        hidden = bordered(shape, self.conv1.weight.shape[1], 1, self.dtype)
        patches = squares(padded, 2).reshape(grid.size, -1)  # [h*w,75]
        inside(hidden, 1)[...] = self.conv1(patches, stage).reshape(*shape, -1)
        near = squares(hidden, 1)[new]  # [m,3,3*width]
        return self.out(self.conv3(self.conv2(near.reshape(len(near), -1))))

    def _tree(self, coder: LogitCoder, logits: Floats, level: Levels | None) -> Levels:
        """Node logits [m,levels-1], levels [m] or None -> levels [m]; depth by depth."""
        position = np.arange(len(logits))
        node = np.zeros(len(logits), np.intp)
        for shift in range(self.depth - 1, -1, -1):
            given = None if level is None else (level >> shift) & 1 != 0
            node = 2 * node + 1 + coder.code(logits[position, node], given)
        # A leaf is the bits as a binary number, plus the number of inner nodes.
        leaf: Levels = (node - logits.shape[1]).astype(np.uint8)
        return leaf
