"""`train`: from a recipe and a folder of pictures to trained weights.

`loop` is the straight line through it. A run folder holds recipe.toml (what was asked), run.json
(what it ran on and how it went), log.jsonl, the newest checkpoint, and weights.safetensors: the
moving average of the weights, which `export` turns into a model.

Invariant: whatever stops a run, what it leaves can be resumed, and then ends with the same bits.
This module knows no networks and no losses: one call of `Step` is one step.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import torch
from safetensors.torch import save as save_safetensors

from ..networks.torch_network import training_device
from ..runtime import files
from . import checkpoint
from . import recipe as recipes
from .crops import load_whole
from .divergence import DivergedError
from .ranks import Ranks, process_group
from .records import to_json
from .run_setup import Run, TrainOptions, check_folder, set_up
from .schedule import Progress, learning_rate, stage_at
from .validation import Point, validate

CLOCK_STEPS = 20
"""Steps between looks at the clock on a GPU: each waits for the device or the other ranks."""


def train(options: TrainOptions) -> Progress:
    """Train until the budget is used, or `stop_after`, or a signal.

    The run folder then holds the result. ValueError for a wrong recipe, wrong options or too few
    pictures; OSError for unreadable data or checkpoints.
    """
    recipe = recipes.load(options.recipe)
    check_folder(options, recipe)

    with (
        process_group(options.device) as (ranks, device_name),
        sole_writer(options.out, ranks),
    ):
        check_folder(options, recipe)  # once more, now that nobody else writes
        # torch's settings of the process, put back at the end.
        device = training_device(device_name)
        threads = torch.get_num_threads()
        torch.backends.cudnn.benchmark = device.type == "cuda"
        torch.set_num_threads(options.threads or threads)

        run = set_up(options, recipe, ranks, device)
        try:
            held_out = load_whole(run.data.validation, options.jobs) if ranks.first else []
            diverged = None
            try:
                with StopSignal() as stop:
                    loop(run, held_out, stop)
                refuse_if_diverged(run)
            except DivergedError as error:
                diverged = go_back(run, error)
            finish(run, held_out)
            if diverged:
                raise diverged
        finally:
            run.step.forward = run.step.joint  # lets go of the process group, see `process_group`
            run.step.source.close()
            run.watch.close()
            torch.set_num_threads(threads)
    return run.progress


@contextmanager
def sole_writer(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile; ValueError where someone does."""
    if not ranks.first:
        yield
        return
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"another training writes into {folder}: wait, or take another --out"
        ) from None
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def loop(run: Run, held_out: list[tuple[str, torch.Tensor]], stop: "StopSignal") -> None:
    """Step after step until the budget is used or someone says stop."""
    recipe = run.recipe
    progress = run.progress
    # Not a clock of the rank's own: all ranks must save at the same step, or hang.
    saved_at = progress.seconds
    stopping = False
    begin_stage(run, progress.stage)

    while (used := run.budget.used(progress)) < 1 and not stopping:
        # Stages follow each other by the share of the budget that is used.
        index, within = stage_at(recipe.stages, used)
        if index != progress.stage:
            progress.stage = index
            progress.stage_start = progress.step
            begin_stage(run, index)

        # The step, at the rate of the moment.
        stage = recipe.stages[index]
        rate = learning_rate(stage, within, progress.step - progress.stage_start)
        run.step.rate.fill_(rate)
        run.step()
        progress.step += 1

        # Looking at the clock may wait for others, so it is not done at every step everywhere.
        if progress.step % clock_steps(run.device) == 0:
            stopping = read_clock(run, stop)

        # What people want to see, and what must not be lost.
        if progress.step % recipe.watch.log_every == 0:
            note_step(run, rate, stage.name)
        if validation_due(run, used):
            run.watch.validation(progress, validate_average(run, held_out))
        if progress.seconds - saved_at > 60 * recipe.watch.checkpoint_minutes:
            refuse_if_diverged(run)  # not over a checkpoint that is good
            save(run)
            saved_at = progress.seconds


def begin_stage(run: Run, index: int) -> None:
    """Set up the step for a stage: what learns, in which form it runs."""
    stage = run.recipe.stages[index]
    step = run.step
    step.begin(stage)
    step.forward = run.ranks.wrap(step.joint, unused=not stage.importance)
    run.watch.say(
        f"stage {stage.name!r} from step {run.progress.step}: {', '.join(stage.train)} learn"
    )
    step.prepare(run.watch.say)


def clock_steps(device: torch.device) -> int:
    """Steps between two looks at the clock."""
    return 1 if device.type == "cpu" else CLOCK_STEPS


def read_clock(run: Run, stop: "StopSignal") -> bool:
    """Bring the time used up to date, the same on all ranks; True if this session shall end."""
    on_gpu = run.device.type == "cuda"
    if on_gpu and run.progress.step % (5 * clock_steps(run.device)) == 0:
        # Else the processor runs ahead of the device and the clock means nothing.
        torch.cuda.synchronize()
    own_view = run.clock.total(), stop.asked or time_is_up(run)
    run.progress.seconds, stopping = run.ranks.agree(own_view)
    return stopping


