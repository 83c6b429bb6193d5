"""How a training ends that does not end well, and what is refused before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from PIL import Image
from safetensors.torch import load_file, save_file
from training_pictures import write_pieces

from pillow_cwic.training import pictures, records
from pillow_cwic.training.__main__ import main
from pillow_cwic.training.divergence import DivergedError, Judge
from pillow_cwic.training.ranks import Ranks
from pillow_cwic.training.run import sole_writer, train
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


def test_two_trainings_in_one_folder_are_refused(run: Train, tmp_path: Path) -> None:
    """While one trains there, another is told so, before it reads a picture."""
    out = tmp_path / "run"
    out.mkdir()
    with (
        sole_writer(out, Ranks()),
        pytest.raises(ValueError, match=f"another training writes into {out}"),
    ):
        run(out)
    assert not (out / "log.jsonl").exists()


def test_other_data_is_refused_or_written_down(run: Train, photos: Path, tmp_path: Path) -> None:
    """A resumed run has the same pictures; others only on request, and then both are recorded."""
    out = tmp_path / "run"
    more = tmp_path / "more"
    write_pieces(more)
    Image.effect_noise((200, 200), 50).save(more / "noise.png")
    run(out, stop_after=1e-9)
    with pytest.raises(ValueError, match=r"--data has .* from more; .* from photos.*--new-data"):
        run(out, data=[str(more)], resume=True)
    run(out, steps=2, data=[str(more)], resume=True, new_data=True)
    found = json.loads((out / "run.json").read_text())["training_data"]
    before, _, after = found.partition("; from step 1: ")
    assert before.endswith(f"from {photos.name}")
    assert after.endswith("from more")
    # The records are gone on with, not begun again.
    run(out, steps=3, data=[str(more)], resume=True)
    assert json.loads((out / "run.json").read_text())["training_data"] == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps is a number above 0, found 0"),
        ({"steps": None, "minutes": 0.0}, "--minutes is a number above 0, found 0"),
        ({"steps": None, "minutes": float("inf")}, "--minutes is a number above 0, found inf"),
        ({"steps": None, "minutes": float("nan")}, "--minutes is a number above 0, found nan"),
        ({"stop_after": 0.0}, "--stop-after is a number above 0, found 0"),
        ({"part_mib": float("nan")}, "--part-mib is 0 .* or more, found nan"),
    ],
    ids=str,
)
def test_times_that_mean_nothing_are_refused_by_name(
    run: Train, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Not taken for the recipe's whole time."""
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_figures_of_runs_are_no_training_pictures(tmp_path: Path) -> None:
    """What the tool drew below --data is left out; a picture that is only called so counts."""
    for folder, record in (("run", "log.jsonl"), ("evaluation", "rd.json"), ("mine", "notes.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / record).touch()
        for name in ("curves.png", "importance.png", "rd.png", "cat.png"):
            Image.new("L", (8, 8)).save(tmp_path / folder / name)
    found = [picture.name for picture in pictures.find([tmp_path])]
    mine = [f"mine/{name}.png" for name in ("cat", "curves", "importance", "rd")]
    assert found == ["evaluation/cat.png", *mine, "run/cat.png"]


def test_a_bad_picture_does_not_stop_an_evaluation(
    photos: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are measured and written first, at a single rate too; the bad one is named."""
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    good = sorted(photos.iterdir())[:2]
    for path in good:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad.png").write_bytes(good[0].read_bytes()[:2000])
    command = ["evaluate", tiny, "--images", folder, "--qualities", ".5", "--codecs", "jpeg"]
    assert main([*map(str, command), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "evaluate: 1 picture(s) left out: bad.png: " in said
    rows = strict_json((out / "rd.json").read_text())["results"]
    assert {row["picture"] for row in rows} == {path.name for path in good}
    assert "Means over 2 pictures" in (out / "rd.md").read_text()
    with Image.open(out / "rd.png") as figure:
        figure.load()


def test_a_model_of_one_rate_is_exported(
    run: Train, recipe: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its manifest, card and figure, although a picture is bad."""
    text = tiny_model.RECIPE.replace("quality_count = 8", "quality_count = 1")
    recipe.write_text(text.replace("validation_qualities = [0, 7]", "validation_qualities = [0]"))
    out = tmp_path / "run"
    run(out, steps=2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = min(photos.iterdir())
    (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "bad.png").write_bytes(b"no picture")
    command = ["export", out, "--name", "one", "--images", folder, "--codecs", "none"]
    assert main(list(map(str, command))) == 1
    assert "export: 1 picture(s) left out: bad.png: not a picture" in capsys.readouterr().err
    (model,) = json.loads((out / "export" / "manifest.json").read_text())["models"]
    assert [point["index"] for point in model["quality"]] == [0]
    assert (out / "export" / "one.md").is_file()
    assert (out / "export" / "rd.png").is_file()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "."])
def test_a_name_is_checked_before_anything_is_written(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export --name ../x` writes nothing, neither in --out nor outside."""
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "recipe.toml").write_text(tiny_model.RECIPE)
    save_file(tiny_model.joint().state_dict(), run_folder / "weights.safetensors")
    before = sorted(tmp_path.rglob("*"))
    assert main(["export", str(run_folder), "--name", name or " "]) == 1
    assert "--name is 1 to 64 letters, digits" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_that_are_not_finite_are_not_exported(
    run: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that names the tensor, no traceback and no model."""
    out = tmp_path / "run"
    run(out, steps=1)
    weights = load_file(out / "weights.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] * float("nan")
    save_file(weights, out / "weights.safetensors")
    assert main(["export", str(out)]) == 1
    assert f"{name} is not finite: the training diverged" in capsys.readouterr().err
    assert not list(out.rglob("run.safetensors"))
