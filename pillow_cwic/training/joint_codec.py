"""The whole codec as one differentiable module: what is trained jointly, rate against distortion.

Invariant: a forward pass in evaluation is what encoder and decoder do, and its bits are what the
entropy coder would pay. The names `encoder`, `decoder`, `planes` and `maps` are prefixes of tensor
names in checkpoints and of `train = [...]` in recipes. This module knows no losses and no data.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..networks.config import ModelConfig
from ..networks.torch_network import Decoder, Encoder
from .code_network import ContextNetwork, chosen_codes, logistic_bits, sign_bits
from .map_network import MapNetwork
from .proxy_gradients import importance_level, mask, round_through, sign_through


class Outcome(NamedTuple):
    """One forward pass; bits are per picture, as the entropy model would pay them."""

    picture: Tensor  # [B,3,H,W], not clamped
    code_bits: Tensor  # [B]
    map_bits: Tensor  # [B]
    level: Tensor  # [B,1,h,w] quantized importance
    importance: Tensor  # [B,1,h,w] p in (0, 1)


class Latent(NamedTuple):
    """What a picture is coded as, and what its rate is differentiated by."""

    noisy: Tensor  # [B,n,h,w] codes with noise in place of rounding
    codes: Tensor  # [B,n,h,w] rounded or chosen
    kept: Tensor  # [B,n,h,w] 1 where the importance map keeps a code
    p: Tensor  # [B,1,h,w] importance in (0, 1)

    def detach(self) -> "Latent":
        """The same, off the graph."""
        return Latent(*(tensor.detach() for tensor in self))


class JointCodec(nn.Module):
    """Encoder, binarizer (one threshold or many), importance map, entropy networks, decoder."""

    first_level: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # In this order: each draws its first weights.
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.planes = ContextNetwork(config)
        self.maps = MapNetwork(config)
        first_level = torch.tensor(config.first_level).float()
        self.register_buffer("first_level", first_level, persistent=False)

        # What the recipe and its stages set.
        self.entropy_dtype = torch.float32
        self.use_importance = True  # False: every code is kept everywhere (the paper's first stage)
        self.rate_trains_encoder = True  # False: bits teach the entropy networks only (the paper)
        self.choose = False  # codes as the coder chooses them, not just rounded
        self.explore = 0.0  # share of the pictures whose importance is raised at random

    def forward(self, x: Tensor, quality_index: Tensor) -> Outcome:
        """x [B,3,H,W] in [0,1], quality_index [B] -> Outcome.

        Differentiable in everything that is trained.
        """
        # Pixels -> features and importance.
        config = self.config
        y, logit = self.encoder(x, quality_index)  # [B,n,h,w], [B,1,h,w]
        p = torch.sigmoid(logit) if self.use_importance else torch.ones_like(logit)
        raised = self.raise_importance(p)
        kept = mask(raised, self.first_level, config.levels)  # [B,n,h,w]
        # A NaN as an index would be fatal.
        level = importance_level(raised, config.levels).detach().nan_to_num()

        # Features -> codes -> picture.
        codes = sign_through(y) if config.one_bit else round_through(y)
        autocast = torch.autocast(
            x.device.type, dtype=torch.bfloat16, enabled=self.entropy_dtype == torch.bfloat16
        )
        if self.choose:
            with torch.no_grad(), autocast:
                mean, log_s = self.planes(codes * kept, level, quality_index, self.entropy_dtype)
                chosen = chosen_codes(y, mean, log_s)
            codes = y + (chosen - y).detach()
        picture = self.decoder(codes * kept, quality_index)

        # Noise in place of rounding: the rate is differentiable in y. Without training it is the
        # true one. The rate of signs is differentiable in them, and their proxy function in y.
        noisy = y + torch.rand_like(y) - 0.5 if self.training and not config.one_bit else codes
        latent = Latent(noisy, codes, kept, p)
        if not self.rate_trains_encoder:
            latent = latent.detach()
        with autocast:
            code_bits, bits_of_map = self.bits(latent, level, quality_index)
        return Outcome(picture, code_bits, bits_of_map, level, p)

    def raise_importance(self, p: Tensor) -> Tensor:
        """In training, for a share of the pictures: p [B,1,h,w] raised to a random floor.

        The floor is off the graph. A channel that the map closes everywhere stops learning, so
        nothing would ever pay for opening it again: the map starves high qualities. On these
        pictures the networks learn what more channels are good for.
        """
        if self.explore == 0 or not self.training:
            return p
        chosen, floor = torch.rand(2, len(p), 1, 1, 1, device=p.device)
        return torch.where(chosen < self.explore, torch.maximum(p.detach(), floor), p)

    def bits(self, latent: Latent, level: Tensor, quality_index: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the codes and of the importance map, [B] each, in float32.

        level [B,1,h,w]: what the context network sees of the map; quality_index [B].
        """
        # Of all codes, whether kept or not [B,n,h,w].
        noisy, codes, kept, p = latent
        mean, log_s = self.planes(codes * kept, level, quality_index, self.entropy_dtype)
        bits_of = sign_bits if self.config.one_bit else logistic_bits
        bits = bits_of(noisy, mean, log_s)
        if self.choose and self.training:
            # The chosen codes teach their distribution, the noise teaches the encoder.
            noisy_bits = bits_of(noisy, mean.detach(), log_s.detach())
            bits = bits_of(codes.detach(), mean, log_s) + noisy_bits - noisy_bits.detach()

        # The map is charged as the encoder made it, not as it was raised.
        code_bits = (bits * kept).sum((1, 2, 3))
        if not self.use_importance:
            return code_bits, torch.zeros_like(code_bits)
        own_level = importance_level(p, self.config.levels).detach().nan_to_num()
        return code_bits, map_bits(self.maps, p, own_level, quality_index)


def map_bits(maps: MapNetwork, p: Tensor, level: Tensor, quality_index: Tensor) -> Tensor:
    """Bits [B] of the importance map p [B,1,h,w], whose levels are given.

    Its gradient in p is the central difference in the level.
    """
    log2_p = maps(level, quality_index).float()  # [B,levels,h,w]
    index = level.long()
    bits = -log2_p.gather(1, index)  # [B,1,h,w]
    bits_above = -log2_p.gather(1, (index + 1).clamp(max=maps.levels - 1)).detach()
    bits_below = -log2_p.gather(1, (index - 1).clamp(min=0)).detach()
    slope = ((bits_above - bits_below) / 2).clamp(-4, 4)
    position = p * maps.levels
    return (bits + slope * (position - position.detach())).sum((1, 2, 3))
