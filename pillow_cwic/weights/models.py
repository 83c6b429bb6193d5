"""From a model's name, id or path to one loaded model per id and device.

Invariant: no byte of a weights file reaches the model before its SHA-256 has been checked, and what
was checked is what is loaded. This module knows no torch until it loads.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..format.header import MAX_QUALITY_INDEX, Header
from ..options import quality_of
from ..runtime.forks import no_fork
from . import cache, catalogue, verified
from .folders import CACHE_VARIABLE, MANIFEST_VARIABLE, cache_folder, existing
from .manifest import Entry, Manifest, presentable
from .manifest_fields import is_id
from .memory import Memory
from .verified import WHEEL_DIR, copies, locate

__all__ = [
    "WHEEL_DIR",
    "ModelInfo",
    "copies",
    "find",
    "forget",
    "info",
    "load",
    "locate",
    "quality_of_file",
]

if TYPE_CHECKING:
    from ..model import Model

MAX_LOADED = 4  # models kept in memory, the least recently used goes first
MOST_LISTED = 20  # models of a manifest in a message

_loaded: Memory[Model] = Memory(MAX_LOADED)  # by id and device

# Models given by path in this process: their files are decodable in it, too.
_opened: dict[str, Entry] = {}


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, without its weights."""

    name: str
    """As manifests and `model=` call it."""

    id: str
    """As .cwic files call it: the first 16 hex digits of its weights file's SHA-256."""

    quality_count: int
    """Quality indices are 0 .. quality_count - 1."""

    importance_levels: int
    """Levels of the importance map are 0 .. importance_levels - 1."""


def find(model: str | PathLike[str] | None) -> Entry:
    """The entry of a model: None is the default.

    16 hex digits are an id; a Path, a name with a folder in it or one that ends in .safetensors is
    a file; anything else is a name, whatever lies in the current folder. A WeightsError says where
    an unknown model was looked for and what to do.
    """
    if model is None:
        return _default()
    # First: an id comes from a file and must never become a path.
    if isinstance(model, str) and is_id(model):
        return _entries_of_id(model)[0]
    if not isinstance(model, str) or _is_path(model):
        return _entry_of_file(Path(model))
    return _find_name(model)


def _is_path(model: str) -> bool:
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return model.endswith(".safetensors") or any(sign in model for sign in separators)


def info(model: str | PathLike[str] | None) -> ModelInfo:
    """What a model is, from its own file, which is fetched if need be; errors as for `load`."""
    from .file import read_config

    entry = find(model)
    config = read_config(locate(entry))
    return ModelInfo(entry.name, entry.id, config.quality_count, config.levels)


def quality_of_file(header: Header) -> float | None:
    """The dial's position that a file's quality index means.

    None where its model is unknown, and where the file is lossless.
    """
    if header.lossless:
        return None
    count = _known_quality_count(header.model_id)
    return None if count is None else quality_of(header.quality_index, count)


def _known_quality_count(model_id: str) -> int | None:
    """A model's number of qualities, if a manifest or this process knows it; nothing is fetched."""
    opened = _opened.get(model_id)
    if opened is not None:
        with contextlib.suppress(WeightsError):
            from .file import read_config

            return read_config(Path(opened.origin)).quality_count
    with contextlib.suppress(WeightsError):
        entry = catalogue.builtin().by_id(model_id) or catalogue.read_all().by_id(model_id)
        count = entry.config.get("quality_count") if entry else None
        if type(count) is int and 1 <= count <= MAX_QUALITY_INDEX + 1:
            return count
    return None


def load(model: str | PathLike[str] | None, device: str) -> Model:
    """The model on `device`, verified and kept in memory.

    Threads that ask at once get the one that is loaded once. WeightsError when it is unknown,
    unreachable, damaged or not a model.
    """
    # Asked for by its id, it need not be looked up.
    kept = _loaded.get((str(model), device))
    if kept is not None:
        return kept
    entries = _entries_of_id(model) if isinstance(model, str) and is_id(model) else [find(model)]
    return _loaded.load((entries[0].id, device), lambda: _first_intact(entries, device))


def _first_intact(entries: list[Entry], device: str) -> Model:
    """The model of the first entry whose file can be had; WeightsError if there is none."""
    problems = []
    for entry in entries:
        try:
            path, data = verified.read(entry)
        except WeightsError as error:
            problems.append(error)
            continue
        with no_fork():
            from .file import parse_model

            return parse_model(data, path.name, device, id=entry.id)
    if len(problems) == 1:
        raise problems[0]
    raise WeightsError("\n".join(map(str, problems)))


