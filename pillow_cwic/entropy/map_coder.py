"""The importance map <-> decisions with probabilities, in exact integers (paper, section 3.4)."""

import torch
from torch import Tensor

from ..networks.config import ModelConfig
from .integer_layer import (
    CEILING,
    LEVEL_UNIT,
    LOGIT_MAX,
    ONE,
    TO_LOGIT,
    IntegerWeights,
    level_input,
)
from .neighbourhood import patches
from .range_coder import BitCoder, Probabilities

STAGES = (
    4,
    2,
    1,
)  # grid spacings at which the importance map is filled in, after the coarsest of 8
STAGE_ROWS = 7  # rows of the map's first bias: two for each spacing; the last is not used


class LogitCoder:
    """Turns integer logits into table probabilities and hands bits to or from a bit coder."""

    def __init__(self, bit_coder: BitCoder, probability: Probabilities) -> None:
        self.bit_coder, self.probability = bit_coder, probability

    def __call__(self, logits: Tensor, bits: Tensor | None) -> Tensor:
        """logits [m] in -128..128, bits [m] of any type or None -> bits [m] int32."""
        p = self.probability.take(logits.to(torch.int64).add_(LOGIT_MAX).numpy())
        return torch.from_numpy(
            self.bit_coder(p, None if bits is None else bits.to(torch.int32).numpy())
        )


class MapCoder:
    """The importance map: coarse to fine, each level one walk down a binary tree."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        width, centre = config.map_channels, config.levels // 2
        self.levels, self.depth, self.dtype = (
            config.levels,
            config.levels.bit_length() - 1,
            weights.dtype,
        )
        nodes, rows = config.levels - 1, (config.quality_count, STAGE_ROWS)
        coarsest = weights.table(
            "maps.coarsest", torch.int16, (rows[0], nodes), (-LOGIT_MAX, LOGIT_MAX)
        )
        self.coarsest = coarsest.to(weights.dtype)
        self.conv1 = weights.layer(
            "maps.conv1", [centre * LEVEL_UNIT, ONE, ONE] * 25, width, rows=rows
        )
        self.conv2 = weights.layer("maps.conv2", [CEILING] * (9 * width), width)
        self.conv3 = weights.layer("maps.conv3", [CEILING] * width, width)
        self.out = weights.layer("maps.out", [CEILING] * width, nodes, TO_LOGIT)

    def walk(
        self, code: LogitCoder, shape: tuple[int, int], quality_index: int, level: Tensor | None
    ) -> Tensor:
        """Code the levels [h,w] (given: written, None: read) -> the levels, int64 [h,w]."""
        known = torch.zeros(shape, dtype=torch.int64)
        first = known[::8, ::8]
        logits = self.coarsest[quality_index].expand(first.numel(), -1)
        given = None if level is None else level[::8, ::8].reshape(-1)
        first.copy_(self._tree(code, logits, given).view_as(first))
        for step, spacing in enumerate(STAGES):
            grid = known[::spacing, ::spacing]
            rows, cols = (
                torch.arange(grid.shape[0])[:, None] % 2,
                torch.arange(grid.shape[1])[None] % 2,
            )
            given = None if level is None else level[::spacing, ::spacing]
            self._fill(
                code,
                grid,
                (rows == 0) & (cols == 0),
                (rows == 1) & (cols == 1),
                (quality_index, 2 * step),
                given,
            )
            self._fill(code, grid, rows == cols, rows != cols, (quality_index, 2 * step + 1), given)
        return known

    def _fill(
        self,
        code: LogitCoder,
        grid: Tensor,
        known: Tensor,
        new: Tensor,
        row: tuple[int, int],
        given: Tensor | None,
    ) -> None:
        """Code the levels of `grid` [h,w] at `new` from those at `known`, in place.

        `row` picks conv1's bias.
        """
        at = new.reshape(-1).nonzero()[:, 0]
        if not len(at):
            return
        shape = (grid.shape[0], grid.shape[1])
        flag = known.to(self.dtype) * ONE
        x = torch.stack(
            [level_input(grid, self.levels, self.dtype) * known, flag, torch.full_like(flag, ONE)],
            -1,
        )
        h = self.conv1(patches(x.view(-1, 3), shape, 2), row)  # [h*w,width]
        logits = self.out(self.conv3(self.conv2(patches(h, shape, 1, at))))  # [m,levels-1]
        grid[new] = self._tree(code, logits, None if given is None else given[new])

    def _tree(self, code: LogitCoder, logits: Tensor, level: Tensor | None) -> Tensor:
        """Node logits [m,levels-1], levels [m] or None -> levels [m].

        One call of the coder per depth.
        """
        node = torch.zeros(len(logits), dtype=torch.int64)
        out = torch.zeros_like(node)
        for depth in range(self.depth):
            given = None if level is None else (level >> (self.depth - 1 - depth)) & 1
            bit = code(logits.gather(1, node[:, None])[:, 0], given)
            node, out = 2 * node + 1 + bit, 2 * out + bit
        return out
