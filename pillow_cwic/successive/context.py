"""The context network of the integer codes in float, as it is trained; `coder` follows it in integers.

For every code it gives the mean and the scale of a logistic distribution, from the importance map and from the codes
of earlier steps (`order`). Layers are 1x1 or depthwise 3x3, so that integers stay cheap. Activations are clamped to
[0, 4) as in `entropy_networks`. Only training and export import this module.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..entropy_networks import clamped_relu, level_input
from . import order
from .scale import COARSE, EXCHANGE, FIRST_LOG_SCALE, LAST_LOG_SCALE, MEAN_MAX, OUTPUT_BITS, SCALES, SEEN


def log_scale(output: Tensor) -> Tensor:
    """The network's scale output -> log of the scale: one index for every 2^-OUTPUT_BITS, output 0 in the middle."""
    index = (output * (1 << OUTPUT_BITS) + SCALES // 2).clamp(0, SCALES - 1)
    step = (LAST_LOG_SCALE - FIRST_LOG_SCALE) / (SCALES - 1)
    return index * step + FIRST_LOG_SCALE


def logistic_bits(codes: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """Bits of codes under a logistic distribution integrated over [code - 1/2, code + 1/2]; any common shape.

    Codes may be noisy: added uniform noise in place of rounding makes the rate differentiable.
    """
    scale = log_s.exp()
    distance = (codes - mean).abs()  # the distribution is symmetric: look at its upper side, where tails are accurate
    p = torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)
    return -torch.log2(p.clamp(min=2**-30))


def choose(features: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """The better of the two integers around every feature, as `Ladder.choose` has it; any common shape.

    Here all codes are chosen at once, from distributions that saw the rounded ones; the coder goes step by step.
    """
    both = torch.stack([features.floor(), features.ceil()])
    cost = logistic_bits(both, mean, log_s) + EXCHANGE * (both - features) ** 2
    return torch.where(cost[0] <= cost[1], both[0], both[1])


def sign_bits(codes: Tensor, mean: Tensor, log_s: Tensor) -> Tensor:
    """Bits of codes -1 and +1 where a number of the same distribution is above 0 or not; differentiable in all three.

    Means count as at most 1 in magnitude, as in the integer form, whose table ends there: small scales make sure bits.
    """
    return F.softplus(-codes * mean.clamp(-1, 1) / log_s.exp()) / math.log(2)


def context_input(codes: Tensor) -> Tensor:
    """Codes [B,n,h,w] -> inputs [B,2n,h,w] in steps of 1/4: the codes themselves, then their multiples of COARSE."""
    coarse = torch.floor((codes + COARSE // 2) / COARSE)
    return torch.cat([codes, coarse], 1).clamp(-SEEN, SEEN) / 4


class StepNetwork(nn.Module):
    """One step: what is known at all positions -> mean and scale outputs of every channel."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, n = config.context_features, config.planes
        self.known = nn.Conv2d(2 * n, width, 1)
        self.map_out = nn.Conv2d(config.map_features, width, 1, bias=False)
        self.level = nn.Embedding(config.levels, width)
        self.cell = nn.Embedding(4, width)
        self.quality = nn.Embedding(config.quality_count, width)
        self.depth1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mid1 = nn.Conv2d(width, width, 1)
        self.depth2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mid2 = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, 2 * n, 1)  # means, then scales
        self._init_weights()

    def _init_weights(self) -> None:
        for embedding in (self.level, self.cell, self.quality):
            nn.init.zeros_(embedding.weight)
        with torch.no_grad():
            # Most codes are 0 or 1, a quarter as input: scales need their magnitudes, so units must bend around 0.
            self.known.weight.mul_(4)
            self.known.bias.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            for depth in (self.depth1, self.depth2):
                depth.weight.mul_(0.3)
                depth.weight[:, :, 1, 1] += 0.7  # starts by looking at the position itself
            for mid in (self.mid1, self.mid2):
                mid.weight[:, :, 0, 0] += 0.5 * torch.eye(len(mid.weight))
                mid.bias.add_(0.3)  # type: ignore[union-attr]
            self.out.weight.mul_(0.3)

    def forward(self, known: Tensor, maps: Tensor, level: Tensor, place: Tensor, quality_index: Tensor) -> Tensor:
        """known [B,2n,h,w] as inputs, maps [B,m,h,w], level [B,h,w], place [h,w] -> outputs [B,2n,h,w]."""
        given = self.level(level) + self.cell(place)  # [B,h,w,width]
        given = (given + self.quality(quality_index)[:, None, None]).permute(0, 3, 1, 2).to(known.dtype)
        h = clamped_relu(self.known(known) + self.map_out(maps) + given)
        h = clamped_relu(self.mid1(clamped_relu(self.depth1(h))))
        h = clamped_relu(self.mid2(clamped_relu(self.depth2(h))))
        return self.out(h)  # type: ignore[no-any-return]


class ContextNetwork(nn.Module):
    """Mean and log-scale of every code in the steps of `order`, each from the codes of the steps before."""

    steps: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        side, n = config.map_features, config.planes
        self.levels = config.levels
        self.map_in = nn.Conv2d(2, side, 5, padding=2)
        self.map_mid = nn.Conv2d(side, side, 3, padding=1)
        self.step = nn.ModuleList([StepNetwork(config) for _ in order.STEPS])
        self.register_buffer("steps", order.steps(n), persistent=False)  # [n,place]

    def forward(
        self, codes: Tensor, level: Tensor, quality_index: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """codes [B,n,h,w] integers, level [B,1,h,w], quality_index [B] -> mean, log-scale [B,n,h,w] float32."""
        x = context_input(codes).to(dtype)  # [B,2n,h,w]
        known = torch.cat([level_input(level, self.levels), torch.ones_like(level)], 1).to(dtype)  # [B,2,h,w]
        maps = clamped_relu(self.map_mid(clamped_relu(self.map_in(known))))
        place = order.cell(codes.shape[2], codes.shape[3], codes.device)
        when = self.steps[:, place]  # [n,h,w]
        mean = log_s = torch.zeros((), device=codes.device)
        for k, network in enumerate(self.step):
            out = network(
                x * (when < k).to(dtype).repeat(2, 1, 1), maps, level[:, 0].long(), place, quality_index
            ).float()
            means, scales = out.chunk(2, 1)  # [B,n,h,w] each
            now = when == k
            mean = torch.where(now, means.clamp(-MEAN_MAX, MEAN_MAX), mean)
            log_s = torch.where(now, log_scale(scales), log_s)
        return mean, log_s
