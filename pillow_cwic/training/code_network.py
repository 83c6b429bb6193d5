"""The context network of the integer codes in float, as it is trained.

For every code it gives the mean and the scale of a logistic distribution, from the importance map
and from the codes of earlier steps (`entropy.order`). Invariant: a code never depends on one of its
own step or of a later one; `entropy.code_coder` follows in integers. Layers are 1x1 or depthwise
3x3, so that integers stay cheap. Activations are clamped to [0, 4) as in `map_network`. This module
knows codes and levels, no pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..entropy import order
from ..entropy.logistic import (
    COARSE,
    EXCHANGE,
    FIRST_LOG_SCALE,
    LAST_LOG_SCALE,
    MEAN_MAX,
    OUTPUT_BITS,
    SCALES,
    SEEN,
)
from ..networks.config import ModelConfig
from .map_network import clamped_relu, level_as_input


def log_scale(output: Tensor) -> Tensor:
    """The network's scale output -> log of the scale; any shape.

    One index for every 2^-OUTPUT_BITS, output 0 in the middle.
    """
    index = (output * (1 << OUTPUT_BITS) + SCALES // 2).clamp(0, SCALES - 1)
    step = (LAST_LOG_SCALE - FIRST_LOG_SCALE) / (SCALES - 1)
    return index * step + FIRST_LOG_SCALE


def logistic_bits(codes: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """Bits of codes under a logistic distribution integrated over [code - 1/2, code + 1/2].

    Any common shape. Codes may be noisy: added uniform noise in place of rounding makes the rate
    differentiable.
    """
    scale = log_s.exp()
    # The distribution is symmetric: look at its upper side, where tails are accurate.
    distance = (codes - mean).abs()
    p = torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)
    return -torch.log2(p.clamp(min=2**-30))


def chosen_codes(features: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """The better of the two integers around every feature, as `Ladder.choose` has it.

    Any common shape. Here all codes are chosen at once, from distributions that saw the rounded
    ones; the coder goes step by step.
    """
    candidates = torch.stack([features.floor(), features.ceil()])  # [2,...]
    cost = logistic_bits(candidates, mean, log_s) + EXCHANGE * (candidates - features) ** 2
    return torch.where(cost[0] <= cost[1], candidates[0], candidates[1])


def sign_bits(codes: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """Bits of codes -1 and +1 that say whether a number of the same distribution is above 0.

    Any common shape; differentiable in all three. Means count as at most 1 in magnitude, as in the
    integer form, whose table ends there: small scales make sure bits.
    """
    return F.softplus(-codes * mean.clamp(-1, 1) / log_s.exp()) / math.log(2)


def coarse_codes(codes: Tensor) -> Tensor:
    """Codes as multiples of COARSE, rounded; any shape."""
    return torch.floor((codes + COARSE // 2) / COARSE)


def code_as_input(codes: Tensor) -> Tensor:
    """Codes or coarser ones -> network inputs in steps of 1/4; any shape."""
    return codes.clamp(-SEEN, SEEN) / 4


class StepNetwork(nn.Module):
    """One step: what is known at all positions -> mean and scale outputs of every channel."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.context_features
        n = config.channels
        self.known = nn.Conv2d(2 * n, width, 1)
        self.map_out = nn.Conv2d(config.map_features, width, 1, bias=False)
        self.level = nn.Embedding(config.levels, width)
        self.cell = nn.Embedding(4, width)
        self.quality = nn.Embedding(config.quality_count, width)
        self.pairs = range(1, config.context_layers + 1)
        for number in self.pairs:
            depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.add_module(f"depth{number}", depth)
            self.add_module(f"mid{number}", nn.Conv2d(width, width, 1))
        self.out = nn.Conv2d(width, 2 * n, 1)  # means, then scales
        self._init_weights()

    def _init_weights(self) -> None:
        for embedding in (self.level, self.cell, self.quality):
            nn.init.zeros_(embedding.weight)
        with torch.no_grad():
            # Most codes are 0 or 1, a quarter as input: scales need their magnitudes, so units
            # must bend around 0.
            self.known.weight.mul_(4)
            self.known.bias.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            for depth, mid in self.layers():
                depth.weight.mul_(0.3)
                depth.weight[:, :, 1, 1] += 0.7  # starts by looking at the position itself
                mid.weight[:, :, 0, 0] += 0.5 * torch.eye(len(mid.weight))
                mid.bias.add_(0.3)  # type: ignore[union-attr]
            self.out.weight.mul_(0.3)

    def layers(self) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
        """The pairs of a depthwise and a pointwise layer, in order."""
        return [
            (getattr(self, f"depth{number}"), getattr(self, f"mid{number}"))
            for number in self.pairs
        ]

    def forward(self, known: Tensor, seen: Tensor, coded: Tensor, *setting: Tensor) -> Tensor:
        """Outputs [4,2m,r] of the channels that each place codes in this step: means, then scales.

        known [4,2s,r]: inputs of the channels that each place has seen, positions as in `by_place`;
        seen [4,2s], coded [4,2m]: which of the 2n inputs and outputs these channels have; setting:
        what `layer_without_codes` takes.
        """
        # Of the first layer only the rows of what is known.
        without_codes = self.layer_without_codes(*setting)  # [B,width,h,w]
        batch, _, height, width = without_codes.shape
        rows = select_rows(self.known.weight.flatten(1).t(), seen).to(known.dtype)  # [4,2s,width]
        h = from_places(rows.transpose(1, 2) @ known, batch, height, width)  # [B,width,h,w]
        h = clamped_relu(h + without_codes)
        for depth, mid in self.layers():
            h = clamped_relu(pointwise(mid, clamped_relu(depth(h))))

        # Of the last layer only the columns of what is coded.
        columns = select_rows(self.out.weight.flatten(1), coded).to(known.dtype)  # [4,2m,width]
        bias = select_rows(self.out.bias, coded).to(known.dtype)  # type: ignore[arg-type]  # [4,2m]
        return torch.baddbmm(bias[:, :, None], columns, by_place(h))

    def layer_without_codes(
        self, maps: Tensor, level: Tensor, place: Tensor, quality_index: Tensor
    ) -> Tensor:
        """The first layer without codes, [B,width,h,w].

        maps [B,f,h,w], level [B,h,w], place in the cell [h,w], quality_index [B].
        """
        quality = self.quality(quality_index)[:, None, None]
        tables: Tensor = self.level(level) + self.cell(place) + quality  # [B,h,w,width]
        tables = tables + self.known.bias  # type: ignore[operator]
        return pointwise(self.map_out, maps) + tables.permute(0, 3, 1, 2).to(maps.dtype)


