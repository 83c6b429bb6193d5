"""SOAP in the trainer: what it changes, and what it leaves to AdamW.

A run with it resumes like any other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import torchrun
from safetensors.torch import load_file
from torch import nn
from training_pictures import write_pieces

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.joint_codec import JointCodec
from pillow_cwic.training.run import train
from pillow_cwic.training.run_setup import TrainOptions
from pillow_cwic.training.soap import (
    TURN,
    Soap,
    first_basis,
    modes,
    preconditioned_weights,
    rotate,
    rotate_back,
    statistics,
)


def soap_recipe() -> str:
    """The smoke recipe with SOAP."""
    text = recipes.locate("smoke").read_text()
    return text.replace("[optimizer]", '[optimizer]\nname = "soap"').replace(
        "validations = 2", "plots = false"
    )


@pytest.mark.parametrize("shape", [(20, 30, 3, 3), (16, 24, 1, 1)])
def test_turning_there_and_back(shape: tuple[int, ...]) -> None:
    """Into the bases of its own statistics and back is the identity.

    Inside, every mode's statistic is diagonal.
    """
    torch.manual_seed(0)
    gradient = modes(torch.randn(shape))
    assert gradient.dim() == (3 if shape[2] > 1 else 2)
    bases = [first_basis(statistic) for statistic in statistics(gradient)]
    inside = rotate(gradient, bases)
    torch.testing.assert_close(rotate_back(inside, bases), gradient, rtol=1e-4, atol=1e-5)
    for statistic in statistics(inside):
        assert float((statistic - statistic.diag().diag()).abs().max()) < 1e-3 * float(
            statistic.max()
        )


def test_a_ravine_is_crossed_in_few_steps() -> None:
    """On a quadratic a thousand times steeper along rotated directions, SOAP is far ahead of AdamW.

    This is what it is for: AdamW knows only the weights' own axes.
    """
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(24, 24))[0] for _ in range(2))
    steep = torch.logspace(0, -3, 24)[:, None] * torch.logspace(0, -1, 24)
    goal = left @ torch.randn(24, 24) @ right.t()

    def reached(kind: str) -> float:
        weight = nn.Parameter(torch.zeros(24, 24, 1, 1))
        rate = torch.tensor(0.0)
        optimizer = (
            Soap([weight], rate, 1e-8, 0.0)
            if kind == "soap"
            else torch.optim.AdamW([weight], lr=rate)
        )
        for step in range(300):
            rate.fill_(0.05 * (1 - step / 300))
            optimizer.zero_grad()
            loss = (steep * (left.t() @ (weight[:, :, 0, 0] - goal) @ right) ** 2).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float(loss.detach())

    assert reached("soap") < 0.3 * reached("adamw")


def test_the_first_gradient_only_chooses_bases() -> None:
    """A weight rests at its first gradient, then moves by about the learning rate.

    Rank-deficient or not.
    """
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 48, 3, 3))
    weight.grad = (
        torch.randn(32, 1, 1, 1) * torch.randn(48, 1, 1) * torch.ones(3, 3)
    )  # rank one in every mode
    optimizer = Soap([weight], torch.tensor(0.01), 1e-8, 0.0)
    optimizer.step()
    assert not weight.detach().any()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.01, rel=0.2)


def test_no_step_is_larger_than_the_learning_rate() -> None:
    """The root of a step's mean square stays within the learning rate.

    Though most units are dead most of the time. Without the limit some are two million times larger
    here: a turn of the bases takes momentum to directions in which there was next to no gradient
    before.
    """
    torch.manual_seed(0)
    weight, rate = nn.Parameter(torch.zeros(32, 48, 1, 1)), 0.01
    optimizer = Soap([weight], torch.tensor(rate), 1e-8, 0.0)
    for _ in range(20 * TURN):
        weight.grad = torch.randn_like(weight) * (torch.rand(32, 1, 1, 1) < 0.05)
        before = weight.detach().clone()
        optimizer.step()
        assert float((weight.detach() - before).square().mean().sqrt()) < 1.01 * rate


def test_bases_stay_orthonormal() -> None:
    """Turned again and again by power iterations, the bases stay orthonormal.

    They still reproduce the momentum.
    """
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(20, 30, 3, 3))
    optimizer = Soap([weight], torch.tensor(0.001), 1e-8, 0.0)
    for _ in range(3 * TURN + 1):
        weight.grad = torch.randn_like(weight) * torch.linspace(1, 0, 20)[:, None, None, None]
        optimizer.step()
    for basis in optimizer.state[weight]["bases"]:
        torch.testing.assert_close(basis.t() @ basis, torch.eye(len(basis)), rtol=0, atol=1e-4)
    assert bool(weight.detach().isfinite().all())


def test_preconditioned_are_the_mixing_convolutions() -> None:
    """SOAP takes convolutions that mix channels.

    Linear shortcuts, depthwise filters, tables, biases stay AdamW's.
    """
    joint = JointCodec(recipes.load("light").model)
    chosen = {id(weight) for weight in preconditioned_weights(joint)}
    names = {name for name, parameter in joint.named_parameters() if id(parameter) in chosen}
    assert {
        "encoder.stem.weight",
        "decoder.out.weight",
        "decoder.up.weight",
        "planes.step.1.mid1.weight",
    } <= names
    others = ("shortcut", "depth", "bias", "level", "gain")
    assert not [name for name in names if any(part in name for part in others)]


def test_a_run_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """A run with SOAP, cut in two, ends with the same bits as one that was not."""
    write_pieces(tmp_path / "photos")
    recipe = tmp_path / "soap.toml"
    recipe.write_text(soap_recipe().replace("batch = 8", "batch = 2"))
    weights = []
    for out, limits in (("whole", [None]), ("cut", [1e-9, None])):
        for number, limit in enumerate(limits):
            options = TrainOptions(
                recipe, [str(tmp_path / "photos")], tmp_path / out, steps=6, jobs=1, threads=1
            )
            train(TrainOptions(**vars(options) | {"stop_after": limit, "resume": number > 0}))
        weights.append(load_file(tmp_path / out / "weights.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


SHARED = """
import torch
import torch.distributed as dist
from pillow_cwic.training.ranks import ALONE, Ranks
from pillow_cwic.training.soap import TURN, Soap

