"""The convolutional entropy coder in exact integers (paper, section 3.4; docs/format.md, section 5).

Gives P(bit = 1) for every decision of the importance map and of the kept codes, and walks over them in the order that
a decoder can follow. The same walk writes and reads: the bit coder it is given decides which. Two machines that hold
the same weights file get the same probabilities, bit for bit: all arithmetic is on integers (`integer_layer`), tables
are stored as integers, and products run in float64 where torch was told to lower float32 precision.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .config import ModelConfig
from .integer_layer import CEILING, LEVEL_UNIT, LOGIT_MAX, ONE, TO_LOGIT, IntegerWeights, level_input
from .neighbourhood import patches
from .range_coder import BitCoder, Probabilities, RangeReader, RangeWriter
from .successive.coder import CodeCoder
from .workers import beside

STAGES = (4, 2, 1)  # grid spacings at which the importance map is filled in, after the coarsest of 8
STAGE_ROWS = 7  # rows of the map's first bias: two for each spacing; the last is not used


class MapCoder:
    """The importance map: coarse to fine, each level one walk down a binary tree."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        width, centre = config.map_channels, config.levels // 2
        self.levels, self.depth, self.dtype = config.levels, config.levels.bit_length() - 1, weights.dtype
        nodes, rows = config.levels - 1, (config.quality_count, STAGE_ROWS)
        coarsest = weights.table("maps.coarsest", torch.int16, (rows[0], nodes), (-LOGIT_MAX, LOGIT_MAX))
        self.coarsest = coarsest.to(weights.dtype)
        self.conv1 = weights.layer("maps.conv1", [centre * LEVEL_UNIT, ONE, ONE] * 25, width, rows=rows)
        self.conv2 = weights.layer("maps.conv2", [CEILING] * (9 * width), width)
        self.conv3 = weights.layer("maps.conv3", [CEILING] * width, width)
        self.out = weights.layer("maps.out", [CEILING] * width, nodes, TO_LOGIT)

    def walk(self, code: "LogitCoder", shape: tuple[int, int], quality_index: int, level: Tensor | None) -> Tensor:
        """Code the levels [h,w] (given: written, None: read) -> the levels, int64 [h,w]."""
        known = torch.zeros(shape, dtype=torch.int64)
        first = known[::8, ::8]
        logits = self.coarsest[quality_index].expand(first.numel(), -1)
        given = None if level is None else level[::8, ::8].reshape(-1)
        first.copy_(self._tree(code, logits, given).view_as(first))
        for step, spacing in enumerate(STAGES):
            grid = known[::spacing, ::spacing]
            rows, cols = torch.arange(grid.shape[0])[:, None] % 2, torch.arange(grid.shape[1])[None] % 2
            given = None if level is None else level[::spacing, ::spacing]
            self._fill(
                code, grid, (rows == 0) & (cols == 0), (rows == 1) & (cols == 1), (quality_index, 2 * step), given
            )
            self._fill(code, grid, rows == cols, rows != cols, (quality_index, 2 * step + 1), given)
        return known

    def _fill(
        self, code: "LogitCoder", grid: Tensor, known: Tensor, new: Tensor, row: tuple[int, int], given: Tensor | None
    ) -> None:
        """Code the levels of `grid` [h,w] at `new` from those at `known`, in place; `row` picks conv1's bias."""
        at = new.reshape(-1).nonzero()[:, 0]
        if not len(at):
            return
        shape = (grid.shape[0], grid.shape[1])
        flag = known.to(self.dtype) * ONE
        x = torch.stack([level_input(grid, self.levels, self.dtype) * known, flag, torch.full_like(flag, ONE)], -1)
        h = self.conv1(patches(x.view(-1, 3), shape, 2), row)  # [h*w,width]
        logits = self.out(self.conv3(self.conv2(patches(h, shape, 1, at))))  # [m,levels-1]
        grid[new] = self._tree(code, logits, None if given is None else given[new])

    def _tree(self, code: "LogitCoder", logits: Tensor, level: Tensor | None) -> Tensor:
        """Node logits [m,levels-1], levels [m] or None -> levels [m]; one call of the coder per depth."""
        node = torch.zeros(len(logits), dtype=torch.int64)
        out = torch.zeros_like(node)
        for depth in range(self.depth):
            given = None if level is None else (level >> (self.depth - 1 - depth)) & 1
            bit = code(logits.gather(1, node[:, None])[:, 0], given)
            node, out = 2 * node + 1 + bit, 2 * out + bit
        return out