class ContextNetwork(nn.Module):
    """Mean and log-scale of every code in the steps of `order`, from the codes of the steps before.

    A step reads only what is known and computes only what it codes.
    """

    by_step: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.channels
        features = config.map_features
        self.levels = config.levels
        self.map_in = nn.Conv2d(2, features, 5, padding=2)
        self.map_mid = nn.Conv2d(features, features, 3, padding=1)
        self.step = nn.ModuleList([StepNetwork(config) for _ in order.STEPS])
        by_step = torch.from_numpy(order.by_step(self.channels))  # [4,n]
        self.register_buffer("by_step", by_step, persistent=False)

    def forward(
        self,
        codes: Tensor,
        level: Tensor,
        quality_index: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-scale [B,m,h,w] float32 of codes [B,m,h,w], integers.

        The codes of the first m channels, a multiple of 16, where no other is kept. level
        [B,1,h,w], quality_index [B]; dtype: what the layers compute in.
        """
        # What every step sees: the importance map around each position.
        batch, count, height, width = codes.shape
        level_map = level_as_input(level, self.levels)
        seen_map = torch.cat([level_map, torch.ones_like(level)], 1).to(dtype)  # [B,2,h,w]
        maps = clamped_relu(self.map_mid(clamped_relu(self.map_in(seen_map))))  # [B,f,h,w]
        setting = maps, level[:, 0].long(), places(height, width, codes.device), quality_index

        # What the steps code one after the other: channels in the order in which they are known.
        by_step = self.by_step
        if count < self.channels:
            by_step = by_step[by_step < count].view(4, count)
        ordered = reorder_channels(by_place(codes), by_step).to(dtype)  # [4,m,r]
        fine = code_as_input(ordered)
        coarse = code_as_input(coarse_codes(ordered))
        outputs = []
        start = 0
        for number, network in enumerate(self.step):
            size = order.channels(number, count).shape[1]
            seen = by_step[:, :start]  # [4,s]
            coded = by_step[:, start : start + size]  # [4,c]
            known = torch.cat([fine[:, :start], coarse[:, :start]], 1)  # [4,2s,r]
            inputs = torch.cat([seen, seen + self.channels], 1)  # [4,2s]
            columns = torch.cat([coded, coded + self.channels], 1)  # [4,2c]
            out = network(known, inputs, columns, *setting)
            outputs.append(out.float().view(4, 2, size, -1))  # [4,2,c,r]
            start += size

        # Back to channels and positions.
        mean, scale = torch.cat(outputs, 2).unbind(1)  # [4,m,r] each
        to_channels = by_step.argsort(1)
        mean = reorder_channels(mean.clamp(-MEAN_MAX, MEAN_MAX), to_channels)
        log_s = reorder_channels(log_scale(scale), to_channels)
        return (
            from_places(mean, batch, height, width),
            from_places(log_s, batch, height, width),
        )


def places(height: int, width: int, device: torch.device) -> Tensor:
    """Place 0..3 in its 2x2 cell of every position, int64 [h,w].

    Made on the device: nothing may be copied to it while a CUDA graph is captured.
    """
    rows = torch.arange(height, device=device)[:, None]
    columns = torch.arange(width, device=device)
    return rows % 2 * 2 + columns % 2


def by_place(x: Tensor) -> Tensor:
    """[B,c,h,w] -> [4,c,r]: the r = B * ceil(h/2) * ceil(w/2) positions of every place in the cell.

    Zeros stand for the places that odd sizes leave out.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return cells.permute(3, 5, 1, 0, 2, 4).reshape(4, channels, -1)


def from_places(x: Tensor, batch: int, height: int, width: int) -> Tensor:
    """The inverse of `by_place`: [4,c,r] -> [B,c,h,w]."""
    cells = x.view(2, 2, x.shape[1], batch, -(-height // 2), -(-width // 2))
    cells = cells.permute(3, 2, 4, 0, 5, 1)  # [B,c,h/2,2,w/2,2]
    return cells.flatten(4).flatten(2, 3)[:, :, :height, :width]


def select_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x [m,...] by index [4,k] -> [4,k,...]."""
    return x.index_select(0, index.flatten()).view(4, -1, *x.shape[1:])


def reorder_channels(x: Tensor, index: Tensor) -> Tensor:
    """x [4,c,r], each place's channels in the order of index [4,c]."""
    offset = torch.arange(4, device=x.device)[:, None] * x.shape[1]
    return select_rows(x.flatten(0, 1), index + offset)


def pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of [B,c,h,w] as a product of matrices, which is faster on a CPU."""
    weight = layer.weight.flatten(1).to(x.dtype).expand(len(x), -1, -1)  # [B,out,in]
    if layer.bias is None:
        bias = torch.zeros(1, dtype=x.dtype, device=x.device)
    else:
        bias = layer.bias[:, None].to(x.dtype)
    return torch.baddbmm(bias, weight, x.flatten(2)).view(len(x), -1, *x.shape[2:])
