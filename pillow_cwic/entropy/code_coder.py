"""The integer codes <-> decisions with probabilities, in exact integers.

Follows the float network of the codes in the arithmetic of `integer_layer`. A code is a ladder of
binary decisions (`ladder`). One walk serves both directions, and the coder is called once per
decision and step for all positions together.

A step multiplies only what is not zero and computes only codes that exist, at each of the four
places in a 2x2 cell. What it leaves out are exact zeros, or nobody asks for it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..networks.config import ModelConfig
from ..runtime.blas import matmul
from . import order
from .integer_layer import CEILING, LEVEL_UNIT, LOGIT, ONE, Floats, IntegerWeights, Output, rounded
from .ladder import Ladder, table_size
from .logistic import COARSE, MEAN_MAX, OUTPUT_BITS, SCALES, SEEN, TABLE_BITS
from .neighbourhood import bordered, inside, squares
from .range_coder import BitCoder

Codes = NDArray[np.int16]
Levels = NDArray[np.uint8]
Indices = NDArray[np.intp]
Remainders = NDArray[np.int8]

CODE_UNIT = ONE // 4  # one step of a code as a network input
FARTHEST = MEAN_MAX << OUTPUT_BITS
PREDICTION = Output(LOGIT.shift, -FARTHEST, FARTHEST)


class Predictions(NamedTuple):
    """What a step expects of the codes that exist in it, in the order of the step."""

    indices: Indices  # of the codes in [h*w*n], [m]
    mean: NDArray[np.int16]  # in sixteenths, [m]
    scale: NDArray[np.int16]  # indices of scales, [m]


class Inputs:
    """What is known at one place in the cells, as inputs of a step's first layer.

    Only inputs that are not zero everywhere are held, each with its row of the layer's weight.
    """

    def __init__(self, place: int, level: Levels, maps: Floats, config: ModelConfig) -> None:
        """level [h,w] and map features [h,w,f] of the whole tile."""
        self.place = place
        self.positions = order.positions(place)
        level = level[self.positions].reshape(-1)  # [r]
        maps = maps[self.positions].reshape(len(level), -1)  # [r,f]
        first_feature = config.levels + order.PLACES
        self._first_code = first_feature + config.map_features
        self._channels = config.channels
        room = self._first_code + 2 * config.channels
        self._values = np.empty((room, len(level)), maps.dtype)  # [in,r]
        self._rows = np.empty(room, np.intp)
        self._count = 0
        present = np.flatnonzero(np.bincount(level))
        self.levels = len(present)
        self._add(present, level[:, None] == present)
        self._add(first_feature + np.arange(config.map_features), maps)

    def learn(self, codes: Codes, channels: Indices) -> None:
        """Take in the codes [h,w,n] of a step's channels [m]."""
        values = codes[self.positions][..., channels].reshape(-1, len(channels))  # [r,m]
        peak = np.abs(values).max(0)  # [m]
        fine = np.flatnonzero(peak)
        self._add(self._first_code + channels[fine], _as_input(values[:, fine]))
        coarse = np.flatnonzero(peak >= COARSE // 2)
        multiples = (values[:, coarse] + COARSE // 2) // COARSE
        rows = self._first_code + self._channels + channels[coarse]
        self._add(rows, _as_input(multiples))

    def matrix(self) -> tuple[Floats, Indices]:
        """The inputs so far [r,m], and the weight's rows [m] that they belong to.

        The first `levels` of them are one-hot, as 0 and 1.
        """
        return self._values[: self._count].T, self._rows[: self._count]

    def _add(self, rows: Indices, values: NDArray[Any]) -> None:
        """Inputs [r,m] of the weight's rows [m]."""
        end = self._count + len(rows)
        self._values[self._count : end] = values.T
        self._rows[self._count : end] = rows
        self._count = end


def _as_input(codes: Codes) -> Codes:
    return codes.clip(-SEEN, SEEN) * CODE_UNIT


class Context:
    """What is known of a tile's codes, place by place, and the memory that its steps share."""

    def __init__(self, level: Levels, maps: Floats, config: ModelConfig) -> None:
        """level [h,w], map features [h,w,f]."""
        height, width = level.shape
        self.shape = (height, width)
        self.kept = np.array(config.kept_planes)[level]  # [h,w]
        self.place = np.arange(height)[:, None] % 2 * 2 + np.arange(width) % 2  # [h,w]
        self.start = np.arange(level.size).reshape(self.shape) * config.channels  # in [h*w*n]
        # A tile of one row or column has no positions at some places.
        self.inputs = [
            Inputs(place, level, maps, config)
            for place in range(order.PLACES)
            if level[order.positions(place)].size
        ]
        features = config.context_features
        self.padded = bordered(self.shape, features, 1, maps.dtype)  # the border stays zero
        self.near = np.empty((height, width, features), maps.dtype)
        self.mixed = np.empty((height * width, features), maps.dtype)

    def learn(self, codes: Codes, channels: Indices) -> None:
        """Take in the codes [h,w,n] of a step's channels [4,m]."""
        for inputs in self.inputs:
            inputs.learn(codes, channels[inputs.place])


def input_limits(config: ModelConfig, step: int) -> list[int]:
    """The largest |input| of every row of a step's first layer."""
    limits = [ONE] * (config.levels + order.PLACES) + [CEILING] * config.map_features
    if step:  # the first knows no codes
        limits += [SEEN * CODE_UNIT] * (2 * config.channels)
    return limits


class Step:
    """The layers of one step."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig, number: int) -> None:
        width = config.context_features
        name = f"planes.{number}"
        limits = input_limits(config, number)
        self.levels = config.levels
        self.channels = order.channels(number, config.channels)  # [4,m]
        self.hidden = weights.layer(f"{name}.hidden", limits, width, rows=(config.quality_count,))
        self.pairs = [
            (
                weights.depthwise(f"{name}.depth{number}", width),
                weights.layer(f"{name}.mid{number}", [CEILING] * width, width),
            )
            for number in range(1, config.context_layers + 1)
        ]
        outputs = 2 * self.channels.shape[1]
        self.out = [
            weights.layer(f"{name}.out{place}", [CEILING] * width, outputs, PREDICTION)
            for place in range(order.PLACES)
        ]

    def predict(self, context: Context, count: int, quality_index: int) -> Predictions:
        """What is to be expected of the first `count` channels of each place, where they exist."""
        features = self._features(context, quality_index)  # [h,w,width]
        mean = np.empty((*context.shape, count), np.int16)
        scale = np.empty_like(mean)
        for inputs in context.inputs:
            here = inputs.positions
            outputs = self._outputs(features[here], inputs.place, count)  # [h',w',2,count]
            mean[here] = outputs[:, :, 0]
            scale[here] = outputs[:, :, 1]
        channels = self.channels[:, :count].take(context.place, 0)  # [h,w,count]
        exists = channels < context.kept[..., None]
        channels += context.start[..., None]
        scale = (scale[exists] + SCALES // 2).clip(0, SCALES - 1)  # [m], as the other two
        return Predictions(channels[exists], mean[exists], scale)

    def _features(self, context: Context, quality_index: int) -> Floats:
        """Features of all positions, [h,w,width]."""
        within = inside(context.padded, 1)
        for inputs in context.inputs:
            self._first(inputs, quality_index, within[inputs.positions])
        features = within
        for depth, mid in self.pairs:
            if features is not within:  # what the pair before left
                within[...] = features
            near = depth(context.padded, context.near).reshape(context.mixed.shape)
            features = mid(near, out=context.mixed).reshape(within.shape)
        return features

    def _first(self, inputs: Inputs, quality_index: int, out: Floats) -> None:
        """The first layer at one place -> out [h',w',width]."""
        hidden = self.hidden
        x, rows = inputs.matrix()
        weight = hidden.weight.take(rows, 0)  # [in,width]
        # One level is on at each position: it brings along what is the same at all of this place.
        same = hidden.bias[quality_index] + ONE * hidden.weight[self.levels + inputs.place]
        weight[: inputs.levels] = ONE * weight[: inputs.levels] + same
        total = matmul(x, weight).reshape(out.shape)  # [h',w',width]
        rounded(total, hidden.output, out)

    def _outputs(self, features: Floats, place: int, count: int) -> Floats:
        """Features [h',w',width] at a place -> means and scales [h',w',2,count].

        Of the first `count` channels that the place codes.
        """
        layer = self.out[place]
        height, width, inner = features.shape
        weight = layer.weight.reshape(inner, 2, -1)[:, :, :count].reshape(inner, -1)
        total = matmul(features.reshape(-1, inner), weight)  # [r,2*count]
        total += layer.bias.reshape(2, -1)[:, :count].reshape(-1)
        return rounded(total, layer.output).reshape(height, width, 2, count)


class CodeCoder:
    """The integer codes of a tile, in the steps of `order`."""

    def __init__(self, weights: IntegerWeights, config: ModelConfig) -> None:
        self.config = config
        self.dtype = weights.dtype
        side = config.map_features
        around = [config.levels // 2 * LEVEL_UNIT, ONE] * 25
        self.map_in = weights.layer("planes.map_in", around, side)
        self.map_mid = weights.layer("planes.map_mid", [CEILING] * (9 * side), side)
        self.steps = [Step(weights, config, number) for number in range(len(order.STEPS))]
        shape = (SCALES, table_size(config.ladder))
        half = 1 << (TABLE_BITS - 1)
        table = weights.table("logistic", np.int32, shape, (0, half))
        self.ladder = Ladder(table, config.ladder)

    @property
    def position_bytes(self) -> int:
        """What a code position takes while its tile is decoded: inputs, features, codes."""
        config = self.config
        inputs = config.levels + order.PLACES + config.map_features + 2 * config.channels
        numbers = inputs + 3 * config.context_features
        predictions = 24 * config.channels // order.PLACES  # bytes: of the last steps' codes
        codes = config.channels * np.dtype(np.int16).itemsize
        return numbers * np.dtype(self.dtype).itemsize + predictions + codes

    def walk(
        self, coder: BitCoder, level: Levels, quality_index: int, codes: Codes | None
    ) -> Codes:
        """Code the codes [h,w,n] of a map of levels [h,w] (given: written, None: read).

        Returns the codes as coded, 0 where the importance map leaves a channel out.
        """
        coded = self._nothing(level)
        given = None if codes is None else codes.reshape(-1)
        for indices, mean, scale in self._steps(level, quality_index, coded):
            wanted = None if given is None else given[indices]
            coded.reshape(-1)[indices] = self.ladder.walk(coder, mean, scale, wanted)
        return coded

    def write_chosen(
        self,
        coder: BitCoder,
        codes: Codes,
        level: Levels,
        remainders: Remainders,
        quality_index: int,
    ) -> None:
        """Write what `chosen` gives for features rounded to codes and remainders [h,w,n]."""
        out = self._nothing(level)
        for expected, chosen in self._choices(codes, level, remainders, quality_index, out=out):
            self.ladder.walk(coder, expected.mean, expected.scale, chosen)

    def chosen(
        self, codes: Codes, level: Levels, remainders: Remainders, quality_index: int
    ) -> Codes:
        """The codes [h,w,n] to write for features that were rounded to codes and remainders.

        Each is chosen (`Ladder.choose`) by what those chosen before it predict.
        """
        chosen = self._nothing(level)
        for _ in self._choices(codes, level, remainders, quality_index, out=chosen):
            pass
        return chosen

    def _choices(
        self,
        codes: Codes,
        level: Levels,
        remainders: Remainders,
        quality_index: int,
        *,
        out: Codes,
    ) -> Iterator[tuple[Predictions, Codes]]:
        """Step by step, what was expected of its codes and which were chosen [m]; fills out."""
        codes = codes.reshape(-1)
        remainders = remainders.reshape(-1)
        for expected in self._steps(level, quality_index, out):
            indices, mean, scale = expected
            chosen = self.ladder.choose(mean, scale, codes[indices], remainders[indices])
            out.reshape(-1)[indices] = chosen
            yield expected, chosen

    def distributions(
        self, codes: Codes, level: Levels, quality_index: int
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Codes [h,w,n], level [h,w] -> what a decoder expects of each code.

        Means in sixteenths and scale indices, [h,w,n] each, 0 for codes that the importance map
        leaves out.
        """
        seen, means, scales = (self._nothing(level) for _ in range(3))
        codes = codes.reshape(-1)
        for indices, mean, scale in self._steps(level, quality_index, seen):
            means.reshape(-1)[indices] = mean
            scales.reshape(-1)[indices] = scale
            seen.reshape(-1)[indices] = codes[indices]
        return means, scales

    def _nothing(self, level: Levels) -> Codes:
        return np.zeros((*level.shape, self.config.channels), np.int16)

    def _steps(self, level: Levels, quality_index: int, codes: Codes) -> Iterator[Predictions]:
        """What each step expects of its codes.

        The caller fills these into codes [h,w,n], zeros at first, before it asks for the next step.
        """
        highest = self.config.kept_planes[int(level.max())]
        if not highest:
            return
        context = Context(level, self._map_features(level), self.config)
        for step in self.steps:
            # Beyond what any position keeps there is nothing to predict and nothing to see.
            count = int((step.channels < highest).sum(1).max())
            if count:
                yield step.predict(context, count, quality_index)
                context.learn(codes, step.channels[:, :count])

    def _map_features(self, level: Levels) -> Floats:
        """Levels [h,w] -> the map as context of the codes, [h,w,map_features]."""
        shape = (level.shape[0], level.shape[1])
        padded = bordered(shape, 2, 2, self.dtype)
        x = inside(padded, 2)  # [h,w,2]
        x[..., 0] = (level.astype(self.dtype) - self.config.levels // 2) * LEVEL_UNIT
        x[..., 1] = ONE
        hidden = bordered(shape, self.config.map_features, 1, self.dtype)
        near = squares(padded, 2).reshape(level.size, -1)  # [h*w,50]
        inside(hidden, 1)[...] = self.map_in(near).reshape(*shape, -1)
        near = squares(hidden, 1).reshape(level.size, -1)  # [h*w,9*map_features]
        return self.map_mid(near).reshape(*shape, -1)
