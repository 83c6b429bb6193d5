"""Setting up a training run: options, the run folder, data, networks, and the state of a checkpoint to resume."""

import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..convert import processors
from . import checkpoint, principal
from .data import DataSet, Source, load_pool, open_data
from .ranks import Ranks
from .recipe import Recipe
from .schedule import Budget, Clock, Progress
from .step import Step
from .stream import CropStream, StreamPool
from .watch import Watch


@dataclass(frozen=True)
class Options:
    """What the command line says beside the recipe."""

    recipe: str | Path
    data: list[str]
    out: Path
    minutes: float | None = None  # wall-clock budget over all sessions; default: the recipe's
    steps: int | None = None  # or a budget in steps
    stop_after: float | None = None  # minutes in this session, then a checkpoint and a clean end
    resume: bool = False
    initial: Path | None = None  # weights to start from
    device: str | None = None
    part_mib: float = 0.0  # cut checkpoints into parts of this size; 0: one file
    jobs: int = field(default_factory=processors)  # processes that decode pictures
    threads: int | None = None  # of torch on a CPU; default: torch's own choice
    quiet: bool = False


@dataclass
class Run:
    """One run's live parts."""

    options: Options
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


def check_folder(options: Options, recipe: Recipe) -> None:
    """ValueError unless the run folder fits: empty for a new run, with a checkpoint of the same recipe to resume."""
    if options.minutes is not None and options.steps is not None:
        raise ValueError("give --minutes or --steps, not both")
    if min(options.minutes or 1, options.steps or 1, options.stop_after or 1) <= 0:
        raise ValueError("--minutes, --steps and --stop-after must be above 0")
    held = checkpoint.exists(options.out)
    if options.resume and not held:
        raise ValueError(f"--resume: no checkpoint in {options.out}; start the run without --resume")
    if held and not options.resume:
        raise ValueError(f"{options.out} holds a run already: --resume continues it, another --out starts a new one")
    copy = options.out / "recipe.toml"
    if options.resume and copy.read_text(encoding="utf-8") != recipe.text:
        raise ValueError(f"the recipe differs from {copy}, with which the run was started: resume with that one")
    options.out.mkdir(parents=True, exist_ok=True)


def set_up(options: Options, recipe: Recipe, ranks: Ranks, device: torch.device) -> Run:
    """Data, networks, and the state of the checkpoint if there is one to resume."""
    options = replace(options, jobs=max(1, options.jobs // ranks.count))  # the ranks decode side by side
    data = open_data(options.data, recipe.data, options.jobs)
    torch.manual_seed(recipe.seed)  # the same networks on every rank ...
    progress = Progress()
    extra: dict[str, Any] = {}
    started = ""
    step = Step(recipe, _NoSource(), device, ranks)
    if options.resume:
        progress, extra = checkpoint.load(options.out, step)
    elif options.initial:
        started = checkpoint.start_from(options.initial, step)
    saved = Budget(**extra["budget"]) if extra else Budget(minutes=recipe.minutes)
    budget = Budget(options.minutes, options.steps) if options.minutes or options.steps else saved
    watch = Watch(options.out, budget, progress.seconds, ranks.first, options.quiet)
    step.source = open_source(options, recipe, data, ranks, device, progress.step, watch)
    torch.manual_seed(recipe.seed + 1 + ranks.rank)  # ... but other crops
    if not (options.resume or options.initial):
        started = start(step)
    if extra and len(extra["random"]) == ranks.count:
        checkpoint.set_random_state(extra["random"][ranks.rank], device)
    facts = describe(options, recipe, ranks, device, data) | extra.get("facts", {})
    facts["parameters"] = sum(p.numel() for p in step.joint.parameters())
    if started:
        facts["started_from"] = started
        watch.say(started)
    if ranks.first:
        checkpoint.write_atomically(options.out / "recipe.toml", recipe.text.encode())
        watch.say(f"{facts['training_data']}; {facts['parameters'] / 1e6:.2f} M parameters on {facts['device']}")
        for item in data.skipped:
            watch.say(f"skipped {item.name}: {item.reason}")
    return Run(options, recipe, ranks, device, data, step, progress, budget, Clock(progress.seconds), watch, facts)


def start(step: Step) -> str:
    """Begin untrained networks with what the pictures say, if codes are integers; what was done, for the records."""
    joint, source = step.joint, step.source
    if joint.config.one_bit:  # signs are no transform codec
        return ""
    if isinstance(source, StreamPool):  # beside the run's own, of which a resumed run must find the same crops
        source = StreamPool(source.stream, step.device, jobs=0, first_step=0)

    def crops() -> torch.Tensor:
        source.advance()
        return source.draw()

    done = principal.start(joint, crops)
    step.average.load_state_dict(joint.state_dict())
    return done


class _NoSource:
    """Stands in until the pictures are decoded; the networks come first, so that random numbers are used in order."""

    def advance(self) -> None:
        pass

    def draw(self) -> torch.Tensor:
        raise RuntimeError("no pictures yet")


def open_source(
    options: Options, recipe: Recipe, data: DataSet, ranks: Ranks, device: torch.device, first_step: int, watch: Watch
) -> Source:
    """Pictures in memory, or streamed where they would not fit; each rank has its share."""
    mine = ranks.share(data.train)
    limit = recipe.data.memory_gib * 2**30
    if data.decoded_bytes / ranks.count <= limit:
        pool, failed = load_pool(mine, recipe.data, device, options.jobs)
        for item in failed:
            watch.say(f"skipped {item.name}: {item.reason}")
        return pool
    watch.say(
        f"streaming: {data.decoded_bytes / 2**30:.1f} GiB of pixels are above memory_gib = {recipe.data.memory_gib:g}; "
        "expect the processors to be the limit"
    )
    stream = CropStream(mine, recipe.data, recipe.seed + 1000 * ranks.rank)
    return StreamPool(stream, device, options.jobs, first_step)


def describe(options: Options, recipe: Recipe, ranks: Ranks, device: torch.device, data: DataSet) -> dict[str, Any]:
    """What the model card will want to know."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    sources = ", ".join(Path(source).name for source in options.data)
    return {
        "recipe": recipe.name,
        "device": f"{ranks.count} x {name}" if ranks.count > 1 else name,
        "training_data": f"{len(data.train)} pictures, {data.megapixels:.1f} megapixels, from {sources}",
        "validation_pictures": [picture.name for picture in data.validation],
        "skipped_pictures": len(data.skipped),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "started": time.strftime("%Y-%m-%d"),
    }
