"""The losses: rate against distortion. All terms are float32."""

import math
from typing import NamedTuple

from torch import Tensor

from ..metrics.distortion import distortion, similarities
from ..networks.config import ModelConfig
from .joint_codec import Outcome
from .recipe import LossRecipe, Stage


class Terms(NamedTuple):
    """Means over a batch, 0-dimensional; `loss` is the one to go backward from."""

    loss: Tensor
    plane_bpp: Tensor
    map_bpp: Tensor
    mse: Tensor  # of values in [0, 1]
    ms_ssim: Tensor


def rate_distortion(
    outcome: Outcome, x: Tensor, quality_index: Tensor, config: ModelConfig, recipe: LossRecipe
) -> Terms:
    """Mean over the batch of weight * (bpp + lambda * distortion).

    Each sample has its own quality index and lambda.
    """
    pixels = x.shape[2] * x.shape[3]
    mse, similarity, distance = distances(outcome.picture, x, quality_index, config)  # [B] each
    plane_bpp, map_bpp = outcome.plane_bits / pixels, outcome.map_bits / pixels  # [B] each
    weight = config.distortion_weight(quality_index.float())  # lambda [B]
    balance = (weight / recipe.pivot) ** -recipe.balance
    loss = (balance * (plane_bpp + map_bpp + weight * distance)).mean()
    return Terms(
        loss,
        plane_bpp.mean().detach(),
        map_bpp.mean().detach(),
        mse.mean().detach(),
        similarity.mean().detach(),
    )


def importance_rate(
    outcome: Outcome,
    x: Tensor,
    quality_index: Tensor,
    config: ModelConfig,
    recipe: LossRecipe,
    stage: Stage,
) -> Terms:
    """The paper's loss (section 3.5): distortion + gamma * max(0, mean(p) - r), and bpp for the entropy networks alone.

    A stage without importance is the first one: nothing but distortion. The rate must come from
    codes that were cut off the graph (`JointCodec.rate_trains_encoder = False`), so that it reaches
    only the entropy networks.
    """
    pixels = x.shape[2] * x.shape[3]
    mse, similarity, distance = distances(outcome.picture, x, quality_index, config)  # [B] each
    plane_bpp, map_bpp = outcome.plane_bits / pixels, outcome.map_bits / pixels  # [B] each
    excess = (outcome.importance.mean((1, 2, 3)) - recipe.importance_target).clamp(min=0)  # [B]
    loss = (
        distance + recipe.importance_weight * excess * stage.importance + plane_bpp + map_bpp
    ).mean()
    return Terms(
        loss,
        plane_bpp.mean().detach(),
        map_bpp.mean().detach(),
        mse.mean().detach(),
        similarity.mean().detach(),
    )


def distances(
    picture: Tensor, x: Tensor, quality_index: Tensor, config: ModelConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """`distortion` with each sample's own shares of the similarities: pictures [B,3,H,W], quality_index [B]."""
    if max(*config.ms_ssim_weight, *config.ssim_weight) == 0:
        return distortion(picture, x, 0.0, 0.0)
    return distortion(picture, x, *config.similarity_weights(quality_index.float()))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale SSIM of [B,C,H,W] in [0,1] -> [B], mean over bands; equal to pytorch-msssim's."""
    return similarities(x, y)[0]


def decibels(mse: float) -> float:
    """PSNR of a mean squared error of values in [0, 1]."""
    return -10 * math.log10(max(mse, 1e-10))
