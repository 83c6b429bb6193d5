"""Give a trained model more channels of codes: the start of a wider one that decodes what the narrower one did.

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
"""The last so many channels of the narrower model are the pattern for the new ones' gains and step sizes."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--blocks", type=int, default=60_000)
    options = parser.parse_args()
    recipe = recipes.load(options.recipe)
    given = {name: tensor.float() for name, tensor in load_file(options.weights).items()}
    narrow, wide = JointCodec(narrower(recipe.model, given)).eval(), JointCodec(recipe.model).eval()
    narrow.load_state_dict(given)
    torch.manual_seed(recipe.seed)
    pool, _ = load_pool(
        open_data(options.data, recipe.data, 2).train, recipe.data, torch.device("cpu"), 2
    )
    wide.load_state_dict(embedded(narrow, wide))
    print(fit(narrow, wide, *collect(narrow, pool, options.blocks)))
    weights = {name: tensor.half().contiguous() for name, tensor in wide.state_dict().items()}
    save_file(weights, options.out)


def narrower(wide: ModelConfig, given: dict[str, Tensor]) -> ModelConfig:
    """The narrower model's configuration: only the number of channels matters here, as the map is left alone."""
    channels = len(given["encoder.shortcut.weight"])
    kept = [min(count, channels - wide.levels + q + 1) for q, count in enumerate(wide.kept_planes)]
    return ModelConfig(**wide.__dict__ | {"kept_planes": (*kept[:-1], channels)})


def embedded(narrow: JointCodec, wide: JointCodec) -> dict[str, Tensor]:
    """The narrower model's weights at their places in the wider one, and 0 for the new channels."""
    n, m = narrow.config.channels, wide.config.channels
    old, rest = narrow.state_dict(), wide.state_dict()
    both = torch.cat(
        [torch.arange(n), torch.arange(n) + m]
    )  # codes and multiples of COARSE; means and scales
    for name, tensor in rest.items():
        source = old[name]
        if source.shape == tensor.shape:
            tensor.copy_(source)
            continue
        index = both if ".out." in name or ".known." in name else torch.arange(n)
        axis = next(k for k in range(tensor.dim()) if tensor.shape[k] != source.shape[k])
        tensor.zero_().index_copy_(axis, index, source)
    return rest


@torch.no_grad()
def collect(narrow: JointCodec, pool: Source, count: int) -> tuple[Tensor, Tensor]:
    """Blocks of pixels and the narrower model's error in them, both [count,768] of values in [-1, 1]."""
    blocks, errors = [], []
    narrow.use_importance = False  # all channels everywhere
    while sum(map(len, blocks)) < count:
        x = pool.draw()
        best = torch.full((len(x),), narrow.config.quality_count - 1)
        left = 2 * (x - narrow(x, best).picture.clamp(0, 1))
        for into, values in ((blocks, 2 * x - 1), (errors, left)):
            into.append(blocks_of(values))
    return torch.cat(blocks).double(), torch.cat(errors).double()


@torch.no_grad()
def fit(narrow: JointCodec, wide: JointCodec, blocks: Tensor, errors: Tensor) -> str:
    """Set up the new channels of `wide`; says how much of the error they can take away."""
    n, m = narrow.config.channels, wide.config.channels
    mean = blocks.mean(0)
    x = blocks - mean
    covariance = x.t() @ x / len(x)
    ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=x.dtype)
    predict = torch.linalg.solve(
        covariance + ridge, x.t() @ errors / len(x)
    )  # [768,768]: errors ~ x @ predict
    directions = torch.linalg.eigh(predict.t() @ covariance @ predict)[1].flip(1)[
        :, : m - n
    ]  # [768,m-n]
    analysis = predict @ directions
    columns = narrow.decoder.shortcut.weight[:, -LAST:, 0, 0]
    unit = float(columns.norm(dim=0).mean())
    wide.encoder.shortcut.weight[n:] = (analysis.t() / unit).float()[:, :, None, None]
    wide.encoder.shortcut.bias[n:] = (-(mean @ analysis) / unit).float()  # type: ignore[index]
    wide.decoder.shortcut.weight[:, n:] = (directions * unit).float()[:, :, None, None]
    for part, pattern in ((wide.encoder, narrow.encoder), (wide.decoder, narrow.decoder)):
        part.gain.coefficients[:, n:] = pattern.gain.coefficients[:, -LAST:].mean(1, keepdim=True)
    spreads = (x @ analysis).abs().mean(0) / unit
    old = narrow.encoder.shortcut
    # Of the channels whose distributions are taken over.
    own = (x.float() @ old.weight[-4:, :, 0, 0].t()).abs().mean(0)
    for step, source in zip(wide.planes.step, narrow.planes.step, strict=True):
        start_scales(step.out, source.out, spreads, own)  # type: ignore[arg-type]
    left = (errors - x @ analysis @ directions.t()).square().mean()
    return (
        f"mean squared error {errors.square().mean() / 4 * 255**2:.2f}, with {m - n} more "
        f"{left / 4 * 255**2:.2f}"
    )


def start_scales(
    out: torch.nn.Conv2d, source: torch.nn.Conv2d, spreads: Tensor, own: Tensor
) -> None:
    """New channels' scales as the last four's, by how much wider or narrower they spread.

    Their means stay 0.
    """
    new, groups = len(spreads), len(spreads) // 4
    out.weight[-new:] = source.weight[-4:].repeat(groups, 1, 1, 1)
    out.bias[-new:] = source.bias[-4:].repeat(groups)  # type: ignore[index]
    out.bias[-new:] += (spreads / own.repeat(groups)).log().float() * OUTPUTS_PER_LOG  # type: ignore[index]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