def time_is_up(run: Run) -> bool:
    """True once this session has lasted `stop_after` minutes."""
    limit = run.options.stop_after
    return limit is not None and run.clock.session() > 60 * limit


def note_step(run: Run, rate: float, stage: str) -> None:
    """Read the sums on the device and show them."""
    means = run.step.take_sums()
    run.progress.skipped += int(means["skipped"])
    run.watch.step(run.progress, means, rate, stage)
    if run.ranks.agree(run.judge.add(int(means["steps"]), int(means["skipped"]))):
        raise DivergedError(str(run.judge))


def refuse_if_diverged(run: Run) -> None:
    """DivergedError if the steps up to here are too bad to be kept."""
    steps, skipped = run.step.unread()
    if run.ranks.agree(run.judge.too_bad(steps, skipped)):
        run.judge.add(steps, skipped)
        raise DivergedError(str(run.judge))


def go_back(run: Run, error: DivergedError) -> DivergedError:
    """Back to the newest checkpoint, which is from before; the error that the run ends with.

    Raises it where there is none.
    """
    out = run.options.out
    what = f"the training diverged at step {run.progress.step}: {error}"
    advice = "try a smaller learning_rate or clip_norm"
    if not checkpoint.exists(out):
        raise DivergedError(f"{what}, and there is no checkpoint yet; {advice}")
    run.watch.say(what)
    run.facts["diverged_at_step"] = run.progress.step
    run.progress, _ = checkpoint.load(out, run.step)
    return DivergedError(f"{what}; {out} ends with step {run.progress.step}, from before; {advice}")


def validation_due(run: Run, used_before: float) -> bool:
    """True on the step that crosses one of the recipe's validation points.

    The last one is `finish`'s.
    """
    count = run.recipe.watch.validations
    used = run.budget.used(run.progress)
    return used < 1 and int(used_before * count) < int(used * count)


def validate_average(run: Run, held_out: list[tuple[str, torch.Tensor]]) -> list[Point]:
    """The moving average of the weights on the held-out pictures, at the recipe's qualities."""
    return validate(run.step.average, held_out, run.recipe.watch.validation_qualities, run.device)


def save(run: Run) -> None:
    """Write a checkpoint (all ranks meet here; the first writes)."""
    random_states = run.ranks.gather(checkpoint.random_state(run.device))
    optimizer = run.step.optimizer.state_dict()
    if run.ranks.first:
        budget = {"minutes": run.budget.minutes, "steps": run.budget.steps}
        extra = {"random": random_states, "budget": budget, "facts": run.facts}
        state = checkpoint.RunState(optimizer, run.progress, extra)
        part_bytes = int(run.options.part_mib * 2**20)
        checkpoint.save(run.options.out, run.step, state, part_bytes)


def finish(run: Run, held_out: list[tuple[str, torch.Tensor]]) -> None:
    """Checkpoint, weights for export, facts, a last validation, plots."""
    progress = run.progress
    out = run.options.out
    save(run)
    check_ranks_agree(run)
    if not run.ranks.first:
        return

    # What `export` reads, before anything that can fail for want of a library.
    weights = save_safetensors(checkpoint.float_weights(run.step.average))
    files.write_atomically(out / "weights.safetensors", weights)
    points = validate_average(run, held_out)
    run.watch.validation(progress, points)
    facts = run.facts | outcome_facts(run, points)
    files.write_atomically(out / "run.json", to_json(facts, indent=1).encode())

    if facts["finished"] and run.recipe.watch.plots:
        from .plots import plot_run

        plot_run(out, run.step.average, held_out, run.device, run.watch.say)

    end = "done" if facts["finished"] else "stopped; --resume goes on from here"
    run.watch.say(
        f"{end}: {progress.step} steps, {progress.skipped} skipped, {progress.seconds / 60:.1f} "
        f"minutes, {out}"
    )
    if not all(point.is_finite for point in points):
        raise DivergedError(f"the last validation is not finite: {out} is not to be used")


def outcome_facts(run: Run, points: list[Point]) -> dict[str, Any]:
    """What run.json says about how the run went."""
    peak_bytes = torch.cuda.max_memory_allocated() if run.device.type == "cuda" else 0
    return {
        "finished": run.budget.used(run.progress) >= 1,
        "steps": run.progress.step,
        "skipped_steps": run.progress.skipped + run.step.unread()[1],
        "minutes": round(run.progress.seconds / 60, 2),
        "peak_gpu_gib": round(peak_bytes / 2**30, 2),
        "validation": [point.as_dict() for point in points],
    }


def check_ranks_agree(run: Run) -> None:
    """RuntimeError if the ranks' weights have drifted apart.

    Averaging the gradients should make that impossible.
    """
    total = sum(float(p.detach().double().sum()) for p in run.step.joint.parameters())
    totals = run.ranks.gather(total)
    if len(set(totals)) != 1:
        raise RuntimeError(
            f"the ranks ended with different weights (sums {totals}): this run is not to be used"
        )


class StopSignal:
    """Ctrl-C and SIGTERM end the run after the current step, with a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
        self.handlers_before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self.handlers_before.items():
            signal.signal(number, handler)
