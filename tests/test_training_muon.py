"""Muon in the trainer: what it changes, what it leaves to AdamW, and that a run with it resumes like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_pictures import write_pieces

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.families import joint_codec
from pillow_cwic.training.muon import Muon, matrices, orthogonalized
from pillow_cwic.training.setup import Options
from pillow_cwic.training.train import train


def muon_recipe() -> str:
    """The smoke recipe with Muon."""
    text = recipes.locate("smoke").read_text()
    return text.replace("[optimizer]", '[optimizer]\nname = "muon"').replace("validations = 2", "plots = false")


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 50, 20), (1, 16, 16)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    """Whatever the gradient's size and shape, all singular values of an update are about 1, in its own directions."""
    torch.manual_seed(0)
    gradient = torch.randn(shape) * 1e-4
    update = orthogonalized(gradient)
    assert update.shape == gradient.shape
    values = torch.linalg.svdvals(update)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    polar = left @ right  # the nearest orthogonal matrix
    assert float((update * polar).sum() / (update.norm() * polar.norm())) > 0.97


def test_a_step_has_the_size_of_adamw() -> None:
    """One step moves a weight by about 0.2 of the learning rate, root mean square, as AdamW does in the long run."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 48, 3, 3))
    weight.grad = torch.randn_like(weight)
    Muon([weight], torch.tensor(0.01), 0.95, 0.0).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.002, rel=0.2)


def test_momentum_outlives_a_gradient() -> None:
    """After one gradient and then none, a matrix goes on moving the same way; without a gradient it rests."""
    torch.manual_seed(0)
    weight, idle = nn.Parameter(torch.zeros(16, 16, 1, 1)), nn.Parameter(torch.ones(16, 16, 1, 1))
    optimizer = Muon([weight, idle], torch.tensor(0.01), 0.95, 0.0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    first = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert float(((weight.detach() - first) * first).sum()) > 0.9 * float((first * first).sum())
    assert torch.equal(idle.detach(), torch.ones(16, 16, 1, 1))


def test_matrices_are_the_mixing_convolutions() -> None:
    """Muon takes the trunk's convolutions; ends beside pixels, depthwise filters and biases stay AdamW's."""
    joint = joint_codec(recipes.load("small").model)
    chosen = {id(weight) for weight in matrices(joint)}
    names = {name for name, parameter in joint.named_parameters() if id(parameter) in chosen}
    assert {"encoder.quarter.0.conv.weight", "decoder.up.weight", "planes.step.1.mid1.weight"} <= names
    others = ("stem", "shortcut", "depth", "bias", "level", "gain")
    assert not [name for name in names if any(part in name for part in others) or name == "decoder.out.weight"]


def test_a_run_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """A run with Muon, cut in two, ends with the same bits as one that was not."""
    write_pieces(tmp_path / "photos")
    recipe = tmp_path / "muon.toml"
    recipe.write_text(muon_recipe().replace("batch = 8", "batch = 2"))
    weights = []
    for out, limits in (("whole", [None]), ("cut", [1e-9, None])):
        for number, limit in enumerate(limits):
            options = Options(recipe, [str(tmp_path / "photos")], tmp_path / out, steps=6, jobs=1, threads=1)
            train(Options(**vars(options) | {"stop_after": limit, "resume": number > 0}))
        weights.append(load_file(tmp_path / out / "weights.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_not_finite_changes_nothing() -> None:
    """With `found_inf` set, neither weights nor momenta move."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(16, 16, 1, 1))
    optimizer = Muon([weight], torch.tensor(0.01), 0.95, 0.1)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    before, momentum = weight.detach().clone(), optimizer.state[weight]["momentum"].clone()
    weight.grad = torch.full_like(weight, float("nan"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(weight.detach(), before)
    assert torch.equal(optimizer.state[weight]["momentum"], momentum)


def test_unknown_optimizers_are_refused() -> None:
    """A recipe that names another optimizer is refused with the names there are."""
    with pytest.raises(ValueError, match="'adamw' or 'muon', found 'sgd'"):
        recipes.parse(muon_recipe().replace("muon", "sgd"), "x.toml")
