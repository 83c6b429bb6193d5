"""`train`: from a recipe and a folder of pictures to trained weights. `loop` is the straight line through it.

A run folder holds recipe.toml (what was asked), run.json (what it ran on and how it went), log.jsonl, the newest
checkpoint, and weights.safetensors: the moving average of the weights, which `export` turns into a model.
"""

import json
import signal
from types import FrameType

import torch
from safetensors.torch import save as save_safetensors

from ..model import resolve_device
from . import checkpoint
from . import recipe as recipes
from .data import load_whole
from .ranks import joined
from .schedule import Progress, learning_rate, stage_at
from .setup import Options, Run, check_folder, set_up
from .validate import validate

CLOCK_STEPS = 20
"""Steps between looks at the clock on a GPU: each look waits for the device or for the other ranks."""


def train(options: Options) -> Progress:
    """Train until the budget is used, or `stop_after`, or a signal; the run folder then holds the result.

    ValueError for a wrong recipe, wrong options or too few pictures; OSError for unreadable data or checkpoints.
    """
    recipe = recipes.load(options.recipe)
    check_folder(options, recipe)
    with joined(options.device) as (ranks, device_name):
        device = resolve_device(device_name)
        threads = torch.get_num_threads()
        torch.backends.cudnn.benchmark = device.type == "cuda"
        torch.set_num_threads(options.threads or threads)
        run = set_up(options, recipe, ranks, device)
        try:
            whole = load_whole(run.data.validation, options.jobs) if ranks.first else []
            with StopSignal() as stop:
                loop(run, whole, stop)
            finish(run, whole)
        finally:
            run.step.forward = run.step.joint  # lets go of the process group, see `joined`
            run.watch.close()
            torch.set_num_threads(threads)
    return run.progress


def loop(run: Run, whole: list[tuple[str, torch.Tensor]], stop: "StopSignal") -> None:
    """Step after step until the budget is used or someone says stop."""
    recipe, step, progress, watch = run.recipe, run.step, run.progress, run.watch
    stages, looked = recipe.stages, 1 if run.device.type == "cpu" else CLOCK_STEPS
    saved_at = progress.seconds  # not a clock of the rank's own: all ranks must save at the same step, or hang
    stopping = False
    begin_stage(run, progress.stage)
    while (used := run.budget.used(progress)) < 1 and not stopping:
        index, within = stage_at(stages, used)
        if index != progress.stage:
            progress.stage, progress.stage_start = index, progress.step
            begin_stage(run, index)
        stage = stages[index]
        rate = learning_rate(stage, within, progress.step - progress.stage_start)
        step.rate.fill_(rate)
        step()
        progress.step += 1
        if progress.step % looked == 0:
            if run.device.type == "cuda" and progress.step % (5 * looked) == 0:
                torch.cuda.synchronize()  # else the processor runs ahead of the device and the clock means nothing
            progress.seconds, stopping = run.ranks.agree((run.clock.total(), stop.asked or time_is_up(run)))
        if progress.step % recipe.watch.log_every == 0:
            note_step(run, rate, stage.name)
        if validation_due(run, used):
            watch.validation(progress, validate(step.average, whole, recipe.watch.validation_qualities, run.device))
        if progress.seconds - saved_at > 60 * recipe.watch.checkpoint_minutes:
            save(run)
            saved_at = progress.seconds


def begin_stage(run: Run, index: int) -> None:
    """Set up the step for a stage: what learns, in which form it runs."""
    stage, step = run.recipe.stages[index], run.step
    step.begin(stage)
    step.forward = run.ranks.wrap(step.joint, unused=not stage.importance)
    run.watch.say(f"stage {stage.name!r} from step {run.progress.step}: {', '.join(stage.train)} learn")
    step.prepare(run.watch.say)


def time_is_up(run: Run) -> bool:
    """True once this session has lasted `stop_after` minutes."""
    limit = run.options.stop_after
    return limit is not None and run.clock.session() > 60 * limit


def note_step(run: Run, rate: float, stage: str) -> None:
    """Read the sums on the device and show them."""
    means = run.step.take_sums()
    run.progress.skipped += int(means["skipped"])
    run.watch.step(run.progress, means, rate, stage)


def validation_due(run: Run, before: float) -> bool:
    """True on the step that crosses one of the recipe's validation points; the last one is `finish`'s."""
    count, after = run.recipe.watch.validations, run.budget.used(run.progress)
    return after < 1 and int(before * count) < int(after * count)


def save(run: Run) -> None:
    """Write a checkpoint (all ranks meet here; the first writes)."""
    states = run.ranks.gather(checkpoint.random_state(run.device))
    optimizer = run.step.optimizer.state_dict()
    if run.ranks.first:
        budget = {"minutes": run.budget.minutes, "steps": run.budget.steps}
        extra = {"random": states, "budget": budget, "facts": run.facts}
        part_bytes = int(run.options.part_mib * 2**20)
        checkpoint.save(run.options.out, run.step, optimizer, run.progress, extra, part_bytes)


def finish(run: Run, whole: list[tuple[str, torch.Tensor]]) -> None:
    """Checkpoint, weights for export, facts, a last validation, plots."""
    progress, out = run.progress, run.options.out
    save(run)
    check_ranks_agree(run)
    if not run.ranks.first:
        return
    weights = save_safetensors(checkpoint.float_weights(run.step.average))
    checkpoint.write_atomically(out / "weights.safetensors", weights)
    points = validate(run.step.average, whole, run.recipe.watch.validation_qualities, run.device)
    run.watch.validation(progress, points)
    done = run.budget.used(progress) >= 1
    peak = torch.cuda.max_memory_allocated() / 2**30 if run.device.type == "cuda" else 0.0
    facts = run.facts | {
        "finished": done,
        "steps": progress.step,
        "skipped_steps": progress.skipped + run.step.unread_skipped(),
        "minutes": round(progress.seconds / 60, 2),
        "peak_gpu_gib": round(peak, 2),
        "validation": [point.as_dict() for point in points],
    }
    checkpoint.write_atomically(out / "run.json", json.dumps(facts, indent=1).encode())
    if done and run.recipe.watch.plots:
        from .plots import plot_run

        plot_run(out, run.step.average, whole, run.device, run.watch.say)
    end = "done" if done else "stopped; --resume goes on from here"
    run.watch.say(
        f"{end}: {progress.step} steps, {progress.skipped} skipped, {progress.seconds / 60:.1f} minutes, {out}"
    )


def check_ranks_agree(run: Run) -> None:
    """RuntimeError if the ranks' weights have drifted apart: averaging the gradients should make that impossible."""
    total = sum(float(p.detach().double().sum()) for p in run.step.joint.parameters())
    totals = run.ranks.gather(total)
    if len(set(totals)) != 1:
        raise RuntimeError(f"the ranks ended with different weights (sums {totals}): this run is not to be used")


class StopSignal:
    """Ctrl-C and SIGTERM end the run after the current step, with a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
