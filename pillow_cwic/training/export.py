"""`export`: a run -> a model that others can use.

That is a weights file, its manifest entry, a rate-distortion table and a model card. Invariant:
what is written down of a model comes from the run's own records or was measured on its files. This
module knows no training.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..networks.config import ModelConfig
from ..runtime.files import write_atomically
from ..tools.rivals import MEASURED
from ..weights import catalogue, manifest
from ..weights.manifest_fields import NAME_RULE, is_name
from . import evaluate
from . import recipe as recipes
from .curves import Curve
from .integer_weights import export_weights
from .joint_codec import JointCodec
from .pictures import Skipped
from .recipe import Recipe

CALIBRATION_POINTS = 9
"""Quality indices that are measured for the manifest, evenly spaced over the model's."""

PUBLISHED_FACTS = ("recipe", "training_data", "device", "steps", "minutes")
"""What the manifest repeats of run.json."""


@dataclass(frozen=True)
class ExportOptions:
    """What the command line says."""

    run: Path
    name: str
    out: Path
    images: list[str]  # calibration pictures; none: no calibration, no table
    licence: str = "not stated"
    install: bool = False
    codecs: tuple[str, ...] = MEASURED
    jobs: int = 1


def export(options: ExportOptions) -> tuple[manifest.Entry, list[Skipped]]:
    """Write a run's model into `out` -> its manifest entry, and pictures that were not measured.

    NAME.safetensors, NAME.md, NAME.toml, manifest.json and, with pictures, rd.*. OSError if the run
    has no weights, WeightsError if its integer form breaks the accumulator bound, ValueError for a
    name that the manifest does not allow.
    """
    if not is_name(options.name):
        raise ValueError(f"--name is {NAME_RULE}; found {options.name!r}")

    # The weights file, by which the model is named and measured.
    recipe = recipes.load(options.run / "recipe.toml")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.name}.safetensors"
    sha256 = export_weights(load_joint(options.run, recipe), path)

    # What its qualities are worth.
    indices = calibration_indices(recipe.model)
    curve, skipped = calibrate(options, path, indices) if options.images else (None, [])
    quality = [
        {"index": index, "bpp": round(point.bpp, 5), "psnr": round(point.psnr or 0.0, 3)}
        for index, point in zip(indices, curve.points if curve else (), strict=False)
    ]

    # The manifest's entry is checked as it is read: nothing is written that cannot be read.
    facts = read_facts(options.run)
    entry = {
        "name": options.name,
        "file": path.name,
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "urls": [],
        "config": json.loads(recipe.model.to_json()),
        "quality": quality,
        "licence": options.licence,
        "training": {key: facts[key] for key in PUBLISHED_FACTS if key in facts},
    }
    checked = add_to_manifest(options.out / "manifest.json", entry)

    # What people read.
    table = (options.out / "rd.md").read_text("utf-8") if curve else "Not measured.\n"
    card = model_card(checked, recipe, facts, table)
    write_atomically(options.out / f"{options.name}.md", card.encode())
    write_atomically(options.out / f"{options.name}.toml", recipe.text.encode())
    if options.install:
        catalogue.add(str(options.out / "manifest.json"))
    return checked, skipped


def load_joint(run: Path, recipe: Recipe) -> JointCodec:
    """The run's averaged weights in a joint codec.

    OSError if there are none, ValueError if they do not fit or are not finite.
    """
    path = run / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the run has not been trained, or not to an end; see its checkpoint"
        )
    joint = JointCodec(recipe.model)
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: {broken[0]} is not finite: the training diverged")
    try:
        joint.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the recipe's [model]: {error}") from None
    return joint.eval()


def read_facts(run: Path) -> dict[str, Any]:
    """run.json, or nothing for weights that came without one."""
    path = run / "run.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def calibration_indices(config: ModelConfig) -> list[int]:
    """The quality indices to measure."""
    last = config.quality_count - 1
    return sorted({round(last * k / (CALIBRATION_POINTS - 1)) for k in range(CALIBRATION_POINTS)})


def calibrate(
    options: ExportOptions, path: Path, indices: list[int]
) -> tuple[Curve, list[Skipped]]:
    """Rate and quality by real files at the given indices, beside Pillow's codecs.

    Writes rd.* into `out`. Pictures that could not be measured come second.
    """
    curves, skipped = evaluate.evaluate(
        evaluate.EvaluateOptions(
            models=[str(path)],
            images=options.images,
            out=options.out,
            indices=tuple(indices),
            codecs=options.codecs,
            jobs=options.jobs,
        )
    )
    return curves[0], skipped


def add_to_manifest(path: Path, entry: dict[str, Any]) -> manifest.Entry:
    """Put an entry into the manifest at `path`, in place of one with the same name.

    The file is created if it is missing. ValueError for an entry that breaks the manifest's rules.
    """
    document: dict[str, Any] = {"schema": manifest.SCHEMA, "models": []}
    if path.is_file():
        document = json.loads(path.read_text("utf-8"))
    others = [model for model in document["models"] if model["name"] != entry["name"]]
    document["models"] = [*others, entry]
    data = json.dumps(document, indent=1).encode()
    checked = manifest.parse(data, str(path.absolute())).by_name(entry["name"])
    if checked is None:
        raise ValueError(f"the manifest {path} did not take {entry['name']!r}")
    write_atomically(path, data)
    return checked


def model_card(entry: manifest.Entry, recipe: Recipe, facts: dict[str, Any], table: str) -> str:
    """The model card as Markdown.

    What it is, how it was made, what it reaches, what may be done with it.
    """
    # Models that came without records have a card as well.
    time = "not recorded"
    if "minutes" in facts:
        time = f"{facts['minutes']} minutes, {facts['steps']} steps"
    properties = {
        "Id": entry.id,
        "File": f"{entry.file}, {entry.bytes} bytes, SHA-256 {entry.sha256}",
        "Licence": entry.licence,
        "Recipe": f"{recipe.name}: {recipe.description}",
        "Training data": facts.get("training_data", "not recorded"),
        "Started from": facts.get("started_from", "random weights"),
        "Hardware": facts.get("device", "not recorded"),
        "Time": time,
        "Steps that were not finite": facts.get("skipped_steps", "not recorded"),
        "Parameters in training": facts.get("parameters", "not recorded"),
        "PyTorch": facts.get("torch", "not recorded"),
        "Date": facts.get("started", "not recorded"),
    }

    # From what it is to how to make it again.
    lines = [f"# {entry.name}", ""]
    lines += [f"- {key}: {value}" for key, value in properties.items()]
    lines += [""]
    lines += ["## What it reaches", "", table.rstrip(), ""]
    lines += ["## The recipe", "", "```toml", recipe.text.rstrip(), "```", ""]
    return "\n".join(lines)
