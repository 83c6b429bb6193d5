"""Give a trained model more channels of codes: a wider model that decodes what it did.

    python training/widen.py WEIGHTS.safetensors RECIPE.toml OUT.safetensors --data TAR [TAR...]

WEIGHTS are a run's `weights.safetensors` and RECIPE the wider model's; both models may differ in
`kept_planes` alone. The new channels stand behind the old ones. They are linear at first, and
chosen so that they explain as much as linear channels can of what the narrower model leaves over at
its highest quality: a reduced-rank regression of its error on 16x16 blocks of pixels. Everything
else about them is silent. Training goes on from there with `--from OUT.safetensors`.
"""

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.crops import Source, load_pool, open_data
from pillow_cwic.training.initial import OUTPUTS_PER_LOG, blocks_of
from pillow_cwic.training.joint_codec import JointCodec

LAST = 32
"""So many of the narrower model's last channels are the pattern of the new ones' gains."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--blocks", type=int, default=60_000)
    options = parser.parse_args()

    # The narrower model as it is, the wider one as it will be.
    recipe = recipes.load(options.recipe)
    weights = {name: tensor.float() for name, tensor in load_file(options.weights).items()}
    narrow = JointCodec(narrow_config(recipe.model, weights)).eval()
    wide = JointCodec(recipe.model).eval()
    narrow.load_state_dict(weights)

    # Pictures show what the narrower one leaves over.
    torch.manual_seed(recipe.seed)
    data = open_data(options.data, recipe.data, 2)
    pool, _ = load_pool(data.train, recipe.data, torch.device("cpu"), 2)
    wide.load_state_dict(embed(narrow, wide))
    print(fit(narrow, wide, *collect(narrow, pool, options.blocks)))
    weights = {name: tensor.half().contiguous() for name, tensor in wide.state_dict().items()}
    save_file(weights, options.out)


def narrow_config(wide: ModelConfig, weights: dict[str, Tensor]) -> ModelConfig:
    """The narrower model's configuration.

    Only the number of channels matters here, as the map is left alone.
    """
    channels = len(weights["encoder.shortcut.weight"])
    kept = [min(count, channels - wide.levels + q + 1) for q, count in enumerate(wide.kept_planes)]
    return ModelConfig(**wide.__dict__ | {"kept_planes": (*kept[:-1], channels)})


def embed(narrow: JointCodec, wide: JointCodec) -> dict[str, Tensor]:
    """The narrower model's weights at their places in the wider one, and 0 for the new channels."""
    n = narrow.config.channels
    m = wide.config.channels
    old = narrow.state_dict()
    new = wide.state_dict()
    # Inputs are codes and multiples of COARSE, outputs means and scales.
    pairs = torch.cat([torch.arange(n), torch.arange(n) + m])

    for name, tensor in new.items():
        source = old[name]
        if source.shape == tensor.shape:
            tensor.copy_(source)
            continue
        index = pairs if ".out." in name or ".known." in name else torch.arange(n)
        axis = next(k for k in range(tensor.dim()) if tensor.shape[k] != source.shape[k])
        tensor.zero_().index_copy_(axis, index, source)
    return new


@torch.no_grad()
def collect(narrow: JointCodec, pool: Source, count: int) -> tuple[Tensor, Tensor]:
    """Blocks of pixels in [-1, 1] and the narrower model's error in them, both [count,768]."""
    blocks = []
    errors = []
    narrow.use_importance = False  # all channels everywhere
    while sum(map(len, blocks)) < count:
        x = pool.draw()
        best = torch.full((len(x),), narrow.config.quality_count - 1)
        error = 2 * (x - narrow(x, best).picture.clamp(0, 1))
        blocks.append(blocks_of(2 * x - 1))
        errors.append(blocks_of(error))
    return torch.cat(blocks).double(), torch.cat(errors).double()


@torch.no_grad()
def fit(narrow: JointCodec, wide: JointCodec, blocks: Tensor, errors: Tensor) -> str:
    """Set up the new channels of `wide`; says how much of the error they can take away."""
    n = narrow.config.channels
    added = wide.config.channels - n

    # Errors ~ x @ predict; the directions in which that explains most of them.
    mean = blocks.mean(0)
    x = blocks - mean
    covariance = x.t() @ x / len(x)
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=x.dtype)
    predict = torch.linalg.solve(covariance + ridge, x.t() @ errors / len(x))  # [768,768]
    explained = predict.t() @ covariance @ predict
    directions = torch.linalg.eigh(explained)[1].flip(1)[:, :added]  # [768,added]
    analysis = predict @ directions

    # In the unit of the narrower model's last channels, with their gains.
    columns = narrow.decoder.shortcut.weight[:, -LAST:, 0, 0]
    unit = float(columns.norm(dim=0).mean())
    wide.encoder.shortcut.weight[n:] = (analysis.t() / unit).float()[:, :, None, None]
    wide.encoder.shortcut.bias[n:] = (-(mean @ analysis) / unit).float()  # type: ignore[index]
    wide.decoder.shortcut.weight[:, n:] = (directions * unit).float()[:, :, None, None]
    for network, pattern in ((wide.encoder, narrow.encoder), (wide.decoder, narrow.decoder)):
        network.gain.coefficients[:, n:] = pattern.gain.coefficients[:, -LAST:].mean(
            1, keepdim=True
        )

    # Distributions are taken over from the last four channels, by how the new ones spread.
    spreads = (x @ analysis).abs().mean(0) / unit
    pattern_weight = narrow.encoder.shortcut.weight[-4:, :, 0, 0]
    own = (x.float() @ pattern_weight.t()).abs().mean(0)
    for step, source in zip(wide.planes.step, narrow.planes.step, strict=True):
        start_scales(step.out, source.out, spreads, own)  # type: ignore[arg-type]
    remaining = (errors - x @ analysis @ directions.t()).square().mean()
    return (
        f"mean squared error {errors.square().mean() / 4 * 255**2:.2f}, with {added} more "
        f"{remaining / 4 * 255**2:.2f}"
    )


def start_scales(
    out: torch.nn.Conv2d, source: torch.nn.Conv2d, spreads: Tensor, own: Tensor
) -> None:
    """New channels' scales as the last four's, by how much wider or narrower they spread.

    Their means stay 0.
    """
    new = len(spreads)
    groups = new // 4
    out.weight[-new:] = source.weight[-4:].repeat(groups, 1, 1, 1)
    out.bias[-new:] = source.bias[-4:].repeat(groups)  # type: ignore[index]
    out.bias[-new:] += (spreads / own.repeat(groups)).log().float() * OUTPUTS_PER_LOG  # type: ignore[index]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
