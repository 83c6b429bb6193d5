"""Give a trained model broader trunks: a larger model that codes and decodes as it did.

    python training/broaden.py WEIGHTS.safetensors RECIPE.toml OUT.safetensors

WEIGHTS are a run's `weights.safetensors` and RECIPE the larger model's; the models may differ in
`quarter_channels`, `eighth_channels` and `sixteenth_channels` alone. A layer's new outputs start as
a fresh network's do, behind the old ones, and what is new among its inputs has no weight yet, so
that the pictures stay the same and yet what reads the new channels learns at once. Training goes on
from there with `--from OUT.safetensors`.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.joint_codec import JointCodec


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()

    recipe = recipes.load(options.recipe)
    torch.manual_seed(recipe.seed)
    weights = broaden(load_file(options.weights), JointCodec(recipe.model).state_dict())
    save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, options.out)


@torch.no_grad()
def broaden(old: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """`fresh`, a larger model's first weights, with the `old` model's at their places."""
    for name, tensor in fresh.items():
        source = old[name].float()
        halves = 2 if ".quality_" in name and ".out." in name else 1  # scales, then shifts
        for target, values in zip(tensor.chunk(halves), source.chunk(halves), strict=True):
            outputs = target[: len(values)]
            if target.dim() > 1:
                outputs[:, values.shape[1] :] = 0
                outputs = outputs[:, : values.shape[1]]
            outputs.copy_(values)
    return fresh


if __name__ == "__main__":
    main()
