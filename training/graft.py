"""Weights for `recipes/middle.toml` to start from: the trunk of a one-bit model, and new layers at 1/16 fitted between.

    python training/graft.py pillow_cwic/data/onebit-0.safetensors middle graft.safetensors --data photos.tar

Blocks at 1/4 and 1/8 are copied. The 192 codes at 1/16 become principal components of what the one-bit decoder makes of
its codes; the encoder predicts them by ridge regression from its features at 1/8. A start, not a model: before training
it spends 3 bits per pixel on 27 dB.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from pillow_cwic.config import ModelConfig, SuccessiveConfig
from pillow_cwic.importance import mask
from pillow_cwic.networks import Decoder, Encoder, QualityModulation
from pillow_cwic.training import pictures, recipe

QUALITY = 60  # the quality index whose modulations are folded into weights: most planes are open there
CROP, CROPS = 384, 210
SHARPNESS = 3.0  # of the tanh that stands for the sign, so that components are smooth functions of the picture
NOISE = 1 / 120  # share of the components' variance that rounding may take at the middle quality
FIRST_GAIN = 4.0  # of the successive codec before training

COPIED = ("encoder.stem", "encoder.quarter", "encoder.eighth", "decoder.eighth", "decoder.quarter", "decoder.out")


class OneBit(NamedTuple):
    """The model that is taken apart."""

    tensors: dict[str, Tensor]
    encoder: Encoder
    decoder: Decoder
    config: ModelConfig


class Fit(NamedTuple):
    """Codes at 1/16: n components of 4c features, and how features [4x4 patch] predict them."""

    components: Tensor  # [4c,n], orthonormal
    mean: Tensor  # [4c]
    patch: Tensor  # [n,c,4,4]
    bias: Tensor  # [n]
    step: Tensor  # component units per step of a code with gain 1


def read(path: Path) -> OneBit:
    """Load a one-bit weights file of the default configuration."""
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    config = ModelConfig()
    encoder, decoder = Encoder(config).eval(), Decoder(config).eval()
    for prefix, module in (("encoder.", encoder), ("decoder.", decoder)):
        own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        module.load_state_dict(own)
    return OneBit(tensors, encoder, decoder, config)


def crops(sources: list[str]) -> Tensor:
    """Random crops of random pictures, float [CROPS,3,CROP,CROP] in [0,1]."""
    chance = random.Random(0)
    usable, _ = pictures.survey(pictures.find(sources), CROP, 1)
    chosen = chance.sample(usable, min(len(usable), CROPS // 3))
    cut = []
    for _, pixels in pictures.decode_all(chosen, 1):
        if isinstance(pixels, str):
            continue
        for _ in range(3):
            top, left = (chance.randint(0, side - CROP) for side in pixels.shape[:2])
            cut.append(pixels[top : top + CROP, left : left + CROP])
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255


def features(model: OneBit, x: Tensor) -> tuple[Tensor, Tensor]:
    """x [b,3,H,W] -> [b,c,H/8,W/8] each: the encoder's features, what the decoder's stem makes of soft codes."""
    quality = torch.full((len(x),), QUALITY)
    encoder = model.encoder
    h = encoder.eighth(encoder.quality_in(encoder.features(x), quality))
    out = encoder.quality_out(h, quality)
    p = torch.sigmoid(encoder.quality_importance(encoder.importance(out), quality))
    kept = mask(p, model.config.first_level, model.config.levels)
    return h, model.decoder.stem(torch.tanh(encoder.codes(out) * SHARPNESS) * kept)


def fit(model: OneBit, x: Tensor, n: int) -> Fit:
    """Principal components of the decoder's features in 2x2 cells, and their prediction from the encoder's."""
    pairs = [features(model, batch) for batch in x.split(4)]
    source = torch.cat([h for h, _ in pairs])
    target = F.pixel_unshuffle(torch.cat([t for _, t in pairs]), 2).permute(0, 2, 3, 1).flatten(1, 2)  # [b,hw,4c]
    mean = target.mean((0, 1))
    target = target - mean
    flat = target.flatten(0, 1)
    values, vectors = torch.linalg.eigh(flat.t() @ flat / len(flat))
    values, components = values.flip(0)[:n], vectors.flip(1)[:, :n]
    size = source.shape[1] * 16 + 1
    square, right = torch.zeros(size, size), torch.zeros(size, n)
    for h, t in zip(source, target, strict=True):
        patches = F.unfold(h[None], 4, padding=1, stride=2)[0].t()  # [hw,16c]
        patches = torch.cat([patches, torch.ones(len(patches), 1)], 1)
        square += patches.t() @ patches
        right += patches.t() @ (t @ components)
    square += torch.eye(size) * square.diagonal().mean() * 1e-3
    solved = torch.linalg.solve(square, right)  # [16c+1,n]
    step = FIRST_GAIN * (12 * NOISE * values.sum() / n).sqrt()
    return Fit(components, mean, solved[:-1].t().unflatten(1, (-1, 4, 4)), solved[-1], step)


def film(modulation: QualityModulation) -> tuple[Tensor, Tensor]:
    """Scale and shift [c] of a modulation at QUALITY."""
    channels = modulation.out.out_features // 2
    ends = torch.stack([torch.zeros(channels), torch.ones(channels)])[:, :, None, None]
    shift, both = modulation(ends, torch.full((2,), QUALITY)).flatten(1)
    return both - shift, shift


def embedded(rows: int, columns: int) -> Tensor:
    """A 3x3 convolution that hands on what it can, [rows,columns,3,3]."""
    weight = torch.zeros(rows, columns, 3, 3)
    weight[..., 1, 1] = torch.eye(rows, columns)
    return weight


def graft(model: OneBit, found: Fit, config: SuccessiveConfig) -> dict[str, Tensor]:
    """All tensors of the successive codec that do not start at random."""
    n, width, tensors = config.planes, config.sixteenth_channels, model.tensors
    new = {name: tensor for name, tensor in tensors.items() if name.startswith(COPIED)}
    scale, shift = film(model.encoder.quality_in)
    for old, name in (("down", "down_eighth"), ("shortcut", "shortcut_eighth")):
        new[f"encoder.{name}.weight"] = tensors[f"encoder.{old}.weight"] * scale[:, None, None, None]
        new[f"encoder.{name}.bias"] = tensors[f"encoder.{old}.bias"] * scale
    new["encoder.down_eighth.bias"] += shift
    new["encoder.down.weight"] = torch.randn(width, *found.patch.shape[1:]) * 0.01
    new["encoder.down.weight"][:n] = found.patch / found.step
    new["encoder.down.bias"] = F.pad(found.bias / found.step, (0, width - n))
    new["encoder.codes.weight"] = embedded(n, width)
    new["decoder.stem.weight"] = embedded(width, n)
    new["decoder.stem.weight"][n:] = torch.randn(width - n, n, 3, 3) * 0.01
    new["encoder.shortcut.bias"], new["encoder.codes.bias"] = torch.zeros(n), torch.zeros(n)
    new["decoder.stem.bias"] = torch.zeros(width)
    new["encoder.shortcut.weight"] = torch.zeros(n, 3 * config.grid**2, 1, 1)
    for side, blocks in (("encoder", config.encoder_blocks), ("decoder", config.decoder_blocks)):
        for block in range(blocks[2]):
            new[f"{side}.sixteenth.{block}.expand.weight"] = torch.zeros(width, width // 2, 1, 1)
    return new | back(model, found, width)


def back(model: OneBit, found: Fit, width: int) -> dict[str, Tensor]:
    """From codes to the one-bit decoder's trunk, and its linear shortcuts."""
    tensors, decoder = model.tensors, model.decoder
    scale, shift = film(decoder.quality_in)
    cells, shifts = scale.repeat_interleave(4), shift.repeat_interleave(4)
    out = found.components * found.step  # [4c,n]
    new = {
        "decoder.up_eighth.weight": F.pad(out * cells[:, None], (0, width - out.shape[1]))[:, :, None, None],
        "decoder.up_eighth.bias": found.mean * cells + shifts,
    }
    linear = tensors["decoder.shortcut_in.weight"][:, :, 0, 0]  # [192,c] to 3 x 8 x 8 pixels
    cell = torch.zeros(3, 2, 8, 2, 8, len(scale), 2, 2)  # pixels of a 2x2 cell from its 4c features
    for row in range(2):
        for column in range(2):
            cell[:, row, :, column, :, :, row, column] = (linear * scale).view(3, 8, 8, -1)
    whole = cell.reshape(768, -1)
    offset = (linear @ shift + tensors["decoder.shortcut_in.bias"]).view(3, 1, 8, 1, 8).expand(3, 2, 8, 2, 8)
    new["decoder.shortcut.weight"] = (whole @ out)[:, :, None, None]
    new["decoder.shortcut.bias"] = whole @ found.mean + offset.reshape(-1)
    scale, shift = film(decoder.quality_out)
    for old, name in (("up", "up"), ("shortcut_out", "shortcut_eighth")):
        weight = tensors[f"decoder.{old}.weight"]
        new[f"decoder.{name}.weight"] = weight * scale[None, :, None, None]
        new[f"decoder.{name}.bias"] = tensors[f"decoder.{old}.bias"] + weight[:, :, 0, 0] @ shift
    return new


@torch.no_grad()
def main() -> int:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    options.add_argument("onebit", type=Path, help="the one-bit weights file")
    options.add_argument("recipe", help="the recipe whose model is to start from it")
    options.add_argument("out", type=Path)
    options.add_argument("--data", nargs="+", required=True, help="training pictures")
    given = options.parse_args()
    torch.manual_seed(0)
    config = recipe.load(given.recipe).model
    if not isinstance(config, SuccessiveConfig) or config.sixteenth_channels < config.planes:
        raise SystemExit(
            "graft: the recipe's model must be successive, with at least as many channels as codes at 1/16"
        )
    model = read(given.onebit)
    grafted = graft(model, fit(model, crops(given.data), config.planes), config)
    save_file({name: tensor.contiguous() for name, tensor in grafted.items()}, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
