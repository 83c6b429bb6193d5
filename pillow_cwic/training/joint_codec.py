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
from .proxy_gradients import RAMP_LEVELS, importance_level, mask, round_through, sign_through


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

    def part(self, part: "Part") -> "Latent":
        """Some pictures of the batch, and their first channels."""
        pictures, channels = part
        noisy, codes, kept = (x[pictures, :channels] for x in (self.noisy, self.codes, self.kept))
        return Latent(noisy, codes, kept, self.p[pictures])


class Part(NamedTuple):
    """Pictures of a batch that the entropy model goes through together."""

    pictures: Tensor  # [k] their numbers in the batch
    channels: int  # so many first ones as any of them keeps or could, rounded up to 16


CHANNEL_STEP = 16
"""The order of coding divides the channels by this."""


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
        # Elementwise work that a step may run compiled.
        self.bits_of = sign_bits if config.one_bit else logistic_bits
        self.chosen_of = chosen_codes

    def forward(self, x: Tensor, quality_index: Tensor) -> Outcome:
        """x [B,3,H,W] in [0,1], quality_index [B] -> Outcome.

        Differentiable in everything that is trained.
        """
        # Pixels -> importance.
        config = self.config
        trunk, logit = self.encoder.heads(x, quality_index)  # [B,c,h,w], [B,1,h,w]
        p = torch.sigmoid(logit) if self.use_importance else torch.ones_like(logit)
        raised = self.raise_importance(p)
        # A NaN as an index would be fatal.
        level = importance_level(raised, config.levels).detach().nan_to_num()

        # Features of the first m channels, which hold what any picture of the batch keeps.
        parts = self.parts(raised)
        most = max(part.channels for part in parts)
        kept = mask(raised, self.first_level[:most], config.levels)  # [B,m,h,w]
        y = self.encoder.code_features(trunk, x, quality_index, most)  # [B,m,h,w]

        # Features -> codes -> picture.
        codes = sign_through(y) if config.one_bit else round_through(y)
        autocast = torch.autocast(
            x.device.type, dtype=torch.bfloat16, enabled=self.entropy_dtype == torch.bfloat16
        )
        if self.choose:
            chosen = codes.detach().clone()
            with torch.no_grad(), autocast:
                known = codes * kept
                for pictures, channels in parts:
                    setting = level[pictures], quality_index[pictures], self.entropy_dtype
                    mean, log_s = self.planes(known[pictures, :channels], *setting)
                    features = y[pictures, :channels]
                    chosen[pictures, :channels] = self.chosen_of(features, mean, log_s)
            codes = y + (chosen - y).detach()
        picture = self.decoder(codes * kept, quality_index)

        # Noise in place of rounding: the rate is differentiable in y. Without training it is the
        # true one. The rate of signs is differentiable in them, and their proxy function in y.
        noisy = y + torch.rand_like(y) - 0.5 if self.training and not config.one_bit else codes
        latent = Latent(noisy, codes, kept, p)
        if not self.rate_trains_encoder:
            latent = latent.detach()
        with autocast:
            code_bits = self.code_bits(latent, level, quality_index, parts)
            bits_of_map = self.map_bits(latent.p, quality_index)
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

    def parts(self, p: Tensor) -> list[Part]:
        """The batch in at most two parts, so that few channels without a code are looked at.

        p [B,1,h,w]: importance as it is coded. What is left out has no bits and no gradient: its
        mask is 0, its proxy flat. On a GPU the whole batch: its work must not depend on values.
        """
        batch = len(p)
        if p.device.type == "cuda":
            return [Part(torch.arange(batch, device=p.device), self.config.channels)]
        highest = p.detach().flatten(1).amax(1, keepdim=True).nan_to_num(1) * self.config.levels
        needed = (self.first_level < highest + RAMP_LEVELS / 2).sum(1)  # [B]
        counts = (-(-needed // CHANNEL_STEP) * CHANNEL_STEP).clamp(CHANNEL_STEP)
        counts, pictures = counts.sort()
        most = counts.tolist()
        split = min(range(batch), key=lambda k: k * most[k - 1] + (batch - k) * most[-1])
        parts = Part(pictures[:split], most[split - 1]), Part(pictures[split:], most[-1])
        return [part for part in parts if len(part.pictures)]

    def code_bits(
        self, latent: Latent, level: Tensor, quality_index: Tensor, parts: list[Part]
    ) -> Tensor:
        """Bits of the codes, [B] in float32.

        level [B,1,h,w]: what the context network sees of the map; quality_index [B]; parts: all of
        the batch.
        """
        sums = []
        for part in parts:
            noisy, codes, kept, _ = latent.part(part)
            setting = level[part.pictures], quality_index[part.pictures], self.entropy_dtype
            mean, log_s = self.planes(codes * kept, *setting)
            if self.choose and self.training:
                # The chosen codes teach their distribution, the noise teaches the encoder.
                noisy_bits = self.bits_of(noisy, mean.detach(), log_s.detach())
                bits = self.bits_of(codes.detach(), mean, log_s) + noisy_bits - noisy_bits.detach()
            else:
                bits = self.bits_of(noisy, mean, log_s)  # of all codes, kept or not [k,m,h,w]
            sums.append((bits * kept).sum((1, 2, 3)))
        order = torch.cat([part.pictures for part in parts]).argsort()
        return torch.cat(sums)[order]

    def map_bits(self, p: Tensor, quality_index: Tensor) -> Tensor:
        """Bits [B] of the importance map p [B,1,h,w], charged as the encoder made it."""
        if not self.use_importance:
            return p.new_zeros(len(p))
        own_level = importance_level(p, self.config.levels).detach().nan_to_num()
        return map_bits(self.maps, p, own_level, quality_index)


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
