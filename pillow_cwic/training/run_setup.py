"""Setting up a training run: options, run folder, data, networks, and what a checkpoint holds.

Invariant: random numbers are drawn in the same order whether a run is fresh or resumed: first the
networks, equal on all ranks, then the crops, different on each. This module makes no steps.
"""

import math
import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..runtime import files
from ..runtime.machine import available_cores
from . import checkpoint, initial
from .crop_stream import CropStream, StreamPool
from .crops import DataSet, Source, load_pool, open_data
from .divergence import Judge
from .ranks import Ranks
from .recipe import Recipe
from .schedule import Budget, Clock, Progress
from .step import Step
from .watch import Watch

FROM_STEP = "from step"
"""What stands in the records before data that a resumed run went on with."""


@dataclass(frozen=True)
class TrainOptions:
    """What the command line says beside the recipe."""

    recipe: str | Path
    data: list[str]
    out: Path
    minutes: float | None = None  # wall-clock budget over all sessions; default: the recipe's
    steps: int | None = None  # or a budget in steps
    stop_after: float | None = None  # minutes in this session, then a checkpoint and a clean end
    resume: bool = False
    new_data: bool = False  # resume with other pictures than the run had before
    initial: Path | None = None  # weights to start from
    device: str | None = None
    part_mib: float = 0.0  # cut checkpoints into parts of this size; 0: one file
    jobs: int = field(default_factory=available_cores)  # processes that decode pictures
    threads: int | None = None  # of torch on a CPU; default: torch's own choice
    quiet: bool = False


@dataclass
class Run:
    """One run's live parts.

    Invariant: a checkpoint needs nothing of it but `step`, `progress`, `budget` and `facts`.
    """

    options: TrainOptions
    recipe: Recipe
    ranks: Ranks
    device: torch.device
    data: DataSet
    step: Step
    progress: Progress
    budget: Budget
    clock: Clock
    watch: Watch
    facts: dict[str, Any]
    judge: Judge = field(default_factory=Judge)


def check_folder(options: TrainOptions, recipe: Recipe) -> None:
    """ValueError unless options and run folder fit together; makes the folder.

    A new run needs one without a checkpoint, a resumed run a checkpoint of the same recipe.
    """
    # Options that contradict each other.
    if options.minutes is not None and options.steps is not None:
        raise ValueError("give --minutes or --steps, not both")
    limits = {"minutes": options.minutes, "steps": options.steps, "stop-after": options.stop_after}
    for name, value in limits.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} is a number above 0, found {value:g}")
    if not 0 <= options.part_mib < math.inf:
        raise ValueError(f"--part-mib is 0 (one file) or more, found {options.part_mib:g}")

    # A run is continued only on request, and only where there is one.
    has_checkpoint = checkpoint.exists(options.out)
    if options.resume and not has_checkpoint:
        raise ValueError(
            f"--resume: no checkpoint in {options.out}; start the run without --resume"
        )
    if has_checkpoint and not options.resume:
        raise ValueError(
            f"{options.out} holds a run already: --resume continues it, another --out starts a "
            "new one"
        )

    # A resumed run ends with the same bits only under the same recipe.
    copy = options.out / "recipe.toml"
    if options.resume and copy.read_text(encoding="utf-8") != recipe.text:
        raise ValueError(
            f"the recipe differs from {copy}, with which the run was started: resume with that one"
        )
    options.out.mkdir(parents=True, exist_ok=True)


