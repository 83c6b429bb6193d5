"""The whole codec as one differentiable module: what is trained jointly, rate against distortion."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..networks.binarizer import round_through, sign_through
from ..networks.config import ModelConfig
from ..networks.decoder import Decoder
from ..networks.encoder import Encoder
from ..networks.importance import importance_level, mask
from .code_network import ContextNetwork, chosen_codes, logistic_bits, sign_bits
from .map_network import MapNetwork


class Outcome(NamedTuple):
    """One forward pass; bits are per picture, as the entropy model would pay them."""

    picture: Tensor  # [B,3,H,W], not clamped
    plane_bits: Tensor  # [B]
    map_bits: Tensor  # [B]
    level: Tensor  # [B,1,h,w] quantized importance
    importance: Tensor  # [B,1,h,w] p in (0, 1)


class JointCodec(nn.Module):
    """Encoder, successive binarizer (of one threshold or many), importance map, entropy networks and decoder."""

    first_level: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.planes, self.maps = ContextNetwork(config), MapNetwork(config)
        self.register_buffer(
            "first_level", torch.tensor(config.first_level).float(), persistent=False
        )
        self.entropy_dtype = torch.float32
        self.use_importance = True  # False: every code is kept everywhere (the paper's first stage)
        self.rate_trains_encoder = (
            True  # False: bits teach the entropy networks only (the paper's loss)
        )
        self.choose = False  # codes as the coder chooses them, not just rounded
        self.explore = (
            0.0  # share of the pictures whose importance is raised at random, in training
        )

    def forward(self, x: Tensor, quality_index: Tensor) -> Outcome:
        """x [B,3,H,W] in [0,1], quality_index [B] -> Outcome.

        Differentiable in everything that is trained.
        """
        config = self.config
        y, logit = self.encoder(x, quality_index)
        p = torch.sigmoid(logit) if self.use_importance else torch.ones_like(logit)
        opened = self.opened(p)
        kept = mask(opened, self.first_level, config.levels)
        codes = sign_through(y) if config.one_bit else round_through(y)
        # A NaN as an index would be fatal.
        level = importance_level(opened, config.levels).detach().nan_to_num()
        low = torch.autocast(
            x.device.type, dtype=torch.bfloat16, enabled=self.entropy_dtype == torch.bfloat16
        )
        if self.choose:
            with torch.no_grad(), low:
                chosen = chosen_codes(
                    y, *self.planes(codes * kept, level, quality_index, self.entropy_dtype)
                )
            codes = y + (chosen - y).detach()
        picture = self.decoder(codes * kept, quality_index)
        # Noise in place of rounding: the rate is differentiable in y. Without training it is the
        # true one. The rate of signs is differentiable in them, and their proxy function in y.
        noisy = y + torch.rand_like(y) - 0.5 if self.training and not config.one_bit else codes
        seen = (noisy, codes, kept, p)
        if not self.rate_trains_encoder:
            seen = (noisy.detach(), codes.detach(), kept.detach(), p.detach())
        with low:
            plane_bits, bits_of_map = self.bits(*seen, level, quality_index)
        return Outcome(picture, plane_bits, bits_of_map, level, p)

    def opened(self, p: Tensor) -> Tensor:
        """Importance [B,1,h,w] -> the same, but for a share of the pictures raised to a random floor, off the graph.

        A channel that the map closes everywhere stops learning, so nothing would ever pay for
        opening it again: the map starves high qualities. On these pictures the networks learn what
        more channels are good for.
        """
        if self.explore == 0 or not self.training:
            return p
        chosen, floor = torch.rand(2, len(p), 1, 1, 1, device=p.device)
        return torch.where(chosen < self.explore, torch.maximum(p.detach(), floor), p)

    def bits(
        self,
        noisy: Tensor,
        codes: Tensor,
        kept: Tensor,
        p: Tensor,
        level: Tensor,
        quality_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Bits of the codes and of the importance map, [B] each, in float32."""
        mean, log_s = self.planes(codes * kept, level, quality_index, self.entropy_dtype)
        code_bits = sign_bits if self.config.one_bit else logistic_bits
        bits = code_bits(noisy, mean, log_s)
        if (
            self.choose and self.training
        ):  # the chosen codes teach their distribution, the noise teaches the encoder
            noisy_bits = code_bits(noisy, mean.detach(), log_s.detach())
            bits = code_bits(codes.detach(), mean, log_s) + noisy_bits - noisy_bits.detach()
        plane_bits = (bits * kept).sum((1, 2, 3))
        if not self.use_importance:
            return plane_bits, torch.zeros_like(plane_bits)
        own = importance_level(p, self.config.levels).detach().nan_to_num()
        return plane_bits, map_bits(self.maps, p, own, quality_index)


def map_bits(maps: MapNetwork, p: Tensor, level: Tensor, quality_index: Tensor) -> Tensor:
    """Bits of the importance map per picture [B].

    Its gradient in p is the central difference in the level.
    """
    log2_p = maps(level, quality_index).float()  # [B,L,h,w]
    index = level.long()
    here = -log2_p.gather(1, index)
    above = -log2_p.gather(1, (index + 1).clamp(max=maps.levels - 1)).detach()
    below = -log2_p.gather(1, (index - 1).clamp(min=0)).detach()
    slope = ((above - below) / 2).clamp(-4, 4)
    position = p * maps.levels
    return (here + slope * (position - position.detach())).sum((1, 2, 3))
