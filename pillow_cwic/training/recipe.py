"""Recipes: everything that decides a training run, as one TOML file and one frozen dataclass.

A recipe is copied into the run folder, so that a model can always be traced to what made it.
Invariant: a `Recipe` that exists is complete, of the right types and consistent; every key of the
file was understood. This module knows no torch and no pictures.
"""

import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..format.grid import GRID
from ..metrics import MS_SSIM_MIN_SIDE
from ..networks.config import ModelConfig

TRAINABLE = ("encoder", "decoder", "planes", "maps")
"""The parts of a joint codec that a stage can train: two CNNs, two entropy networks."""


@dataclass(frozen=True)
class DataRecipe:
    """Which pictures, and how crops are cut from them."""

    crop: int = 256  # side of a training crop in pixels, a multiple of GRID
    batch: int = 32  # crops per step and process
    min_pictures: int = 64  # fewer usable pictures are an error
    area_power: float = 0.7  # a picture is drawn with probability proportional to area ** this
    downscaled_share: float = 0.0  # share of a batch that is cut from pictures reduced on the fly
    max_downscale: float = 2.0  # ... by a random factor between 1 and this
    memory_gib: float = 8.0  # decoded pictures above this are not kept in memory but streamed
    validation_pictures: int = 8  # held out of training, looked at as a whole
    frequent_qualities: int = 0  # quality indices below this are drawn more often; 0: all alike


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised.

    `rate-distortion`: bpp + lambda * distortion, jointly over all quality indices. `importance`:
    the paper's loss, distortion + weight * max(0, mean(p) - target); the entropy networks learn
    beside it.
    """

    form: str = "rate-distortion"
    # A sample is weighted by (lambda / pivot) ** -balance, so that no quality drowns the others.
    balance: float = 0.4
    pivot: float = 0.006
    importance_target: float = 0.5  # r: mean of the importance map that costs nothing
    importance_weight: float = 1000.0  # gamma, against a mean squared error in 8-bit steps


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer, gradient clipping and the moving average that is exported."""

    name: str = "adamw"  # or "soap": for the convolutions, with AdamW for the rest
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999  # of the moving average of the weights; less early in a run


@dataclass(frozen=True)
class CudaRecipe:
    """What is different on an NVIDIA GPU; elsewhere these do nothing."""

    bfloat16: bool = True  # encoder and decoder under autocast
    entropy_bfloat16: bool = False  # the entropy networks too, but for probabilities and loss
    compile: bool = True  # torch.compile of forward and loss
    capture: bool = True  # the whole step as one CUDA graph


@dataclass(frozen=True)
class CpuRecipe:
    """What is different on a processor."""

    bfloat16: bool = False  # encoder and decoder under autocast, where the processor has it
    compile: bool = False  # bits and distortion by torch.compile, where there is a C++ compiler


@dataclass(frozen=True)
class WatchRecipe:
    """What is written down while training."""

    log_every: int = 100  # steps between log lines
    checkpoint_minutes: float = 5.0  # wall-clock between checkpoints
    validations: int = 8  # times in a run, the last at its end
    validation_qualities: tuple[int, ...] = (2, 22, 42, 62)  # quality indices
    plots: bool = True  # at the end: learning curves, importance maps, rate-distortion


@dataclass(frozen=True)
class Stage:
    """A part of the run with its own learning rate."""

    name: str
    share: float  # of the whole budget; the shares of all stages sum to 1
    learning_rate: float  # at its start ...
    final_learning_rate: float  # ... and at its end
    decay: str = "linear"  # or "geometric"
    warmup_steps: int = 0
    importance: bool = True  # false: all codes are kept, the map costs nothing (paper, stage 1)
    explore: float = 0.0  # share of the crops whose importance map is opened further, at random
    choose: bool = False  # learn on the codes that the coder would choose, not on rounded features
    train: tuple[str, ...] = TRAINABLE  # parts that learn; the others keep their weights


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    name: str
    description: str
    minutes: float  # wall-clock budget when the command names none
    seed: int
    model: ModelConfig
    data: DataRecipe
    loss: LossRecipe
    optimizer: OptimizerRecipe
    cuda: CudaRecipe
    cpu: CpuRecipe
    watch: WatchRecipe
    stages: tuple[Stage, ...]
    text: str  # the file itself