class LogitCoder:
    """Turns integer logits into table probabilities and hands bits to or from a bit coder."""

    def __init__(self, bit_coder: BitCoder, probability: Probabilities) -> None:
        self.bit_coder, self.probability = bit_coder, probability

    def __call__(self, logits: Tensor, bits: Tensor | None) -> Tensor:
        """logits [m] in -128..128, bits [m] of any type or None -> bits [m] int32."""
        p = self.probability.take(logits.to(torch.int64).add_(LOGIT_MAX).numpy())
        return torch.from_numpy(self.bit_coder(p, None if bits is None else bits.to(torch.int32).numpy()))


class EntropyModel:
    """Codes and importance levels of a tile <-> its range-coded bytes."""

    def __init__(self, tensors: Mapping[str, Tensor], config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        """WeightsError where a tensor is missing, misshapen or out of range, or sums could leave exact arithmetic."""
        weights = IntegerWeights(tensors, dtype)
        self.config = config
        self.maps = MapCoder(weights, config)
        self.planes = CodeCoder(weights, config)
        self.bounds = weights.bounds
        table = weights.table("probability", torch.uint16, (2 * LOGIT_MAX + 1,), (32, 65504))
        self.probability = table.numpy().astype(np.float64) / 65536

    def encode(self, codes: Tensor, level: Tensor, quality_index: int, rest: Tensor | None = None) -> bytes:
        """codes int16 [h,w,n], level [h,w] -> the tile's stream.

        With rest int8 [h,w,n], what rounding left, codes may be exchanged for cheaper neighbours (`Ladder.choose`).
        """
        first, second, q = RangeWriter(), RangeWriter(), level.long()
        shape = (level.shape[0], level.shape[1])
        # The writer knows the map already: both walks at once, where the reader must take one after the other.
        finish_map = beside(lambda: self.maps.walk(LogitCoder(first, self.probability), shape, quality_index, q))
        flat = codes.reshape(-1, self.config.planes)
        left = None if rest is None else rest.reshape(flat.shape)
        self.planes.walk(LogitCoder(second, self.probability), q, quality_index, flat, left)
        finish_map()
        first.append(second)
        return first.to_bytes()

    def chosen(self, codes: Tensor, level: Tensor, rest: Tensor, quality_index: int) -> Tensor:
        """The codes int16 [h,w,n] that `encode` would write with `rest`; nothing is coded."""
        code = LogitCoder(RangeWriter(), self.probability)
        flat = codes.reshape(-1, self.config.planes)
        return self.planes.walk(code, level.long(), quality_index, flat, rest.reshape(flat.shape))

    def decode(self, stream: bytes, shape: tuple[int, int], quality_index: int) -> tuple[Tensor, Tensor]:
        """A tile's stream -> codes [h,w,n] as in `encode`, level uint8 [h,w]; FormatError where no encoder wrote it."""
        reader = RangeReader(stream)
        codes, level = self.walk(reader, shape, quality_index)
        reader.finish()
        return codes, level

    def decode_level(self, stream: bytes, shape: tuple[int, int], quality_index: int) -> Tensor:
        """Only the importance levels of a tile's stream, uint8 [h,w]: they come first."""
        code = LogitCoder(RangeReader(stream), self.probability)
        return self.maps.walk(code, shape, quality_index, None).to(torch.uint8)

    def walk(
        self,
        bit_coder: BitCoder,
        shape: tuple[int, int],
        quality_index: int,
        codes: Tensor | None = None,
        level: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Visit every bit of a tile of shape [h,w] in coding order; returns codes and level as `decode` does."""
        code = LogitCoder(bit_coder, self.probability)
        q = self.maps.walk(code, shape, quality_index, None if level is None else level.long())
        flat = None if codes is None else codes.reshape(-1, self.config.planes)
        return self.planes.walk(code, q, quality_index, flat), q.to(torch.uint8)
