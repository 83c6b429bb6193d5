"""The losses: rate against distortion, and the paper's own.

Invariant: all terms are float32. This module knows what a forward pass gave, not which networks
made it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..networks.config import ModelConfig
from .distortion import distortion, similarities
from .joint_codec import Outcome
from .recipe import LossRecipe, Stage

Measure = Callable[[Tensor, Tensor, Tensor, ModelConfig], tuple[Tensor, Tensor, Tensor]]
"""What `distances` is."""


MAP_WEIGHT = 3.0
"""What the map's bits count more at the lowest quality; nothing more above `MAP_WEIGHT_END`.

A map costs as much for a hint that saves little as for one that saves much. At low qualities its
hints are small, and learning from a proxy gradient it does not see that they are not worth it.
"""

MAP_WEIGHT_END = 0.35
"""Share of the quality indices, from the lowest on, at which the map's bits count more."""


class Terms(NamedTuple):
    """Means over a batch, 0-dimensional; `loss` is the one to go backward from."""

    loss: Tensor
    code_bpp: Tensor
    map_bpp: Tensor
    mse: Tensor  # of values in [0, 1]
    ms_ssim: Tensor


def distances(
    picture: Tensor, x: Tensor, quality_index: Tensor, config: ModelConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """`distortion` with each sample's own shares of the similarities.

    Two pictures [B,3,H,W] in [0,1], quality_index [B] -> MSE, MS-SSIM and distortion, [B] each.
    """
    if max(*config.ms_ssim_weight, *config.ssim_weight) == 0:
        return distortion(picture, x, 0.0, 0.0)
    return distortion(picture, x, *config.similarity_weights(quality_index.float()))


def rate_distortion(
    outcome: Outcome,
    x: Tensor,
    quality_index: Tensor,
    config: ModelConfig,
    recipe: LossRecipe,
    *,
    measure: Measure = distances,
) -> Terms:
    """Mean over the batch of weight * (bpp + lambda * distortion).

    At low qualities the map's bits count more than the codes', see MAP_WEIGHT.
    x [B,3,H,W] in [0,1], quality_index [B]: each sample has its own quality and lambda. measure:
    `distances`, or the same compiled.
    """
    mse, similarity, distance = measure(outcome.picture, x, quality_index, config)  # [B] each
    code_bpp, map_bpp = rates(outcome, x)  # [B] each
    weight = config.distortion_weight(quality_index.float())  # lambda [B]
    balance = (weight / recipe.pivot) ** -recipe.balance
    low = (1 - quality_index / (MAP_WEIGHT_END * config.quality_count)).clamp(0)  # [B]
    loss = (balance * (code_bpp + (1 + MAP_WEIGHT * low) * map_bpp + weight * distance)).mean()
    return Terms(loss, *(mean_of(values) for values in (code_bpp, map_bpp, mse, similarity)))


def importance_rate(
    outcome: Outcome,
    x: Tensor,
    quality_index: Tensor,
    config: ModelConfig,
    recipe: LossRecipe,
    *,
    stage: Stage,
    measure: Measure = distances,
) -> Terms:
    """The paper's loss (section 3.5): distortion + gamma * max(0, mean(p) - r).

    The bits teach the entropy networks alone: they must come from codes that were cut off the graph
    (`JointCodec.rate_trains_encoder = False`). A stage without importance is the paper's first one:
    nothing but distortion. x [B,3,H,W] in [0,1], quality_index [B]. measure: as above.
    """
    mse, similarity, distance = measure(outcome.picture, x, quality_index, config)  # [B] each
    code_bpp, map_bpp = rates(outcome, x)  # [B] each
    excess = (outcome.importance.mean((1, 2, 3)) - recipe.importance_target).clamp(min=0)  # [B]
    loss = (
        distance + recipe.importance_weight * excess * stage.importance + code_bpp + map_bpp
    ).mean()
    return Terms(loss, *(mean_of(values) for values in (code_bpp, map_bpp, mse, similarity)))


def rates(outcome: Outcome, x: Tensor) -> tuple[Tensor, Tensor]:
    """Bits per pixel [B] of the codes and of the importance map, for pictures x [B,3,H,W]."""
    pixels = x.shape[2] * x.shape[3]
    return outcome.code_bits / pixels, outcome.map_bits / pixels


def mean_of(values: Tensor) -> Tensor:
    """[B] -> the mean, off the graph: for people."""
    return values.mean().detach()


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale SSIM of [B,3,H,W] in [0,1] -> [B], mean over bands; equal to pytorch-msssim's."""
    return similarities(x, y)[0]


def decibels(mse: float) -> float:
    """PSNR of a mean squared error of values in [0, 1]."""
    return math.nan if math.isnan(mse) else -10 * math.log10(max(mse, 1e-10))
