"""Training runs: what is written, what a checkpoint is worth, what stops a run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import environment, torchrun
from safetensors.torch import load_file, save_file
from training_pictures import write_pieces

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.losses import distances
from pillow_cwic.training.run import train
from pillow_cwic.training.run_setup import TrainOptions
from pillow_cwic.training.schedule import Progress, learning_rate, stage_at
from pillow_cwic.training.step import Step
from pillow_cwic.training.watch import read_log

STEPS = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training pictures."""
    folder = tmp_path_factory.mktemp("photos")
    write_pieces(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe with two short stages and a log line every other step.

    One stage is without the importance map.
    """
    text = recipes.locate("smoke").read_text().replace("log_every = 25", "log_every = 2")
    text = text.replace("batch = 8", "batch = 2").replace(
        "validations = 2", "validations = 1\nplots = false"
    )
    first = '[[stages]]\nname = "first"\nshare = 0.25\n'
    first += "learning_rate = 1e-3\nfinal_learning_rate = 1e-3\n"
    text = text.replace("[[stages]]", first + "importance = false\n\n[[stages]]").replace(
        "share = 1.0", "share = 0.75"
    )
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(text)
    return path


Train = Callable[..., Progress]


@pytest.fixture(scope="module")
def run(photos: Path, recipe: Path) -> Train:
    """Train in this process."""

    def call(out: Path, **changes: Any) -> Progress:
        options: dict[str, Any] = {
            "recipe": recipe,
            "data": [str(photos)],
            "steps": STEPS,
            "jobs": 1,
            "threads": 1,
        }
        return train(TrainOptions(out=out, device="cpu", quiet=True, **{**options, **changes}))

    return call


@pytest.fixture(scope="module")
def whole(run: Train, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted, with plots."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    plotted = out.with_name("plotted.toml")
    plotted.write_text(recipe.read_text().replace("plots = false", "plots = true"))
    assert run(out, recipe=plotted).step == STEPS
    return out


def stop_at(out: Path, step: int, number: signal.Signals) -> threading.Thread:
    """Send this process a signal once the run's log has reached a step."""

    def watch() -> None:
        while not any(line.get("step", 0) >= step for line in read_log(out)):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def checkpoint_parts(folder: Path) -> list[str]:
    """The files that the checkpoint consists of."""
    return [part["name"] for part in json.loads((folder / "checkpoint.json").read_text())["parts"]]


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit.

    Averaged ones and those under training.
    """
    same = (one / "weights.safetensors").read_bytes() == (
        other / "weights.safetensors"
    ).read_bytes()
    from pillow_cwic.training import checkpoint

    first, second = (checkpoint._unpack(checkpoint._join(folder)) for folder in (one, other))
    return same and first["weights.safetensors"] == second["weights.safetensors"]


def test_a_run_folder_holds_everything(whole: Path) -> None:
    """A finished run has all its files, and nothing half-written.

    Recipe, facts, log, checkpoint, weights and plots.
    """
    names = {path.name for path in whole.iterdir()}
    expected = {"recipe.toml", "run.json", "log.jsonl", "checkpoint.json", "weights.safetensors"}
    assert expected | {"curves.png", "importance.png", "rd.png"} <= names
    assert not [name for name in names if name.endswith(".partial")]
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["finished"], facts["steps"], facts["skipped_steps"]) == (True, STEPS, 0)
    assert facts["parameters"] == sum(
        t.numel() for t in load_file(whole / "weights.safetensors").values()
    )
    assert facts["training_data"].startswith("16 pictures, 0.6 megapixels, from photos")
    steps = [line for line in read_log(whole) if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(2, STEPS + 1, 2))
    assert steps[2]["stage"] == "first"
    assert steps[2]["map_bpp"] == 0
    assert steps[3]["stage"] == "all"
    assert steps[3]["map_bpp"] > 0


@pytest.mark.parametrize(("step", "number"), [(4, signal.SIGTERM), (12, signal.SIGINT)])
def test_an_interrupted_run_resumes_bit_for_bit(
    run: Train, whole: Path, tmp_path: Path, step: int, number: signal.Signals
) -> None:
    """A run stopped by a signal and resumed ends with the same bits as one never interrupted.

    In either stage.
    """
    out = tmp_path / "cut"
    thread = stop_at(out, step, number)
    stopped = run(out)
    thread.join()
    assert step <= stopped.step < STEPS
    assert json.loads((out / "run.json").read_text())["finished"] is False
    assert run(out, resume=True).step == STEPS
    assert same_bytes(whole, out)
    logged = [line["step"] for line in read_log(out) if line["event"] == "step"]
    assert logged == list(range(2, STEPS + 1, 2))


def test_a_killed_run_resumes_bit_for_bit(
    run: Train, whole: Path, photos: Path, recipe: Path, tmp_path: Path
) -> None:
    """A process killed outright while it writes checkpoints leaves one to go on from.

    Here it writes them at every step.
    """
    often, out = tmp_path / "often.toml", tmp_path / "killed"
    often.write_text(
        recipe.read_text().replace("checkpoint_minutes = 1.0", "checkpoint_minutes = 1e-9")
    )
    command = [
        sys.executable,
        "-m",
        "pillow_cwic.training",
        "train",
        str(often),
        "--data",
        str(photos),
    ]
    command += [
        "--out",
        str(out),
        "--steps",
        str(STEPS),
        "--jobs",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--quiet",
    ]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while not any(line.get("step", 0) >= 6 for line in read_log(out)):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (out / "run.json").exists()
    assert run(out, recipe=often, resume=True).step == STEPS
    assert same_bytes(whole, out)


def test_checkpoints_in_parts(run: Train, whole: Path, tmp_path: Path) -> None:
    """A checkpoint cut into parts of a given size is joined on resume.

    A missing or damaged part is named.
    """
    out = tmp_path / "parts"
    assert run(out, stop_after=1e-9, part_mib=0.25).step == 1
    parts = [out / name for name in checkpoint_parts(out)]
    assert len(parts) > 3
    assert all(part.stat().st_size == 2**18 for part in parts[:-1])
    good = parts[1].read_bytes()
    parts[1].write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(
        OSError, match=r"part1 is damaged: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}"
    ):
        run(out, resume=True)
    parts[1].unlink()
    with pytest.raises(
        OSError, match=r"lacks checkpoint-00000001.part1 \(262144 bytes\): bring it back"
    ):
        run(out, resume=True)
    parts[1].write_bytes(good)
    assert run(out, resume=True).step == STEPS
    assert same_bytes(whole, out)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == checkpoint_parts(out)


def test_run_folders_are_not_mixed_up(
    run: Train, whole: Path, recipe: Path, tmp_path: Path
) -> None:
    """A new run refuses a folder that holds one.

    A resumed one refuses a missing checkpoint or another recipe.
    """
    with pytest.raises(
        ValueError,
        match=r"holds a run already: --resume continues it, another --out starts a new one",
    ):
        run(whole)
    with pytest.raises(ValueError, match=r"--resume: no checkpoint in .*empty"):
        run(tmp_path / "empty", resume=True)
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("seed = 1", "seed = 2"))
    with pytest.raises(ValueError, match=r"the recipe differs from .*recipe.toml"):
        run(whole, recipe=other, resume=True)
    with pytest.raises(ValueError, match="give --minutes or --steps, not both"):
        run(tmp_path / "new", minutes=1.0)


def test_minutes_are_a_wall_clock_budget(run: Train, recipe: Path, tmp_path: Path) -> None:
    """A budget in minutes ends with the first step after it is used.

    Each step's learning rate is the schedule's for the share that was used before it.
    """
    each = tmp_path / "each.toml"
    each.write_text(recipe.read_text().replace("log_every = 2", "log_every = 1"))
    progress = run(tmp_path / "timed", recipe=each, steps=None, minutes=0.04)
    assert progress.seconds >= 2.4
    lines = [line for line in read_log(tmp_path / "timed") if line["event"] == "step"]
    assert [line["used"] for line in lines[:-1]] == sorted(line["used"] for line in lines[:-1])
    assert lines[-2]["used"] < 1 <= lines[-1]["used"]
    stages = recipes.load(str(each)).stages
    in_second = 0
    for before, line in itertools.pairwise(lines):
        index, within = stage_at(stages, before["used"])
        rate = learning_rate(stages[index], within, in_second if index else before["step"])
        rounding = 1e-4 * stages[index].learning_rate
        assert line["learning_rate"] == pytest.approx(rate, abs=rounding)
        in_second += index


def test_streaming_resumes_bit_for_bit(run: Train, recipe: Path, tmp_path: Path) -> None:
    """With less memory than the pictures need, crops are streamed.

    A resumed run still ends with the same bits.
    """
    streamed = tmp_path / "streamed.toml"
    streamed.write_text(recipe.read_text().replace("memory_gib = 1.0", "memory_gib = 1e-6"))
    run(tmp_path / "a", recipe=streamed, steps=6)
    run(tmp_path / "b", recipe=streamed, steps=6, stop_after=1e-9)
    run(tmp_path / "b", recipe=streamed, steps=6, resume=True)
    assert any("streaming: " in line.get("text", "") for line in read_log(tmp_path / "a"))
    assert same_bytes(tmp_path / "a", tmp_path / "b")


class Fixed:
    """A source that always draws the same crops."""

    def __init__(self, crops: torch.Tensor) -> None:
        self.crops = crops

    def advance(self) -> None:
        """Nothing."""

    def draw(self) -> torch.Tensor:
        """The crops."""
        return self.crops

    def close(self) -> None:
        """Nothing."""


def test_steps_that_are_not_finite_change_nothing() -> None:
    """A step with a NaN leaves weights and optimizer as they were and is counted.

    The next good step learns.
    """
    torch.manual_seed(0)
    smoke = recipes.load("smoke")
    source = Fixed(torch.rand(2, 3, 64, 64))
    step = Step(smoke, source, torch.device("cpu"))
    step.begin(smoke.stages[0])
    step.rate.fill_(1e-3)
    step()
    before = [p.detach().clone() for p in step.joint.parameters()]
    moments = [s["exp_avg"].clone() for s in step.optimizer.state.values()]
    source.crops = torch.full_like(source.crops, float("nan"))
    step()
    assert all(torch.equal(a, b) for a, b in zip(before, step.joint.parameters(), strict=True))
    assert all(
        torch.equal(a, s["exp_avg"])
        for a, s in zip(moments, step.optimizer.state.values(), strict=True)
    )
    sums = step.take_sums()
    assert (sums["steps"], sums["skipped"]) == (2, 1)
    assert 0 < sums["loss"] < 1e4
    source.crops = torch.rand(2, 3, 64, 64)
    step()
    after = dict(step.joint.named_parameters())
    stayed = [
        name for name, old in zip(after, before, strict=True) if torch.equal(old, after[name])
    ]
    assert stayed == ["planes.step.0.known.weight"]  # the first step knows no codes


def test_start_from_weights(run: Train, tmp_path: Path) -> None:
    """A run that starts from another's weights begins where that ended.

    It leaves out what does not fit, and says so.
    """
    run(tmp_path / "a", steps=12)
    given = load_file(tmp_path / "a" / "weights.safetensors")
    given["encoder.stem.bias"] = torch.zeros(3)  # another shape
    given["something.else"] = torch.zeros(3)
    start = tmp_path / "start.safetensors"
    save_file(given, start)
    run(tmp_path / "b", steps=12, stop_after=1e-9, initial=start)  # one step, warming up
    begun = load_file(tmp_path / "b" / "weights.safetensors")
    fitting = [name for name in begun if name != "encoder.stem.bias"]
    assert all(torch.allclose(begun[name], given[name], atol=2e-3) for name in fitting)
    facts = json.loads((tmp_path / "b" / "run.json").read_text())
    assert facts["started_from"].startswith(
        f"{len(begun) - 1} of {len(begun)} tensors from start.safetensors"
    )
    run(
        tmp_path / "b", steps=12, resume=True, initial=start
    )  # goes on from the checkpoint, not from there again
    assert (
        json.loads((tmp_path / "b" / "run.json").read_text())["started_from"]
        == facts["started_from"]
    )


def test_start_from_nothing_that_fits(run: Train, tmp_path: Path) -> None:
    """Weights of which nothing fits, or no weights at all, are an error that says so.

    The run folder stays usable.
    """
    other = tmp_path / "other.safetensors"
    save_file({"something.else": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="no tensor with the name and shape"):
        run(tmp_path / "a", initial=other)
    other.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        run(tmp_path / "a", initial=other)
    run(tmp_path / "a", steps=1)


def test_frozen_parts_keep_their_weights() -> None:
    """A stage that trains only the entropy networks leaves encoder and decoder, bit for bit."""
    torch.manual_seed(0)
    text = (
        recipes.locate("smoke")
        .read_text()
        .replace("share = 1.0", 'share = 1.0\ntrain = ["planes", "maps"]')
    )
    smoke = recipes.parse(text, "frozen.toml")
    step = Step(smoke, Fixed(torch.rand(2, 3, 64, 64)), torch.device("cpu"))
    step.begin(smoke.stages[0])
    step.rate.fill_(1e-3)
    before = {name: p.detach().clone() for name, p in step.joint.named_parameters()}
    step()
    changed = {
        name.split(".")[0]
        for name, p in step.joint.named_parameters()
        if not torch.equal(before[name], p)
    }
    assert changed == {"planes", "maps"}


@pytest.mark.parametrize(("taken", "share"), [(0, 0.9), (81, 9 / 91), (1000, 0.02)])
def test_average_follows_the_weights(taken: int, share: float) -> None:
    """A step moves the average by 1 - ema_decay of the way to the new weights.

    Earlier in a run by more.
    """
    torch.manual_seed(0)
    smoke = recipes.load("smoke")
    step = Step(smoke, Fixed(torch.rand(2, 3, 64, 64)), torch.device("cpu"))
    step.begin(smoke.stages[0])
    step.rate.fill_(1e-3)
    step.taken.fill_(taken)
    old = step.joint.encoder.stem.weight.detach().clone()
    step()
    new = step.joint.encoder.stem.weight.detach()
    torch.testing.assert_close(
        step.average.encoder.stem.weight, old + share * (new - old), rtol=1e-6, atol=1e-7
    )


def test_two_processes_train_one_model(photos: Path, recipe: Path, tmp_path: Path) -> None:
    """Under torchrun two processes share pictures and SOAP's work, and end with equal weights.

    They save together. Cut in two, such a run ends with the bits of one that was not, though each
    process has only its share of the optimizer's state. They save about every step: a process that
    decided by its own clock would wait for ever.
    """
    often = tmp_path / "often.toml"
    text = recipe.read_text().replace("checkpoint_minutes = 1.0", "checkpoint_minutes = 1e-4")
    often.write_text(text.replace("[optimizer]", '[optimizer]\nname = "soap"'))
    command = [
        "-m",
        "pillow_cwic.training",
        "train",
        str(often),
        "--data",
        str(photos),
        "--device",
        "cpu",
    ]
    command += ["--jobs", "1", "--quiet", "--steps", "8"]
    for out, extra in (("cut", ["--stop-after", "1e-9"]), ("cut", ["--resume"]), ("whole", [])):
        torchrun(*command, "--out", str(tmp_path / out), *extra)
    facts = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert (facts["finished"], facts["steps"], facts["device"]) == (True, 8, "2 x 1 CPU threads")
    steps = [line["step"] for line in read_log(tmp_path / "cut") if line["event"] == "step"]
    assert steps == [2, 4, 6, 8]
    cut, whole = (load_file(tmp_path / out / "weights.safetensors") for out in ("cut", "whole"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in cut.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_captured_step_equals_the_plain_one() -> None:
    """The same steps, kernel by kernel and as one CUDA graph, give the same weights to rounding."""
    ends = []
    for captured in (False, True):
        torch.manual_seed(0)
        smoke = recipes.load("smoke")
        step = Step(smoke, Fixed(torch.rand(8, 3, 64, 64, device="cuda")), torch.device("cuda"))
        step.begin(smoke.stages[0])
        if captured:
            step.capture()
        step.rate.fill_(1e-4)
        torch.cuda.manual_seed(1)
        for _ in range(5):
            step()
        ends.append(torch.cat([p.detach().flatten() for p in step.joint.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-2, atol=5e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile looks at each tensor's
def test_a_compiled_step_equals_the_plain_one() -> None:
    """With `[cpu] compile`, a step's loss and weights are the plain one's to rounding."""
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        smoke = recipes.load("smoke")
        data = replace(smoke.data, crop=16, batch=4)  # small: one scale, little to compile
        smoke = replace(smoke, data=data, cpu=replace(smoke.cpu, compile=compiled))
        step = Step(smoke, Fixed(torch.rand(4, 3, 16, 16)), torch.device("cpu"))
        step.begin(replace(smoke.stages[0], choose=True))
        said: list[str] = []
        random = torch.get_rng_state()
        step.prepare(said.append)
        assert not said
        assert torch.equal(torch.get_rng_state(), random)  # or a resumed run would end elsewhere
        assert (step.measure is distances) is not compiled
        step.rate.fill_(1e-4)
        torch.manual_seed(1)
        for _ in range(2):
            step()
        assert step.unread() == (2, 0)
        ends.append(torch.cat([p.detach().flatten() for p in step.joint.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-2, atol=2e-4)


def test_without_a_compiler_the_step_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that cannot be compiled says so and goes on as it is."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    smoke = recipes.load("smoke")
    data = replace(smoke.data, crop=32, batch=4)
    smoke = replace(smoke, data=data, cpu=replace(smoke.cpu, compile=True))
    step = Step(smoke, Fixed(torch.rand(4, 3, 32, 32)), torch.device("cpu"))
    step.begin(smoke.stages[0])
    said: list[str] = []
    step.prepare(said.append)
    assert len(said) == 1
    assert said[0].startswith("the step is not compiled: ")
    step()
    assert step.unread() == (1, 0)


def test_frequent_qualities_are_drawn_more_often() -> None:
    """Nine of ten crops and a little more have a quality index below, the others any."""
    smoke = recipes.load("smoke")
    smoke = replace(smoke, data=replace(smoke.data, frequent_qualities=2))
    step = Step(smoke, Fixed(torch.rand(2, 3, 64, 64)), torch.device("cpu"))
    torch.manual_seed(1)
    drawn = torch.bincount(step.draw_qualities(80_000), minlength=8) / 80_000
    assert len(drawn) == smoke.model.quality_count == 8
    assert drawn[:2].tolist() == pytest.approx([0.455, 0.455], abs=0.01)
    assert drawn[2:].tolist() == pytest.approx([0.015] * 6, abs=0.003)