def set_up(options: TrainOptions, recipe: Recipe, ranks: Ranks, device: torch.device) -> Run:
    """Data, networks, and the state of the checkpoint if there is one to resume."""
    # The ranks decode side by side.
    options = replace(options, jobs=max(1, options.jobs // ranks.count))
    data = open_data(options.data, recipe.data, options.jobs)

    # The same networks on every rank, with the state of a checkpoint or of other weights ...
    torch.manual_seed(recipe.seed)
    step = Step(recipe, _NoSource(), device, ranks)
    progress, extra, origin = load_weights(options, step)
    budget = choose_budget(options, recipe, extra)
    earlier = extra.get("facts", {})
    training_data = continued_data(options, data, earlier.get("training_data"), progress.step)
    run = Run(
        options=options,
        recipe=recipe,
        ranks=ranks,
        device=device,
        data=data,
        step=step,
        progress=progress,
        budget=budget,
        clock=Clock(progress.seconds),
        watch=Watch(options.out, budget, progress.seconds, first=ranks.first, quiet=options.quiet),
        facts={},
    )

    # ... but other crops on each.
    step.source = open_source(run)
    torch.manual_seed(recipe.seed + 1 + ranks.rank)
    if not (options.resume or options.initial):
        origin = start(step)
    if extra and len(extra["random"]) == ranks.count:
        checkpoint.set_random_state(extra["random"][ranks.rank], device)

    run.facts = describe(run) | earlier | {"training_data": training_data}
    run.facts["parameters"] = sum(p.numel() for p in step.joint.parameters())
    if origin:
        run.facts["started_from"] = origin
    introduce(run, origin)
    run.clock.begin()  # what came before is no training
    return run


def load_weights(options: TrainOptions, step: Step) -> tuple[Progress, dict[str, Any], str]:
    """Weights from a checkpoint or from a file into `step`, if the options name one.

    Returns where the run stands, what else the checkpoint holds, and what was taken from the file.
    """
    if options.resume:
        return *checkpoint.load(options.out, step), ""
    if options.initial:
        return Progress(), {}, checkpoint.start_from(options.initial, step)
    return Progress(), {}, ""


def choose_budget(options: TrainOptions, recipe: Recipe, extra: dict[str, Any]) -> Budget:
    """What the command line asks for, or else the checkpoint's budget, or else the recipe's."""
    if options.minutes is not None or options.steps is not None:
        return Budget(options.minutes, options.steps)
    return Budget(**extra["budget"]) if extra else Budget(minutes=recipe.minutes)


def continued_data(options: TrainOptions, data: DataSet, before: str | None, step: int) -> str:
    """The training data, for the records; ValueError where a resumed run's has changed."""
    sources = ", ".join(Path(source).name for source in options.data)
    now = f"{len(data.train)} pictures, {data.megapixels:.1f} megapixels, from {sources}"
    if before is None:
        return now
    newest = before.rpartition(f"; {FROM_STEP} ")[2].partition(": ")[2]
    if now in (before, newest):
        return before
    if not options.new_data:
        raise ValueError(
            f"--data has {now}; the run was trained on {before}: give the same, or --new-data to "
            "go on with these"
        )
    return f"{before}; {FROM_STEP} {step}: {now}"


def introduce(run: Run, origin: str) -> None:
    """Say what the run starts from and with; the first rank keeps a copy of the recipe."""
    if origin:
        run.watch.say(origin)
    if not run.ranks.first:
        return
    files.write_atomically(run.options.out / "recipe.toml", run.recipe.text.encode())
    run.watch.say(
        f"{run.facts['training_data']}; {run.facts['parameters'] / 1e6:.2f} M parameters on "
        f"{run.facts['device']}"
    )
    for item in run.data.skipped:
        run.watch.say(f"skipped {item.name}: {item.reason}")


def start(step: Step) -> str:
    """Begin untrained networks with what the pictures say, if codes are integers.

    What was done, for the records.
    """
    joint = step.joint
    if joint.config.one_bit:  # signs are no transform codec
        return ""

    # A stream of its own: of the run's, a resumed run must find the same crops.
    source = step.source
    if isinstance(source, StreamPool):
        source = StreamPool(source.stream, step.device, jobs=0, first_step=0)

    def crops() -> torch.Tensor:
        source.advance()
        return source.draw()

    report = initial.start(joint, crops)
    step.average.load_state_dict(joint.state_dict())
    return report


class _NoSource:
    """Stands in until the pictures are decoded.

    The networks come first, so that random numbers are used in order.
    """

    def advance(self) -> None:
        pass

    def draw(self) -> torch.Tensor:
        raise RuntimeError("no pictures yet")

    def close(self) -> None:
        pass


def open_source(run: Run) -> Source:
    """Pictures in memory, or streamed where they would not fit; each rank has its share."""
    recipe = run.recipe
    own_share = run.ranks.share(run.data.train)
    limit_bytes = recipe.data.memory_gib * 2**30
    if run.data.decoded_bytes / run.ranks.count <= limit_bytes:
        pool, failed = load_pool(own_share, recipe.data, run.device, run.options.jobs)
        for item in failed:
            run.watch.say(f"skipped {item.name}: {item.reason}")
        return pool

    # Decoded anew at every draw.
    run.watch.say(
        f"streaming: {run.data.decoded_bytes / 2**30:.1f} GiB of pixels are above memory_gib = "
        f"{recipe.data.memory_gib:g}; "
        "expect the processors to be the limit"
    )
    stream = CropStream(own_share, recipe.data, recipe.seed + 1000 * run.ranks.rank)
    return StreamPool(stream, run.device, run.options.jobs, run.progress.step)


def describe(run: Run) -> dict[str, Any]:
    """What the model card will want to know."""
    data = run.data
    count = run.ranks.count
    if run.device.type == "cuda":
        device = torch.cuda.get_device_name(run.device)
    else:
        device = f"{torch.get_num_threads()} CPU threads"

    # Names as in run.json.
    return {
        "recipe": run.recipe.name,
        "device": f"{count} x {device}" if count > 1 else device,
        "validation_pictures": [picture.name for picture in data.validation],
        "skipped_pictures": len(data.skipped),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "started": time.strftime("%Y-%m-%d"),
    }
