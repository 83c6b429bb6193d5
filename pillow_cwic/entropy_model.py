"""The convolutional entropy coder in exact integers (paper, section 3.4; docs/format.md, section 5).

Gives P(bit = 1) for every bit of the importance map and of the kept code planes, and walks over them in the order that
a decoder can follow. The same walk writes and reads: the bit coder it is given decides which. Two machines that hold
the same weights file get the same probabilities, bit for bit: all arithmetic is on integers (`integer_layer`), tables
are stored as integers, and products run in float64 where torch was told to lower float32 precision.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import AnyConfig, ModelConfig, SuccessiveConfig
from .integer_layer import CEILING, LEVEL_UNIT, LOGIT_MAX, ONE, TO_LOGIT, IntegerWeights, level_input
from .neighbourhood import gather, inner, patches, quincunx_steps, windows
from .range_coder import BitCoder, Probabilities, RangeReader, RangeWriter
from .successive.coder import SuccessiveCoder
from .workers import beside

STAGES = (4, 2, 1)  # grid spacings at which the importance map is filled in, after the coarsest of 8
STAGE_ROWS = 7  # rows of the map's first bias: two for each spacing; the last is not used


class MapCoder:
    """The importance map: coarse to fine, each level one walk down a binary tree."""

    def __init__(self, weights: IntegerWeights, config: AnyConfig) -> None:
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


class _Scratch(threading.local):
    """Memory that each thread keeps from tile to tile: page faults of fresh memory take a fifth of the whole time."""

    LIMIT_BYTES = 24 << 20  # of each piece kept; a larger tile gets fresh memory

    def __init__(self) -> None:
        self._kept: dict[tuple[int, torch.dtype], Tensor] = {}

    def take(self, which: int, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """An uninitialized matrix; taking the same piece again gives the same memory."""
        count = shape[0] * shape[1]
        flat = self._kept.get((which, dtype))
        if flat is None or flat.numel() < count:
            with torch.inference_mode(False):  # usable in and out of inference mode
                flat = torch.empty(count, dtype=dtype)
            if flat.nbytes <= self.LIMIT_BYTES:
                self._kept[which, dtype] = flat
        return flat[:count].view(shape)


_scratch = _Scratch()


@dataclass
class _Half:
    """One parity of the checkerboard: its positions, those that keep the most planes first.

    So the positions that a group still needs are a prefix, and buffers are slices. `inputs` holds the columns of the
    hidden layers but for the first, the neighbours in the group: one-hot level | map features | 3x3 of every earlier
    group.
    """

    at: Tensor  # [m] flat positions
    slot: Tensor  # [m] the same in the padded map
    kept: Tensor  # [m] planes kept
    inputs: Tensor  # [m,columns]
    hidden: Tensor  # [m,groups*features]
    active: list[int]  # positions that keep planes of each group, then 0
    full: list[int]  # positions that keep all planes of each group


class PlaneCoder:
    """The code planes: group after group, in each the even positions of a checkerboard before the odd ones."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        self.config, self.dtype = config, weights.dtype
        size, side, fill = config.group_planes, config.map_features, config.group_features
        self.map_in = weights.layer("planes.map_in", [config.levels // 2 * LEVEL_UNIT, ONE] * 25, side)
        self.map_mid = weights.layer("planes.map_mid", [CEILING] * (9 * side), side)
        self.fixed = config.levels + side  # columns of the hidden layers' inputs that every group has
        groups, rows = range(config.plane_groups), (config.quality_count,)
        common = [ONE] * (12 * size + config.levels) + [CEILING] * side
        limits = [common + [ONE] * (9 * size * g) for g in groups]
        self.hidden = [weights.layer(f"planes.{g}.hidden", limits[g], fill, rows=rows) for g in groups]
        self.mid = [weights.layer(f"planes.{g}.mid", [CEILING] * (fill * (g + 1)), fill) for g in groups]
        self.out = [weights.layer(f"planes.{g}.out", [CEILING] * fill, size, TO_LOGIT) for g in groups]

    def walk(self, code: "LogitCoder", level: Tensor, quality_index: int, codes: Tensor | None) -> Tensor:
        """Code the planes of a map of levels int64 [h,w]; codes int8 [h*w,n] in {-1,0,1} given: written, None: read.

        Returns the codes, int8 [h,w,n], 0 where the importance mask leaves a plane out.
        """
        config, (height, width) = self.config, level.shape
        size, kept = config.group_planes, torch.tensor(config.kept_planes)[level.reshape(-1)]
        groups = -(-int(kept.max()) // size)  # groups beyond the highest level are empty
        padded = torch.zeros(groups, (height + 4) * (width + 4), size, dtype=self.dtype)  # codes so far, border of 2
        halves = self._halves(level, kept, groups)
        near = quincunx_steps(width + 4)  # the neighbours of the other parity
        for g in range(groups):
            group = slice(g * size, (g + 1) * size)
            for parity, half in enumerate(halves):
                given = None if codes is None else codes[half.at[: half.active[g]], group]
                # Even positions have no neighbours in their group yet.
                known = gather(padded[g], half.slot[: half.active[g]], near) if parity else None
                self._group(code, half, (g, quality_index), padded[g], (known, given))
            for half in halves:  # this group as context of the later ones
                column = self.fixed + 9 * size * g
                if half.active[g + 1]:
                    part = half.inputs[: half.active[g + 1], column : column + 9 * size]
                    part.copy_(windows(padded[g], half.slot[: half.active[g + 1]], 1, width + 4))
        out = torch.zeros(height, width, config.planes, dtype=torch.int8)
        coded = padded.view(groups, height + 4, width + 4, size)[:, 2:-2, 2:-2]  # [groups,h,w,size]
        out[:, :, : groups * size].view(height, width, groups, size).copy_(coded.permute(1, 2, 0, 3).mul(1 / ONE))
        return out

    def _halves(self, level: Tensor, kept: Tensor, groups: int) -> list[_Half]:
        """Both parities with their fixed input columns filled."""
        config, (height, width) = self.config, level.shape
        centred = level_input(level.reshape(-1), config.levels, self.dtype)
        known = self.map_in(patches(torch.stack([centred, torch.full_like(centred, ONE)], 1), (height, width), 2))
        parity = (torch.arange(height)[:, None] + torch.arange(width)[None]).reshape(-1) % 2
        columns = self.fixed + 9 * config.group_planes * max(groups - 1, 0)
        halves = []
        for which in (0, 1):
            at = (parity == which).nonzero()[:, 0]
            at = at[kept[at].argsort(descending=True, stable=True)]
            at = at[: int((kept[at] > 0).sum())]
            inputs = _scratch.take(which, (len(at), columns), self.dtype)  # every part is filled before its use
            inputs[:, : config.levels] = 0
            inputs[torch.arange(len(at)), level.reshape(-1)[at]] = ONE
            inputs[:, config.levels : self.fixed] = self.map_mid(patches(known, (height, width), 1, at))
            planes = torch.arange(groups * config.group_planes)
            keeping = len(at) - torch.searchsorted(kept[at].flip(0), planes, right=True)  # positions, for each plane
            count = keeping.tolist()
            active, full = [*count[:: config.group_planes], 0], count[config.group_planes - 1 :: config.group_planes]
            hidden = _scratch.take(2 + which, (len(at), groups * config.group_features), self.dtype)
            halves.append(_Half(at, inner(height, width, 2)[at], kept[at], inputs, hidden, active, full))
        return halves

    def _group(
        self,
        code: "LogitCoder",
        half: _Half,
        step: tuple[int, int],
        padded: Tensor,
        here: tuple[Tensor | None, Tensor | None],
    ) -> None:
        """Code one group at one parity into `padded` [p,size].

        step is (group, quality index); here the known neighbours in the group [m,12*size] and the codes to write
        [m,size], or None.
        """
        (g, quality_index), (known, given) = step, here
        fill, size, count = self.config.group_features, self.config.group_planes, half.active[g]
        if not count:
            return
        x = half.inputs[:count, : self.fixed + 9 * size * g]
        half.hidden[:count, g * fill : (g + 1) * fill] = self.hidden[g](x, (quality_index,), known)
        logits = self.out[g](self.mid[g](half.hidden[:count, : (g + 1) * fill]))  # [count,size]
        full = half.full[g]  # before it all planes of the group exist: no mask needed
        exists = half.kept[full:count, None] > g * size + torch.arange(size)
        bits = code(_existing(logits, full, exists), None if given is None else _existing(given, full, exists) > 0)
        signed = (bits.to(self.dtype) * 2 - 1) * ONE
        values = logits.new_zeros(count, size)
        values[:full] = signed[: full * size].view(full, size)
        values[full:][exists] = signed[full * size :]
        padded.index_copy_(0, half.slot[:count], values)


def _existing(x: Tensor, full: int, exists: Tensor) -> Tensor:
    """x [count,size] -> the entries of existing planes, flat, row by row; all of them in the first `full` rows."""
    return torch.cat([x[:full].reshape(-1), x[full:][exists]])


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

    planes: PlaneCoder | SuccessiveCoder

    def __init__(self, tensors: Mapping[str, Tensor], config: AnyConfig, dtype: torch.dtype = torch.float32) -> None:
        """WeightsError where a tensor is missing, misshapen or out of range, or sums could leave exact arithmetic."""
        weights = IntegerWeights(tensors, dtype)
        self.config = config
        self.maps = MapCoder(weights, config)
        if isinstance(config, SuccessiveConfig):
            self.planes = SuccessiveCoder(weights, config)
        else:
            self.planes = PlaneCoder(weights, config)
        self.bounds = weights.bounds
        table = weights.table("probability", torch.uint16, (2 * LOGIT_MAX + 1,), (32, 65504))
        self.probability = table.numpy().astype(np.float64) / 65536

    def encode(self, codes: Tensor, level: Tensor, quality_index: int, rest: Tensor | None = None) -> bytes:
        """codes [h,w,n] (int8 in {-1,0,1}; successive: int16), level [h,w] -> the tile's stream.

        With rest int8 [h,w,n], what rounding left, codes may be exchanged for cheaper neighbours (`Ladder.choose`).
        """
        first, second, q = RangeWriter(), RangeWriter(), level.long()
        shape = (level.shape[0], level.shape[1])
        # The writer knows the map already: both walks at once, where the reader must take one after the other.
        finish_map = beside(lambda: self.maps.walk(LogitCoder(first, self.probability), shape, quality_index, q))
        flat = codes.reshape(-1, self.config.planes)
        writer = LogitCoder(second, self.probability)
        if isinstance(self.planes, SuccessiveCoder) and rest is not None:
            self.planes.walk(writer, q, quality_index, flat, rest.reshape(flat.shape))
        else:
            self.planes.walk(writer, q, quality_index, flat)
        finish_map()
        first.append(second)
        return first.to_bytes()

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
