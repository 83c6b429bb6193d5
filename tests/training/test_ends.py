"""How a training ends that does not end well, and what is refused before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from safetensors.torch import load_file
from training_pictures import write_pieces

from pillow_cwic.training import records
from pillow_cwic.training.divergence import DivergedError, Judge
from pillow_cwic.training.run import train
from pillow_cwic.training.run_setup import TrainOptions
from pillow_cwic.training.schedule import Progress
from pillow_cwic.training.watch import read_log

Train = Callable[..., Progress]
CHANGED = 'name = "second"\nshare = 0.5\nlearning_rate = 2e-3\nfinal_learning_rate = 1e-3'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pieces(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(tiny_model.RECIPE)
    return path


@pytest.fixture
def run(photos: Path, recipe: Path) -> Train:
    def call(out: Path, **changes: Any) -> Progress:
        options: dict[str, Any] = {"recipe": recipe, "data": [str(photos)], "steps": 40, "jobs": 1}
        options |= {"threads": 1, "device": "cpu", "quiet": True, **changes}
        return train(TrainOptions(out=out, **options))

    return call


def strict_json(text: str) -> Any:
    """As readers do that know no NaN."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_a_diverging_run_ends_with_its_last_good_state(
    run: Train, recipe: Path, tmp_path: Path
) -> None:
    """It ends as soon as most steps are skipped, says so, and keeps the checkpoint from before."""
    out = tmp_path / "run"
    recipe.write_text(
        tiny_model.RECIPE.replace(
            CHANGED,
            CHANGED.replace("2e-3", "1e30").replace("1e-3", "1e30"),
        )
    )
    run(out, stop_after=1e-9)
    before = load_file(out / "weights.safetensors")
    with pytest.raises(DivergedError) as error:
        run(out, resume=True)
    assert "of the last 20 steps were not finite" in str(error.value)
    assert f"{out} ends with step 1, from before" in str(error.value)
    facts = strict_json((out / "run.json").read_text())
    assert facts["steps"] == 1
    assert 20 < facts["diverged_at_step"] <= 40
    assert not facts["finished"]
    for line in (out / "log.jsonl").read_text().splitlines():
        strict_json(line)
    after = load_file(out / "weights.safetensors")
    assert all((before[name] == after[name]).all() for name in before)


def test_a_run_that_diverges_at_once_keeps_nothing(
    run: Train, recipe: Path, tmp_path: Path
) -> None:
    """Without a checkpoint there is no good state: an error, and no weights to export."""
    recipe.write_text(tiny_model.RECIPE.replace("2e-3", "1e30"))
    with pytest.raises(DivergedError, match="there is no checkpoint yet"):
        run(tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_steps_are_judged_together() -> None:
    """More than half of twenty; a few bad ones are no divergence; at the end fewer are enough."""
    judge = Judge()
    assert not judge.add(10, 10)
    assert judge.too_bad(0, 0)
    assert not judge.too_bad(10, 0)
    assert judge.add(10, 1)
    assert str(judge) == "11 of the last 20 steps were not finite"
    judge = Judge()
    assert not judge.add(20, 10)
    assert not judge.add(19, 19)
    assert not Judge().too_bad(4, 4)


def test_numbers_that_are_not_finite_are_null() -> None:
    """In all that is written, at any depth."""
    value = {"a": float("nan"), "b": [1.5, float("inf"), {"c": (float("-inf"), 2)}], "d": "NaN"}
    assert strict_json(records.to_json(value)) == {
        "a": None,
        "b": [1.5, None, {"c": [None, 2]}],
        "d": "NaN",
    }


def test_a_log_that_was_cut_is_read_and_gone_on_with(run: Train, tmp_path: Path) -> None:
    """A kill in the middle of a line costs that line; the resumed run ends well."""
    out = tmp_path / "run"
    run(out, stop_after=1e-9)
    log = out / "log.jsonl"
    whole = read_log(out)
    with log.open("a") as file:
        file.write('{"event": "step", "st')
    assert read_log(out) == whole
    run(out, steps=10, resume=True)
    assert read_log(out)[: len(whole)] == whole
    assert [line["step"] for line in read_log(out) if line["event"] == "step"] == [5, 10]