dist.init_process_group("gloo")
ranks = Ranks(dist.get_rank(), dist.get_world_size())
torch.manual_seed(0)
shapes = [(48, 16, 3, 3), (32, 32, 1, 1), (16, 24, 3, 3), (16, 16, 1, 1)]
ours, alone = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
rate = torch.tensor(0.01)
both = [Soap(ours, rate, 1e-8, 0.1, ranks), Soap(alone, rate, 1e-8, 0.1, ALONE)]
for _ in range(TURN + 2):
    for a, b in zip(ours, alone):
        a.grad = b.grad = torch.randn_like(a)
    for optimizer in both:
        optimizer.step()
assert all(torch.equal(a, b) for a, b in zip(ours, alone))
shares = ranks.gather(len(both[0].state))
assert min(shares) > 0 and sum(shares) == len(shapes), shares
whole, expected = both[0].state_dict()["state"], both[1].state_dict()["state"]
assert whole.keys() == expected.keys()
assert all(torch.equal(whole[key]["square"], expected[key]["square"]) for key in whole)
both[0].load_state_dict(both[1].state_dict())
assert len(both[0].state) == shares[ranks.rank]
dist.destroy_process_group()
"""


def test_ranks_share_the_work_and_take_the_steps_of_one(tmp_path: Path) -> None:
    """Two processes, each with a part of the weights, take the very steps of one.

    They give its whole state together.
    """
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    torchrun(str(script))


def test_not_finite_changes_nothing() -> None:
    """With `found_inf` set, neither weights nor momenta move."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(16, 16, 1, 1))
    optimizer = Soap([weight], torch.tensor(0.01), 1e-8, 0.1)
    for _ in range(2):
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
    with pytest.raises(ValueError, match="'adamw' or 'soap', found 'sgd'"):
        recipes.parse(soap_recipe().replace("soap", "sgd"), "x.toml")