TABLES: dict[str, type] = {
    "data": DataRecipe,
    "loss": LossRecipe,
    "optimizer": OptimizerRecipe,
    "cuda": CudaRecipe,
    "cpu": CpuRecipe,
    "watch": WatchRecipe,
}
TOP: dict[str, type] = {"name": str, "description": str, "minutes": float, "seed": int}


def load(recipe: str | Path) -> Recipe:
    """Read a recipe by path, or by the name of a shipped one.

    ValueError names what is wrong, and where.
    """
    path = locate(recipe)
    return parse(path.read_text(encoding="utf-8"), path.name)


def shipped_folder() -> Path:
    """Where the shipped recipes are: beside this module in a wheel, else in training/recipes."""
    in_wheel = Path(__file__).parent / "recipes"
    in_checkout = Path(__file__).parents[2] / "training" / "recipes"
    return in_wheel if in_wheel.is_dir() else in_checkout


def shipped() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in shipped_folder().glob("*.toml"))


def locate(recipe: str | Path) -> Path:
    """Path of a recipe given as a path or a shipped name; ValueError lists the names there are."""
    path = Path(recipe)
    if path.is_file():
        return path
    named = shipped_folder() / f"{path.name.removesuffix('.toml')}.toml"
    if path.name == str(recipe) and named.is_file():
        return named
    raise ValueError(
        f"no recipe {str(recipe)!r}: expected a TOML file or one of {', '.join(shipped())}"
    )


