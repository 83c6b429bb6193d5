"""`export`: a run -> a model that others can use: weights file, manifest entry, rate-distortion table, model card."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..networks.config import ModelConfig
from ..runtime.files import write_atomically
from ..tools.rivals import RIVALS
from ..weights import catalogue, manifest
from . import evaluate
from . import recipe as recipes
from .curves import Curve
from .integer_weights import export_weights
from .joint_codec import JointCodec
from .recipe import Recipe

CALIBRATION_POINTS = 9
"""Quality indices that are measured for the manifest, evenly spaced over the model's."""


@dataclass(frozen=True)
class ExportOptions:
    """What the command line says."""

    run: Path
    name: str
    out: Path
    images: list[str]  # calibration pictures; none: no calibration, no table
    licence: str = "not stated"
    install: bool = False
    codecs: tuple[str, ...] = tuple(RIVALS)
    jobs: int = 1


def export(options: ExportOptions) -> manifest.Entry:
    """Write NAME.safetensors, NAME.md, manifest.json (and rd.*) into `out` -> the model's manifest entry.

    OSError if the run has no weights, WeightsError if its integer form breaks the accumulator
    bound, ValueError for a name that the manifest does not allow.
    """
    recipe = recipes.load(options.run / "recipe.toml")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.name}.safetensors"
    sha256 = export_weights(load_joint(options.run, recipe), path)
    facts = read_facts(options.run)
    indices = calibration_indices(recipe.model)
    curve = calibrate(options, path, recipe.model, indices) if options.images else None
    quality = [
        {"index": index, "bpp": round(point.bpp, 5), "psnr": round(point.psnr or 0.0, 3)}
        for index, point in zip(indices, curve.points if curve else (), strict=False)
    ]
    entry = {
        "name": options.name,
        "file": path.name,
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "urls": [],
        "config": json.loads(recipe.model.to_json()),
        "quality": quality,
        "licence": options.licence,
        "training": {
            key: facts[key]
            for key in ("recipe", "training_data", "device", "steps", "minutes")
            if key in facts
        },
    }
    checked = add_to_manifest(options.out / "manifest.json", entry)
    table = (options.out / "rd.md").read_text("utf-8") if curve else "Not measured.\n"
    card = model_card(checked, recipe, facts, table)
    write_atomically(options.out / f"{options.name}.md", card.encode())
    shutil.copyfile(options.run / "recipe.toml", options.out / f"{options.name}.toml")
    if options.install:
        catalogue.add(str(options.out / "manifest.json"))
    return checked


def load_joint(run: Path, recipe: Recipe) -> JointCodec:
    """The run's averaged weights in a joint codec.

    OSError if there are none, ValueError if they do not fit.
    """
    path = run / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the run has not been trained, or not to an end; see its checkpoint"
        )
    joint = JointCodec(recipe.model)
    try:
        joint.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
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


def calibrate(options: ExportOptions, path: Path, config: ModelConfig, indices: list[int]) -> Curve:
    """Rate and quality by real files at the given indices, beside Pillow's codecs.

    Writes rd.* into `out`.
    """
    curves = evaluate.evaluate(
        evaluate.EvaluateOptions(
            models=[str(path)],
            images=options.images,
            out=options.out,
            indices=tuple(indices),
            codecs=options.codecs,
            jobs=options.jobs,
        )
    )
    return curves[0]


def add_to_manifest(path: Path, entry: dict[str, Any]) -> manifest.Entry:
    """Put an entry into the manifest at `path` (created if missing), in place of one with the same name."""
    document: dict[str, Any] = {"schema": manifest.SCHEMA, "models": []}
    if path.is_file():
        document = json.loads(path.read_text("utf-8"))
    document["models"] = [
        model for model in document["models"] if model["name"] != entry["name"]
    ] + [entry]
    data = json.dumps(document, indent=1).encode()
    checked = manifest.parse(data, str(path.absolute())).by_name(entry["name"])
    if checked is None:
        raise ValueError(f"the manifest {path} did not take {entry['name']!r}")
    write_atomically(path, data)
    return checked


def model_card(entry: manifest.Entry, recipe: Recipe, facts: dict[str, Any], table: str) -> str:
    """The model card as Markdown: what it is, how it was made, what it reaches, what may be done with it."""
    known = {
        "Id": entry.id,
        "File": f"{entry.file}, {entry.bytes} bytes, SHA-256 {entry.sha256}",
        "Licence": entry.licence,
        "Recipe": f"{recipe.name}: {recipe.description}",
        "Training data": facts.get("training_data", "not recorded"),
        "Started from": facts.get("started_from", "random weights"),
        "Hardware": facts.get("device", "not recorded"),
        "Time": f"{facts['minutes']} minutes, {facts['steps']} steps"
        if "minutes" in facts
        else "not recorded",
        "Steps that were not finite": facts.get("skipped_steps", "not recorded"),
        "Parameters in training": facts.get("parameters", "not recorded"),
        "PyTorch": facts.get("torch", "not recorded"),
        "Date": facts.get("started", "not recorded"),
    }
    lines = [f"# {entry.name}", "", *(f"- {key}: {value}" for key, value in known.items()), ""]
    lines += ["## What it reaches", "", table.rstrip(), ""]
    lines += ["## The recipe", "", "```toml", recipe.text.rstrip(), "```", ""]
    return "\n".join(lines)
