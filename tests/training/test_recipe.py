"""Recipes and schedules: what a TOML file may say, and what follows from it."""

from __future__ import annotations

import pytest

from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.recipe import Stage
from pillow_cwic.training.schedule import Budget, Progress, learning_rate, stage_at

SMOKE = recipes.locate("smoke").read_text()


@pytest.mark.parametrize("name", recipes.shipped())
def test_shipped_recipes_load(name: str) -> None:
    """Every recipe that ships is valid, has its own name, and networks that can be built."""
    recipe = recipes.load(name)
    assert recipe.name == name
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1)


def test_light_is_complete() -> None:
    """light.toml has as many channels as a block of 16 x 16 pixels has values, and 64 qualities.

    It begins with the context network, ends on chosen codes.
    """
    recipe = recipes.load("light")
    assert (recipe.model.quality_count, recipe.model.channels, recipe.model.levels) == (64, 768, 16)
    assert recipe.stages[0].train == ("planes",)
    assert [stage.choose for stage in recipe.stages] == [False, False, False, True]
    assert stage_at(recipe.stages, 0.0299)[0] == 0
    assert stage_at(recipe.stages, 0.0301)[0] == 1


def test_paper_is_two_stages() -> None:
    """paper.toml follows the paper: signs; no importance map, then one of 16 even levels; one rate.

    1e-4 to 1e-6.
    """
    recipe = recipes.load("paper")
    assert [stage.importance for stage in recipe.stages] == [False, True]
    assert [(stage.learning_rate, stage.final_learning_rate) for stage in recipe.stages] == [
        (1e-4, 1e-6)
    ] * 2
    assert (recipe.loss.form, recipe.model.quality_count, recipe.data.crop) == (
        "importance",
        1,
        128,
    )
    assert isinstance(recipe.model, ModelConfig)
    assert recipe.model.one_bit
    assert recipe.model.kept_planes == tuple(
        range(0, 256, 16)
    )  # as many bits per pixel as the paper's 4q at 1/8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 1", "seed = 1\nsped = 2", r"unknown key 'sped'; known are name, "),
        (
            "crop = 64",
            "crop = 64\ncorp = 1",
            r"\[data\]: unknown key 'corp'; known are crop, batch",
        ),
        (
            "map_features = 8",
            "mapfeatures = 8",
            r"\[model\]: unknown model configuration field\(s\): mapfeatures",
        ),
        ("ladder = 31\n", "", r"\[model\]: missing model configuration field\(s\): ladder"),
        ("[optimizer]", "[optimiser]", r"unknown key 'optimiser'"),
        ("share = 1.0", "share = 1.0\nlr = 1", r"\[\[stages\]\] 1: unknown key 'lr'"),
        ("batch = 8", 'batch = "8"', r"\[data\] batch: expected int, found '8'"),
        ("batch = 8", "batch = true", r"\[data\] batch: expected int, found True"),
        ("crop = 64", "crop = 63", r"crop: expected a multiple of 16, found 63"),
        ("share = 1.0", "share = 0.9", r"the shares must sum to 1"),
        (
            "ms_ssim_weight = [0.0, 0.0]",
            "ms_ssim_weight = [0.3, 0.3]",
            r"needs \[data\] crop of at least 161 pixels, found 64",
        ),
        (
            "crop = 64",
            "crop = 64\nfrequent_qualities = 9",
            r"frequent_qualities: expected 0\.\.8, found 9",
        ),
        (
            "share = 1.0",
            'share = 1.0\ntrain = ["coder"]',
            r"train names coder; expected some of encoder, decoder",
        ),
        (
            "validation_qualities = [0, 7]",
            "validation_qualities = [8]",
            r"8 is not an index of the model",
        ),
        ('name = "smoke"\n', "", r"name: expected str, found None"),
        ("seed = 1", "seed = ", r"is not TOML"),
    ],
)
def test_wrong_recipes_are_refused(old: str, new: str, message: str) -> None:
    """A wrong recipe is a ValueError that names table and key, what was expected and what found."""
    assert old in SMOKE
    with pytest.raises(ValueError, match=message) as caught:
        recipes.parse(SMOKE.replace(old, new, 1), "x.toml")
    assert "recipe x.toml" in str(caught.value)


def test_unknown_recipe_lists_the_known() -> None:
    """A recipe that is neither a file nor shipped is refused with the names there are."""
    with pytest.raises(
        ValueError,
        match=r"no recipe 'smook': expected a TOML file or one of light, light-more, .*smoke",
    ):
        recipes.load("smook")


def test_learning_rate_follows_its_stage() -> None:
    """Linear and geometric decay start and end where the stage says.

    The warm-up counts the stage's own steps.
    """
    linear = Stage("a", 1.0, learning_rate=1e-3, final_learning_rate=1e-5, warmup_steps=10)
    geometric = Stage("b", 1.0, learning_rate=1e-4, final_learning_rate=1e-6, decay="geometric")
    assert learning_rate(linear, 0.0, 0) == pytest.approx(1e-4)
    assert learning_rate(linear, 0.5, 100) == pytest.approx(5.05e-4)
    assert learning_rate(linear, 1.0, 100) == pytest.approx(1e-5)
    assert learning_rate(geometric, 0.5, 0) == pytest.approx(1e-5)


def test_budget_is_minutes_or_steps() -> None:
    """A budget in minutes follows the clock over all sessions, one in steps the steps.

    Both stop at 1.
    """
    progress = Progress(step=25, seconds=30.0)
    assert Budget(minutes=2.0).used(progress) == 0.25
    assert Budget(minutes=2.0).seconds_left(progress) == 90
    assert Budget(steps=100).used(progress) == 0.25
    assert Budget(steps=100).seconds_left(progress) == 90
    assert Budget(steps=20).used(progress) == 1.0
