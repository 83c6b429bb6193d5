"""The whole codec as one differentiable module: what is trained jointly, rate against distortion."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..binarizer import signs
from ..config import ModelConfig
from ..entropy_networks import MapNetwork, PlaneNetwork
from ..importance import mask, quantize
from ..networks import Decoder, Encoder


class Outcome(NamedTuple):
    """One forward pass; bits are per picture, as the entropy model would pay them."""

    picture: Tensor  # [B,3,H,W], not clamped
    plane_bits: Tensor  # [B]
    map_bits: Tensor  # [B]
    level: Tensor  # [B,1,h,w] quantized importance
    importance: Tensor  # [B,1,h,w] p in (0, 1)


class JointCodec(nn.Module):
    """Encoder, binarizer, importance map, entropy networks and decoder."""

    first_level: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.planes, self.maps = PlaneNetwork(config), MapNetwork(config)
        self.register_buffer("first_level", torch.tensor(config.first_level).float(), persistent=False)
        self.entropy_dtype = torch.float32
        self.use_importance = True  # False: every plane is kept everywhere (the paper's first stage)
        self.rate_trains_encoder = True  # False: bits teach the entropy networks only (the paper's loss)

    def forward(self, x: Tensor, quality_index: Tensor) -> Outcome:
        """x [B,3,H,W] in [0,1], quality_index [B] -> Outcome; differentiable in everything that is trained."""
        config = self.config
        features, logit = self.encoder(x, quality_index)
        p = torch.sigmoid(logit) if self.use_importance else torch.ones_like(logit)
        sign = signs(features)
        kept = mask(p, self.first_level, config.levels)
        picture = self.decoder(sign * kept, quality_index)
        level = quantize(p, config.levels).detach().nan_to_num()  # as an index NaN would be fatal, not just skipped
        seen = (sign, kept, p) if self.rate_trains_encoder else (sign.detach(), kept.detach(), p.detach())
        low = self.entropy_dtype == torch.bfloat16
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=low):
            plane_bits, bits_of_map = self.bits(*seen, level, quality_index)
        return Outcome(picture, plane_bits, bits_of_map, level, p)

    def bits(
        self, sign: Tensor, kept: Tensor, p: Tensor, level: Tensor, quality_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bits of the code planes and of the importance map, [B] each, in float32."""
        logits = self.planes(sign * kept, level, quality_index, self.entropy_dtype)  # codes in {-1,0,1}
        cost = F.softplus(-logits * sign) / math.log(2)  # [B,n,h,w], differentiable in the sign too
        plane_bits = (cost * kept).sum((1, 2, 3))
        if not self.use_importance:
            return plane_bits, torch.zeros_like(plane_bits)
        return plane_bits, map_bits(self.maps, p, level, quality_index)


def map_bits(maps: MapNetwork, p: Tensor, level: Tensor, quality_index: Tensor) -> Tensor:
    """Bits of the importance map per picture [B]; its gradient in p is the central difference in the level."""
    log2_p = maps(level, quality_index).float()  # [B,L,h,w]
    index = level.long()
    here = -log2_p.gather(1, index)
    above = -log2_p.gather(1, (index + 1).clamp(max=maps.levels - 1)).detach()
    below = -log2_p.gather(1, (index - 1).clamp(min=0)).detach()
    slope = ((above - below) / 2).clamp(-4, 4)
    position = p * maps.levels
    return (here + slope * (position - position.detach())).sum((1, 2, 3))