def forget() -> None:
    """Drops every model from memory; those in use live on with their users."""
    _loaded.forget()
    _opened.clear()
    catalogue.forget()


def _default() -> Entry:
    # A further manifest can't change what a plain save() writes.
    builtin = catalogue.builtin()
    entry = builtin.by_name(builtin.default) if builtin.default else None
    if entry is None:
        raise WeightsError(
            f"the manifest {builtin.location} names no default model: give model=..., or "
            "reinstall pillow-cwic"
        )
    return entry


def _entry_of_file(path: Path) -> Entry:
    try:
        path = path.expanduser().absolute()
        sha256 = cache.hash_file(path)
        size = path.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"cannot read the weights file {path}: {reason}") from error
    entry = Entry(name=path.stem, file=path.name, sha256=sha256, bytes=size, origin=str(path))
    _opened[entry.id] = entry
    return entry


def _entries_of_id(model_id: str) -> list[Entry]:
    """What may be the model with this id: one entry, or several of which one at most is true.

    (An id is the beginning of a hash: that of another file would have to be found by trying.) No
    other manifest is asked about a model of this release, and no entry hides a file that is here.
    """
    with contextlib.suppress(WeightsError):
        if entry := catalogue.builtin().by_id(model_id):
            return [entry]
    known = catalogue.read_all()
    found = _candidates(model_id, known)
    if not found:
        problems = catalogue.refresh()  # the id may be newer than the copy of a manifest
        known = catalogue.read_all()
        found = _candidates(model_id, known)
        if not found:
            raise WeightsError(_unknown(f"the model with id {model_id}", known, problems))
    return found


def _candidates(model_id: str, known: catalogue.Catalogue) -> list[Entry]:
    """Entries of an id, each hash once: first those whose file is here."""
    entries = [m.by_id(model_id) for m in known.manifests]
    entries += [_opened.get(model_id), *map(_stored, cache.stored_models(model_id))]
    by_hash: dict[str, Entry] = {}
    for entry in entries:
        if entry is not None:
            by_hash.setdefault(entry.sha256, entry)
    return sorted(by_hash.values(), key=lambda entry: next(verified.copies(entry), None) is None)


def _stored(path: Path) -> Entry:
    """A cached file needs no manifest: its name is its hash."""
    return Entry(
        name=path.stem,
        file=path.name,
        sha256=path.stem,
        bytes=path.stat().st_size,
        origin=str(path),
    )


def _find_name(name: str) -> Entry:
    problems = catalogue.fetch_missing()  # a manifest never read may give this name another meaning
    manifests = catalogue.read_all()
    entry = manifests.by_name(name)
    if entry is None:
        problems += catalogue.refresh()
        manifests = catalogue.read_all()
        entry = manifests.by_name(name)
        if entry is None:
            raise WeightsError(_unknown(f"the model {name!r}", manifests, problems))
    elif manifests.problems:
        left_out = "; ".join(manifests.problems)
        warnings.warn(f"model {name!r}: a manifest was left out: {left_out}", stacklevel=4)
    return entry


def _listed(manifest: Manifest) -> list[str]:
    """Its models, or as many as a message can hold."""
    more = len(manifest.models) - MOST_LISTED
    names = [str(entry) for entry in manifest.models[:MOST_LISTED]]
    return [*names, f"and {more} more"] if more > 0 else names


def _unknown(what: str, manifests: catalogue.Catalogue, problems: list[str]) -> str:
    """Where `what` was looked for, what went wrong there, and what to do."""
    contents = [
        f"  {presentable(m.location)}: {', '.join(_listed(m)) or 'no models'}"
        for m in manifests.manifests
    ]
    cached = existing(cache_folder) or f"none, set {CACHE_VARIABLE}"
    folders = f"Looked in {WHEEL_DIR} (shipped); cache: {cached}."
    advice = (
        "Get the manifest of whoever made the file and run `pillow-cwic weights add MANIFEST`, or "
        "name it in "
        f"{MANIFEST_VARIABLE}; a newer model of the project itself needs a newer "
        "pillow-cwic."
    )

    # One finding a line.
    return "\n".join(
        [
            f"{what} is not known here. Manifests:",
            *contents,
            *(f"  {problem}" for problem in manifests.problems + problems),
            folders,
            advice,
        ]
    )
