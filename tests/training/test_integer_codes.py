"""The trainer: losses that teach all of it, and a run that ends in a usable model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_model
import torch
from PIL import Image
from safetensors.torch import load_file
from training_pictures import write_pieces

import pillow_cwic
from pillow_cwic.entropy.integer_layer import EXACT, accumulator_bound
from pillow_cwic.entropy.ladder import Ladder
from pillow_cwic.entropy.logistic import SCALES
from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.training import initial, pictures, run_setup
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.__main__ import main
from pillow_cwic.training.code_network import chosen_codes, logistic_bits
from pillow_cwic.training.crop_stream import CropStream, StreamPool
from pillow_cwic.training.integer_weights import logistic_table, within_exact_sums
from pillow_cwic.training.joint_codec import JointCodec, Part
from pillow_cwic.training.losses import rate_distortion
from pillow_cwic.training.step import Step
from pillow_cwic.weights import models


def outcome_and_loss(joint: JointCodec):
    """One forward pass on noise, and the loss of the tiny recipe."""
    torch.manual_seed(3)
    x, index = torch.rand(2, 3, 48, 48), torch.tensor([1, 6])
    outcome = joint(x, index)
    return outcome, rate_distortion(outcome, x, index, joint.config, recipes.LossRecipe()).loss


def test_every_parameter_learns():
    """The loss reaches every parameter of encoder, decoder and both entropy networks."""
    joint = tiny_model.joint().train()
    _, loss = outcome_and_loss(joint)
    loss.backward()
    idle = [
        n for n, p in joint.named_parameters() if p.grad is None or float(p.grad.abs().sum()) == 0
    ]
    # The first step knows no codes; quality modulation starts with its output layer at zero.
    assert [name for name in idle if ".hidden." not in name] == ["planes.step.0.known.weight"]


def test_without_the_importance_map_everything_is_kept_and_the_map_is_free():
    """`importance = false` keeps all channels at the top level and charges nothing for the map."""
    joint = tiny_model.joint().train()
    with torch.no_grad():
        with_map, _ = outcome_and_loss(joint)
        joint.use_importance = False
        without, _ = outcome_and_loss(joint)
    assert float(without.level.min()) == joint.config.levels - 1 > float(with_map.level.min())
    assert float(without.map_bits.sum()) == 0 < float(with_map.map_bits.sum())
    assert (without.code_bits >= with_map.code_bits).all()
    assert without.code_bits.sum() > with_map.code_bits.sum()


def test_the_map_starts_open():
    """Before training every position is at the highest level.

    The rate closes what it can, nothing must be reopened.
    """
    torch.manual_seed(1)
    joint = JointCodec(tiny_model.CONFIG)
    outcome, _ = outcome_and_loss(joint)
    assert float(outcome.level.min()) == joint.config.levels - 1


def test_exploring_opens_maps_further_but_never_closes_one():
    """A share of the pictures is coded at a level raised to a random floor.

    The map itself pays for its own levels.
    """
    joint = tiny_model.joint().train()
    torch.manual_seed(2)
    p = torch.rand(400, 1, 3, 3)
    assert joint.raise_importance(p) is p
    joint.explore = 0.25
    opened = joint.raise_importance(p)
    raised = (opened > p).flatten(1).any(1)
    assert (opened >= p).all()
    assert 40 < int(raised.sum()) < 130
    floors = opened.flatten(1).amin(1)[raised]
    assert float(floors.min()) < 0.2 < 0.8 < float(floors.max())
    assert joint.eval().raise_importance(p) is p


@pytest.mark.parametrize("choose", [False, True])
def test_channels_without_codes_are_left_out_of_the_bits(choose: bool):
    """A batch in two parts has the bits, choices and gradients of the whole one."""
    config = recipes.load("smoke").model
    results = []
    for whole in (False, True):
        torch.manual_seed(0)
        joint = JointCodec(config).train()
        joint.choose, joint.explore = choose, 0.5
        with torch.no_grad():
            joint.encoder.convolution("importance.3").bias.fill_(-0.4)  # below the last level
        found = []
        parts = joint.parts

        def watched(p, parts=parts, found=found, whole=whole):
            found.extend(parts(p))
            return [Part(torch.arange(len(p)), config.channels)] if whole else parts(p)

        joint.parts = watched
        torch.manual_seed(5)
        x, index = torch.rand(6, 3, 48, 48), torch.arange(6)
        outcome = joint(x, index)
        loss = rate_distortion(outcome, x, index, config, recipes.LossRecipe()).loss
        loss.backward()
        assert sorted(part.channels for part in found) == [16, 32]
        assert sorted(torch.cat([part.pictures for part in found]).tolist()) == [*range(6)]
        gradients = [p.grad for p in joint.parameters() if p.grad is not None]
        results.append([*outcome, *gradients])
    for part, all_at_once in zip(*results, strict=True):
        torch.testing.assert_close(part, all_at_once, rtol=1e-4, atol=1e-5)


def test_codes_are_chosen_as_the_coder_chooses():
    """The float choice of the trainer is the coder's integer one.

    Where the coder's sixteenths do not round it.
    """
    generator = np.random.default_rng(0)
    mean, scale = generator.integers(-80, 80, 4000), generator.integers(0, SCALES, 4000)
    features = mean + np.rint(generator.normal(0, 24, 4000)).astype(int)  # in sixteenths
    rounded = np.rint(features / 16).astype(int)
    coded = Ladder(logistic_table(15), 15).choose(mean, scale, rounded, features - 16 * rounded)
    log_s = torch.linspace(-3, 5, SCALES, dtype=torch.float64)[torch.from_numpy(scale)]
    found = chosen_codes(
        torch.from_numpy(features / 16), torch.from_numpy(mean / 16), log_s
    ).numpy()
    assert (np.abs(found - features / 16) < 1).all()
    assert (found == coded).mean() > 0.99


def test_learning_on_chosen_codes():
    """With `choose` everything still learns, and the same weights spend fewer bits."""
    joint = tiny_model.joint()
    with torch.no_grad():
        joint.encoder.gain.coefficients[0] += 2  # larger codes: more to choose
        rounded, _ = outcome_and_loss(joint.eval())
        joint.choose = True
        chosen, _ = outcome_and_loss(joint)
    assert float(chosen.code_bits.sum()) < float(rounded.code_bits.sum())
    _, loss = outcome_and_loss(joint.train())
    loss.backward()
    assert not [
        name
        for name, p in joint.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ]


def test_noise_stands_for_rounding_only_while_training():
    """In training two passes differ in rate but not in the picture.

    In evaluation nothing is random.
    """
    joint = tiny_model.joint().train()
    x, index = torch.rand(1, 3, 48, 48), torch.tensor([4])
    with torch.no_grad():
        a, b = joint(x, index), joint(x, index)
        assert torch.equal(a.picture, b.picture)
        assert not torch.equal(a.code_bits, b.code_bits)
        joint.eval()
        assert torch.equal(joint(x, index).code_bits, joint(x, index).code_bits)


def started(seed: int = 1) -> tuple[JointCodec, torch.Tensor]:
    """A codec that starts with the principal components of smooth random crops, and such crops."""
    torch.manual_seed(seed)
    joint = JointCodec(tiny_model.CONFIG)
    joint.use_importance = False

    def draw() -> torch.Tensor:
        coarse = torch.rand(64, 3, 5, 5)
        return torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1)

    assert "16 hold 9" in initial.start(joint, draw)  # 9x % of the variance of so smooth pictures
    return joint.eval(), draw()


def test_the_start_is_a_transform_codec():
    """Before the first step the codec is linear.

    Fine steps give back what it holds, coarse ones are cheap.
    """
    joint, x = started()
    with torch.no_grad():
        y, _ = joint.encoder(x, torch.tensor([7]).expand(len(x)))
        back = joint.decoder(y, torch.tensor([7]).expand(len(x)))  # not rounded
        centred = x - x.mean((0, 2, 3), keepdim=True)
        assert float(((back - x) ** 2).mean()) < 0.1 * float((centred**2).mean())
        costs = [joint(x, torch.full((len(x),), q)) for q in (0, 7)]
    errors = [float(((o.picture - back) ** 2).mean()) for o in costs]
    bits = [float(o.code_bits.mean()) for o in costs]
    assert errors[0] > 4 * errors[1]
    assert bits[0] < 0.7 * bits[1]


def test_the_start_knows_every_channels_scale():
    """The first probabilities are nearly those of a fitted scale per channel and quality index."""
    joint, x = started()
    for quality in (0, 4, 7):
        index = torch.full((len(x),), quality)
        with torch.no_grad():
            codes = torch.round(joint.encoder(x, index)[0])
            level = torch.full_like(codes[:, :1], joint.config.levels - 1)
            mean, log_s = joint.planes(codes, level, index)
            bits = logistic_bits(codes, mean, log_s).mean()
            offsets = torch.linspace(-3, 3, 61)[:, None, None, None, None]
            fitted = logistic_bits(codes, mean, log_s + offsets).mean((1, 3, 4)).amin(0).mean()
        assert not mean.any()
        assert float(bits) < 1.15 * float(fitted) + 0.03


def test_the_start_leaves_a_stream_where_it_began(tmp_path: Path):
    """Streamed pictures: the components come from many batches.

    The first step still gets the first batch.
    """
    recipe = recipes.parse(tiny_model.RECIPE, "tiny.toml")
    usable, _ = pictures.survey(
        pictures.find([str(write_pieces(tmp_path / "photos")[0].parent)]), 48, 1
    )
    stream = CropStream(usable, recipe.data, seed=7)
    pool = StreamPool(stream, torch.device("cpu"), jobs=0, first_step=5)
    step = Step(recipe, pool, torch.device("cpu"))
    assert "from 20016 blocks" in run_setup.start(step)  # 18 of each batch
    pool.advance()
    assert torch.equal(pool.buffer, stream[5][:2])
    assert torch.equal(step.average.encoder.shortcut.weight, step.joint.encoder.shortcut.weight)


def test_linear_transforms_take_small_steps():
    """One step moves linear transforms by 3 % of the learning rate, other weights by all of it."""
    recipe = recipes.parse(tiny_model.RECIPE, "tiny")
    torch.manual_seed(0)
    crops = torch.rand(2, 3, 48, 48)
    step = Step(
        recipe, SimpleNamespace(advance=lambda: None, draw=lambda: crops), torch.device("cpu")
    )
    step.begin(recipe.stages[0])
    step.rate.fill_(1e-3)
    before = {name: weight.detach().clone() for name, weight in step.joint.named_parameters()}
    step()
    moved = {
        name: float((w.detach() - before[name]).abs().max())
        for name, w in step.joint.named_parameters()
    }
    assert moved["encoder.shortcut.weight"] == pytest.approx(3e-5, rel=0.05)
    assert moved["decoder.shortcut.weight"] == pytest.approx(3e-5, rel=0.05)
    assert moved["encoder.stem.weight"] == pytest.approx(1e-3, rel=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps, stopped and resumed on the way."""
    folder = tmp_path_factory.mktemp("run")
    write_pieces(folder / "photos")
    (folder / "tiny.toml").write_text(tiny_model.RECIPE)
    command = [
        "train",
        str(folder / "tiny.toml"),
        "--data",
        str(folder / "photos"),
        "--out",
        str(folder / "out"),
    ]
    command += ["--steps", "30", "--jobs", "1", "--threads", "1", "--device", "cpu", "--quiet"]
    assert main([*command, "--stop-after", "0.001"]) == 0
    assert main([*command, "--resume"]) == 0
    return folder / "out"


