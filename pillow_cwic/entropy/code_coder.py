"""The integer codes <-> decisions with probabilities, in exact integers.

Follows `context` in the arithmetic of `integer_layer`. A code is a ladder of binary decisions
(`ladder`), whose probabilities are quotients of entries of an integer table of the logistic
distribution. One walk serves both directions, and the coder is called once per decision and step
for all positions together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from ..errors import WeightsError
from ..networks.config import ModelConfig
from ..networks.tensors import expected_tensor
from . import order
from .integer_layer import (
    CEILING,
    EXACT,
    LEVEL_UNIT,
    ONE,
    TO_ACTIVATION,
    TO_LOGIT,
    IntegerWeights,
    Layer,
    accumulator_bound,
    level_input,
)
from .ladder import Ladder, table_size
from .logistic import COARSE, MEAN_MAX, OUTPUT_BITS, SCALES, SEEN, TABLE_BITS
from .neighbourhood import patches
from .range_coder import BitCoder

CODE_UNIT = ONE // 4  # one step of a code as a network input


class DepthwiseLayer:
    """A 3x3 layer in which every feature sees only itself.

    Else as `integer_layer.Layer`, whose bound it obeys.
    """

    def __init__(self, weights: IntegerWeights, name: str, width: int) -> None:
        weight = expected_tensor(weights.tensors, f"entropy.{name}.weight", torch.int16, (9, width))
        bias = expected_tensor(weights.tensors, f"entropy.{name}.bias", torch.int32, (width,))
        bound = accumulator_bound(weight, bias, torch.full((9,), CEILING), TO_ACTIVATION)
        if bound >= EXACT:
            raise WeightsError(
                f"entropy.{name}: sums may reach {bound:.0f}, beyond exact arithmetic ({EXACT})"
            )
        weights.bounds[name] = bound
        self.weight = weight.to(weights.dtype)
        self.bias = (bias.double() + 2.0 ** (TO_ACTIVATION - 1)).to(weights.dtype)

    def __call__(self, x: Tensor, shape: tuple[int, int]) -> Tensor:
        """x [h*w,c] on a map of `shape` (h, w) -> [h*w,c]."""
        height, width = shape
        padded = x.new_zeros(height + 2, width + 2, x.shape[1])
        padded[1:-1, 1:-1] = x.view(height, width, -1)
        total = self.bias.expand(height, width, -1).clone()
        for tap in range(9):
            dy, dx = divmod(tap, 3)
            total.addcmul_(padded[dy : dy + height, dx : dx + width], self.weight[tap])
        return total.view(height * width, -1).mul_(2.0**-TO_ACTIVATION).floor_().clamp_(0, CEILING)


class _Step:
    """The layers of one step."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig, step: int) -> None:
        width, name = config.context_features, f"planes.{step}"
        self.step, self.planes = step, config.channels
        limits = [ONE] * (config.levels + 4) + [CEILING] * config.map_features
        limits += [SEEN * CODE_UNIT] * (
            2 * config.channels if step else 0
        )  # the first step knows no codes
        self.hidden = weights.layer(f"{name}.hidden", limits, width, rows=(config.quality_count,))
        self.depth1 = DepthwiseLayer(weights, f"{name}.depth1", width)
        self.mid1 = weights.layer(f"{name}.mid1", [CEILING] * width, width)
        self.depth2 = DepthwiseLayer(weights, f"{name}.depth2", width)
        self.mid2 = weights.layer(f"{name}.mid2", [CEILING] * width, width)
        outputs = 2 * order.channels(step, config.channels).shape[1]
        self.out = [_output(weights, f"{name}.out{place}", width, outputs) for place in range(4)]

    def of(self, channels: int) -> Self:
        """The step for a tile in which no position keeps more than the first `channels`, a multiple of 16."""
        fixed, planes = self.hidden.weight.shape[0], self.planes
        if channels == planes:
            return self
        step, first = copy.copy(self), torch.arange(channels)
        if self.step:
            fixed -= 2 * planes
            step.hidden = self.hidden.part(
                rows=torch.cat([torch.arange(fixed), fixed + first, fixed + planes + first])
            )
        outputs = torch.arange(self.out[0].weight.shape[1]).view(2, -1)  # means and scales
        columns = outputs[:, : outputs.shape[1] * channels // planes].flatten()
        step.out = [out.part(columns=columns) for out in self.out]
        return step

    def features(self, x: Tensor, shape: tuple[int, int], quality_index: int) -> Tensor:
        """Inputs of all positions [h*w,in] -> features [h*w,width]."""
        h = self.hidden(x, (quality_index,))
        h = self.mid1(self.depth1(h, shape))
        return self.mid2(self.depth2(h, shape))

    def distributions(self, features: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Features [h*w,width] -> means in sixteenths and scale indices of this step, int64 [h*w,m]."""
        out = torch.empty(len(features), self.out[0].weight.shape[1], dtype=torch.int64)
        for cell, layer in enumerate(self.out):
            at = (place == cell).nonzero()[:, 0]
            out[at] = layer(features[at]).long()
        mean, scale = out.chunk(2, 1)
        return mean, (scale + SCALES // 2).clamp(0, SCALES - 1)


def _output(weights: IntegerWeights, name: str, width: int, outputs: int) -> Layer:
    """A layer to means and scale indices at one place in the cell: wider than a logit's range, in the same unit."""
    layer = weights.layer(name, [CEILING] * width, outputs, TO_LOGIT)
    layer.low, layer.high = -(MEAN_MAX << OUTPUT_BITS), MEAN_MAX << OUTPUT_BITS
    return layer


class CodeCoder:
    """The integer codes of a tile, in the steps of `order`."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        self.config, self.dtype = config, weights.dtype
        side = config.map_features
        self.map_in = weights.layer(
            "planes.map_in", [config.levels // 2 * LEVEL_UNIT, ONE] * 25, side
        )
        self.map_mid = weights.layer("planes.map_mid", [CEILING] * (9 * side), side)
        self.steps = [_Step(weights, config, step) for step in range(len(order.STEPS))]
        shape, half = (SCALES, table_size(config.ladder)), 1 << (TABLE_BITS - 1)
        self.ladder = Ladder(
            weights.table("logistic", torch.int32, shape, (0, half)).numpy(), config.ladder
        )

    def walk(
        self,
        bit_coder: BitCoder,
        level: Tensor,
        quality_index: int,
        codes: Tensor | None,
        rest: Tensor | None = None,
    ) -> Tensor:
        """Code the codes of a map of levels int64 [h,w].

        Codes int16 [h*w,n] given: written, None: read.

        With what rounding left of the features, rest int8 [h*w,n], the walk may write a code's
        neighbour (`choose`). Returns the codes as coded, int16 [h,w,n], 0 where the importance mask
        leaves a channel out.
        """
        out = torch.zeros(level.numel(), self.config.channels, dtype=torch.int16)
        for at, *both in self._steps(level, quality_index, out):
            mean, scale = (x.numpy() for x in both)
            given = None if codes is None else codes.reshape(-1)[at].long().numpy()
            if given is not None and rest is not None:
                given = self.ladder.choose(mean, scale, given, rest.reshape(-1)[at].long().numpy())
            found = self.ladder.walk(bit_coder, mean, scale, given)
            out.view(-1)[at] = torch.from_numpy(found).to(torch.int16)
        return out.view(*level.shape, -1)

    def distributions(
        self, codes: Tensor, level: Tensor, quality_index: int
    ) -> tuple[Tensor, Tensor]:
        """Codes int16 [h,w,n], level int64 [h,w] -> what a decoder expects of each: means in sixteenths, scale indices.

        Both int64 [h,w,n], 0 for codes that the importance mask leaves out.
        """
        flat, out = (
            codes.reshape(-1),
            torch.zeros(level.numel(), self.config.channels, dtype=torch.int16),
        )
        means, scales = torch.zeros(2, out.numel(), dtype=torch.int64)
        for at, mean, scale in self._steps(level, quality_index, out):
            means[at], scales[at], out.view(-1)[at] = mean, scale, flat[at]
        return means.view(codes.shape), scales.view(codes.shape)

    def _steps(
        self, level: Tensor, quality_index: int, out: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Step by step: which codes exist, as indices [m] into out [h*w*n], their means and scale indices [m].

        The caller fills these codes into out [h*w,n], zeros at first, before it asks for the next
        step.
        """
        height, width = level.shape
        place = order.cell(height, width).reshape(-1)  # [h*w]
        kept = torch.tensor(self.config.kept_planes)[level.reshape(-1), None]  # [h*w,1]
        # Beyond these there is nothing to predict and nothing to see.
        channels = -(-int(kept.max()) // 16) * 16
        inputs, fixed = self._inputs(level, place, channels)
        for k, layers in enumerate(step.of(channels) for step in self.steps):
            if k:
                inputs[:, fixed:] = self._context(out[:, :channels])
            features = layers.features(
                inputs if k else inputs[:, :fixed], (height, width), quality_index
            )
            channel = order.channels(k, channels)[place]  # [h*w,m]
            exists = (channel < kept).reshape(-1).nonzero()[:, 0]  # [m]
            at = (channel + self.config.channels * torch.arange(len(channel))[:, None]).reshape(-1)[
                exists
            ]  # in [h*w*n]
            mean, scale = layers.distributions(features, place)
            yield at, mean.reshape(-1)[exists], scale.reshape(-1)[exists]

    def _context(self, codes: Tensor) -> Tensor:
        """Codes [h*w,n] -> inputs [h*w,2n]: the codes themselves, then their multiples of COARSE."""
        coarse = (codes + COARSE // 2) >> (
            COARSE.bit_length() - 1
        )  # divided and rounded down, in a tenth of the time
        return (torch.cat([codes, coarse], 1).clamp(-SEEN, SEEN) * CODE_UNIT).to(self.dtype)

    def _inputs(self, level: Tensor, place: Tensor, channels: int) -> tuple[Tensor, int]:
        """Inputs of the steps [h*w,in]: one-hot level, one-hot place in the cell, map features | codes, still zero."""
        config, flat = self.config, level.reshape(-1)
        shape = (level.shape[0], level.shape[1])
        centred = level_input(flat, config.levels, self.dtype)
        maps = self.map_in(
            patches(torch.stack([centred, torch.full_like(centred, ONE)], 1), shape, 2)
        )
        fixed = config.levels + 4 + config.map_features
        x = torch.zeros(len(flat), fixed + 2 * channels, dtype=self.dtype)
        rows = torch.arange(len(flat))
        x[rows, flat] = ONE
        x[rows, config.levels + place] = ONE
        x[:, config.levels + 4 : fixed] = self.map_mid(patches(maps, shape, 1))
        return x, fixed
