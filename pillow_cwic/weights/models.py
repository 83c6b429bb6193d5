"""From a model's name, id or path to a verified file, and to one loaded model per id and device.

The order of places: an explicit path, the wheel, the cache, the folder of a local manifest, a
download. Invariant: no byte of a weights file reaches the model before its SHA-256 has been
checked. This module knows no torch until it loads.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..format.header import MAX_QUALITY_INDEX, Header
from ..options import quality_of
from ..runtime import files
from ..runtime.forks import no_fork
from . import cache, catalogue
from .folders import CACHE_VARIABLE, MANIFEST_VARIABLE, cache_folder, existing
from .manifest import Entry, is_id
from .memory import Memory

if TYPE_CHECKING:
    from ..model import Model

WHEEL_DIR = files.package_data()
"""The models that ship with the package."""

MAX_LOADED = 4  # models kept in memory, the least recently used goes first

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

    16 hex digits are an id, a file is a path, anything else a name. A WeightsError says where an
    unknown model was looked for and what to do.
    """
    if model is None:
        return _default()
    # First: an id comes from a file and must never become a path.
    if isinstance(model, str) and is_id(model):
        return _find_id(model)
    if not isinstance(model, str) or model.endswith(".safetensors") or Path(model).is_file():
        return _entry_of_file(Path(model))
    return _find_name(model)


def info(model: str | PathLike[str] | None) -> ModelInfo:
    """What a model is, from its own file, which is fetched if need be; errors as for `load`."""
    from .file import read_config

    entry = find(model)
    config = read_config(locate(entry))
    return ModelInfo(entry.name, entry.id, config.quality_count, config.levels)


def quality_of_file(header: Header) -> float | None:
    """The dial's position that a file's quality index means; None where its model is unknown."""
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
    entry = find(model)
    return _loaded.load((entry.id, device), lambda: _read(entry, device))


def _read(entry: Entry, device: str) -> Model:
    path = locate(entry)
    with no_fork():
        from .file import read_model

        return read_model(path, device, id=entry.id)


def locate(entry: Entry, *, quiet: bool = False) -> Path:
    """A verified file of this entry: in the wheel, the cache, beside its manifest, or fetched.

    `quiet` hides the progress bar of a download. WeightsError when there is no intact file to be
    had.
    """
    # A damaged copy is reported only if nothing else helps.
    damaged = []
    for path in copies(entry):
        if cache.is_intact(path, entry.sha256):
            return path
        damaged.append(path)
        if path in cache.copies(entry.sha256):
            cache.discard_damaged(entry.sha256)
    if any(path.parent == WHEEL_DIR for path in damaged):
        raise WeightsError(
            f"{damaged[0]} is damaged: its SHA-256 is not {entry.sha256}; reinstall pillow-cwic"
        )

    from . import download

    try:
        return download.fetch(entry, quiet=quiet)
    except WeightsError as error:
        found = [
            f"{path}: its SHA-256 is not the {entry.sha256} of {entry.origin}"
            for path in damaged
            if cache.exists(path)  # one in the cache is gone
        ]
        raise WeightsError("\n".join([*found, str(error)])) from error


def copies(entry: Entry) -> Iterator[Path]:
    """The files on this machine that should be this entry's.

    The package's own first: they need no folder of the user's, which is not looked up then. Only
    the built-in manifest's ship in the wheel.
    """
    shipped = [WHEEL_DIR / entry.file] if entry.origin == str(catalogue.builtin_path()) else []
    yield from filter(cache.exists, shipped)
    yield from cache.copies(entry.sha256)
    yield from filter(cache.exists, entry.local_files())


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
    path = path.expanduser().absolute()
    try:
        sha256 = cache.hash_file(path)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(
            f"cannot read the weights file {path}: {error.strerror or error}"
        ) from error
    entry = Entry(name=path.stem, file=path.name, sha256=sha256, bytes=size, origin=str(path))
    _opened[entry.id] = entry
    return entry


def _find_id(model_id: str) -> Entry:
    # The built-in manifest alone, where it is enough.
    with contextlib.suppress(WeightsError):
        entry = catalogue.builtin().by_id(model_id)
        if entry is not None:
            return entry
    manifests = catalogue.read_all()
    entry = manifests.by_id(model_id) or _opened.get(model_id) or _stored(model_id)
    if entry is None:
        problems = catalogue.refresh()  # the id may be newer than the copy of a manifest
        manifests = catalogue.read_all()
        entry = manifests.by_id(model_id)
        if entry is None:
            raise WeightsError(_unknown(f"the model with id {model_id}", manifests, problems))
    return entry


def _stored(model_id: str) -> Entry | None:
    """A cached file needs no manifest: its name is its hash."""
    for path in cache.stored_models():
        if path.stem.startswith(model_id):
            return Entry(
                name=path.stem,
                file=path.name,
                sha256=path.stem,
                bytes=path.stat().st_size,
                origin=str(path),
            )
    return None


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


def _unknown(what: str, manifests: catalogue.Catalogue, problems: list[str]) -> str:
    """Where `what` was looked for, what went wrong there, and what to do."""
    contents = [
        f"  {m.location}: {', '.join(map(str, m.models)) or 'no models'}"
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