def test_a_run_ends_with_less_loss_and_all_parts(run: Path):
    """Both stages ran, the loss fell, and the weights hold all four parts."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0]
    assert json.loads((run / "run.json").read_text())["steps"] == 30
    assert {name.split(".")[0] for name in load_file(run / "weights.safetensors")} == {
        "encoder",
        "decoder",
        "planes",
        "maps",
    }


def test_its_model_is_exported_and_used_through_pillow(
    run: Path, photo: Image.Image, tmp_path: Path
):
    """`export` writes a weights file and a manifest with its configuration.

    Pillow saves and opens with it.
    """
    assert main(["export", str(run), "--name", "tiny", "--out", str(tmp_path)]) == 0
    entry = json.loads((tmp_path / "manifest.json").read_text())["models"][0]
    assert entry["config"]["context_features"] == 16
    path = tmp_path / "tiny.safetensors"
    photo.save(tmp_path / "x.cwic", model=str(path), quality=1.0)
    with Image.open(tmp_path / "x.cwic") as image:
        found = np.asarray(image)
    assert found.shape == (72, 88, 3)
    assert isinstance(models.load(path, "cpu").config, ModelConfig)
    assert pillow_cwic.importance_map(tmp_path / "x.cwic").shape == (5, 6)


@pytest.mark.parametrize("name", ["light", "paper"])
def test_crops_are_whole_code_positions(name: str):
    """A recipe whose crops the grid does not divide is refused."""
    recipe = recipes.load(name)
    with pytest.raises(ValueError, match="crop: expected a multiple of 16, found 104"):
        recipes.parse(recipe.text.replace(f"crop = {recipe.data.crop}", "crop = 104"), "x.toml")


def test_choosing_among_signs_is_refused():
    """`choose` in a recipe of one threshold is an error that says what it is for."""
    text = (
        recipes.locate("paper")
        .read_text()
        .replace("share = 0.5\n", "share = 0.5\nchoose = true\n", 1)
    )
    with pytest.raises(ValueError, match="for integer codes"):
        recipes.parse(text, "x.toml")


def test_weights_whose_sums_could_be_inexact_go_nearer_to_zero():
    """An export of them has exact sums, and moves them by no more units than that takes."""
    random = np.random.default_rng(1)
    weight = random.integers(-300, 300, (500, 3)).astype(np.int16)
    weight[:, 1] //= 4
    bias = np.array([[1000, -2000, 3000], [5, 6, 7]], np.int32)
    limits = [250] * 500
    fitting = within_exact_sums(weight, bias, limits)
    assert accumulator_bound(weight, bias, limits, 8) >= EXACT
    assert accumulator_bound(fitting, bias, limits, 8) < EXACT
    assert np.array_equal(fitting[:, 1], weight[:, 1])
    for output in (0, 2):
        moved = np.abs(weight[:, output]).astype(int) - np.abs(fitting[:, output])
        units = moved.max()
        assert np.array_equal(moved, np.abs(weight[:, output]).clip(0, units))
        one_less = fitting[:, [output]] + np.sign(weight[:, [output]])
        assert accumulator_bound(one_less, bias[:, [output]], limits, 8) >= EXACT
    assert not (np.sign(fitting) * np.sign(weight) < 0).any()


def test_a_bias_that_is_too_large_alone_ends_the_search_for_weights():
    """Its output's weights end at 0, the others' stay; the bound then says that it does not fit."""
    weight = np.array([[3, -2], [-1, 4]], np.int16)
    bias = np.array([EXACT, 5], np.int32)
    fitting = within_exact_sums(weight, bias, [10, 10])
    assert fitting.tolist() == [[0, -2], [0, 4]]
    assert accumulator_bound(fitting, bias, [10, 10], 8) >= EXACT