def parse(text: str, where: str) -> Recipe:
    """Check a recipe's text; `where` names it in errors (ValueError)."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {where} is not TOML: {error}") from None
    _refuse_unknown(document, [*TOP, *TABLES, "model", "stages"], where)

    # Each table by its own dataclass, which knows the keys and their types.
    top = {key: _typed(document.get(key), kind, f"{where}: {key}") for key, kind in TOP.items()}
    sections = {
        name: _build(kind, document.get(name, {}), f"{where} [{name}]")
        for name, kind in TABLES.items()
    }
    try:
        model = ModelConfig.from_dict(document.get("model", {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"recipe {where} [model]: {error}") from None
    stages = _stages(document.get("stages", []), where)

    # What no table can say of itself.
    recipe = Recipe(**top, model=model, **sections, stages=stages, text=text)
    _check(recipe, where)
    return recipe


def _stages(tables: Any, where: str) -> tuple[Stage, ...]:
    if not isinstance(tables, list) or not tables:
        raise ValueError(
            f"recipe {where}: expected at least one [[stages]] table, found {tables!r}"
        )
    return tuple(
        _build(Stage, table, f"{where} [[stages]] {number}")
        for number, table in enumerate(tables, 1)
    )


def _build(kind: type, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ValueError(f"recipe {where}: expected a table, found {table!r}")
    _refuse_unknown(table, [field.name for field in fields(kind)], where)
    types = get_type_hints(kind)
    required = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise ValueError(f"recipe {where}: missing {', '.join(missing)}")
    return kind(
        **{name: _typed(value, types[name], f"{where} {name}") for name, value in table.items()}
    )


def _refuse_unknown(table: dict[str, Any], keys: list[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"recipe {where}: unknown key {key!r}; known are {', '.join(keys)}")


def _typed(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            raise ValueError(f"recipe {where}: expected a list, found {value!r}")
        return tuple(_typed(item, get_args(kind)[0], where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"recipe {where}: expected {kind.__name__}, found {value!r}")
    return value


Rule = tuple[bool, str]
"""Whether it is kept, and what to say if it is not."""


def _check(recipe: Recipe, where: str) -> None:
    for kept, message in (*_data_rules(recipe), *_run_rules(recipe), *_all_stage_rules(recipe)):
        if not kept:
            raise ValueError(f"recipe {where}: {message}")


def _data_rules(recipe: Recipe) -> list[Rule]:
    data = recipe.data

    # Each says what it expected and what it found.
    return [
        (recipe.minutes > 0, f"minutes: expected more than 0, found {recipe.minutes}"),
        (
            data.crop > 0 and data.crop % GRID == 0,
            f"[data] crop: expected a multiple of {GRID}, found {data.crop}",
        ),
        # All scales: a loss that changed with the crop would be another loss.
        (
            max(recipe.model.ms_ssim_weight) == 0 or data.crop >= MS_SSIM_MIN_SIDE,
            f"[model] ms_ssim_weight needs [data] crop of at least {MS_SSIM_MIN_SIDE} pixels, "
            f"found {data.crop}",
        ),
        # A batch is never empty, a picture never enlarged.
        (data.batch > 0, f"[data] batch: expected at least 1, found {data.batch}"),
        (
            0 <= data.downscaled_share <= 1,
            f"[data] downscaled_share: expected 0..1, found {data.downscaled_share}",
        ),
        (
            0 <= data.frequent_qualities <= recipe.model.quality_count,
            f"[data] frequent_qualities: expected 0..{recipe.model.quality_count}, "
            f"found {data.frequent_qualities}",
        ),
        (
            data.max_downscale >= 1,
            f"[data] max_downscale: expected at least 1, found {data.max_downscale}",
        ),
    ]


def _run_rules(recipe: Recipe) -> list[Rule]:
    form = recipe.loss.form
    optimizer = recipe.optimizer
    rules = [
        (
            form in ("rate-distortion", "importance"),
            f"[loss] form: expected 'rate-distortion' or 'importance', found {form!r}",
        ),
        (
            optimizer.name in ("adamw", "soap"),
            f"[optimizer] name: expected 'adamw' or 'soap', found {optimizer.name!r}",
        ),
        (
            0 <= optimizer.ema_decay < 1,
            f"[optimizer] ema_decay: expected 0..1, found {optimizer.ema_decay}",
        ),
    ]

    # Qualities count from 0.
    for index in recipe.watch.validation_qualities:
        message = f"[watch] validation_qualities: {index} is not an index of the model"
        rules.append((0 <= index < recipe.model.quality_count, message))
    return rules


def _all_stage_rules(recipe: Recipe) -> list[Rule]:
    total = sum(stage.share for stage in recipe.stages)
    rules = [(abs(total - 1) < 1e-6, "[[stages]]: the shares must sum to 1")]
    for stage in recipe.stages:
        rules += _stage_rules(stage)
        signs_chosen = stage.choose and recipe.model.one_bit
        message = f"stage {stage.name!r}: choose is for integer codes, not for signs"
        rules.append((not signs_chosen, message))
    return rules


def _stage_rules(stage: Stage) -> list[Rule]:
    title = f"stage {stage.name!r}"
    unknown = sorted(set(stage.train) - set(TRAINABLE))

    # Each says what it expected and what it found.
    return [
        (stage.share > 0, f"{title}: share must be above 0, found {stage.share}"),
        (
            stage.learning_rate >= stage.final_learning_rate > 0,
            f"{title}: expected learning_rate >= final_learning_rate > 0, "
            f"found {stage.learning_rate} and {stage.final_learning_rate}",
        ),
        (
            stage.decay in ("linear", "geometric"),
            f"{title}: decay is 'linear' or 'geometric', found {stage.decay!r}",
        ),
        (
            not unknown,
            f"{title}: train names {', '.join(unknown)}; expected some of {', '.join(TRAINABLE)}",
        ),
        (0 <= stage.explore <= 1, f"{title}: explore must be 0..1, found {stage.explore}"),
    ]
