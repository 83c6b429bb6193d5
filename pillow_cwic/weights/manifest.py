"""The manifest: which models exist, what their files must hash to, and where they can be fetched.

A manifest is plain JSON, {"schema": 1, "default": NAME, "base": LOCATION, "models": [...]},
described field by field in docs/weights.md. Invariant: an `Entry` that exists is valid, and its id
is a content hash, so two manifests can disagree about a name but never about an id. This module
reads and checks; it knows no network, no cache and no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..errors import WeightsError
from ..runtime import files
from .manifest_fields import field_problems, is_text, is_url, short

SCHEMA = 1
ID_DIGITS = 16  # hex digits: the first 8 bytes of the SHA-256, as in a .cwic header
MAX_MANIFEST_BYTES = 4 << 20

MOST_PROBLEMS = 20
"""Named of a manifest; whoever writes one starts with these."""


@dataclass(frozen=True)
class QualityPoint:
    """What one quality index costs and gives, measured on the manifest's calibration pictures."""

    index: int  # 0..63
    bpp: float  # bits per pixel
    psnr: float  # decibels


@dataclass(frozen=True)
class Entry:
    """One model: a name for people, a hash for files, and the places to fetch it from."""

    name: str
    file: str  # a plain file name, found beside the manifest, in the wheel and on a mirror
    sha256: str  # 64 lower-case hex digits
    bytes: int
    origin: str  # the manifest's own location, a path or an http(s) URL; relative URLs start there
    urls: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    quality: tuple[QualityPoint, ...] = ()
    licence: str = ""
    training: Any = field(default=None, hash=False)

    @property
    def id(self) -> str:
        """The name by which .cwic files call this model: the first 16 hex digits of the SHA-256."""
        return self.sha256[:ID_DIGITS]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.id})"

    def local_files(self) -> list[Path]:
        """The local files this entry may be: beside a local manifest, by its URLs or its name."""
        if is_url(self.origin):
            return []
        folder = Path(self.origin).parent
        by_url = [folder / unquote(url) for url in self.urls if not is_url(url)]
        return [*by_url, folder / self.file]

    def remote_urls(self) -> list[str]:
        """The http(s) URLs of this entry in order.

        For a manifest that came by URL, also the file beside it.
        """
        if not is_url(self.origin):
            return [url for url in self.urls if is_url(url)]
        urls = (urljoin(self.origin, url) for url in (*self.urls, quote(self.file)))
        return list(dict.fromkeys(urls))


@dataclass(frozen=True)
class Manifest:
    """A checked manifest and where it came from."""

    location: str  # a path or an http(s) URL
    models: tuple[Entry, ...]
    default: str | None = None
    problems: tuple[str, ...] = ()
    """What is wrong with entries that were left out."""

    def by_id(self, model_id: str) -> Entry | None:
        """The entry with this id, or None."""
        return next((entry for entry in self.models if entry.id == model_id), None)

    def by_name(self, name: str) -> Entry | None:
        """The entry with this name, or None."""
        return next((entry for entry in self.models if entry.name == name), None)


def presentable(location: str) -> str:
    """A location for messages: a URL without a password or a query, which may hold a signature."""
    if not is_url(location):
        return location
    try:
        parts = urlsplit(location)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:
        return f"{location.partition(':')[0]}://... (a URL that cannot be read)"


def read(path: Path) -> Manifest:
    """Reads the manifest at `path` as far as it is right (`usable`).

    WeightsError when it is missing, too large or no manifest at all.
    """
    return usable(read_bytes(path), str(path.absolute()))


def read_bytes(path: Path) -> bytes:
    """The manifest's bytes, up to one more than the limit; WeightsError when it cannot be read."""
    try:
        with files.open_regular(path) as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"cannot read the manifest {path}: {error.strerror or error}") from error


def parse(data: bytes, location: str) -> Manifest:
    """Checks a manifest's bytes.

    A WeightsError lists the bad fields as model, field, found, expected.
    """
    found = usable(data, location)
    if found.problems:
        raise WeightsError("\n  ".join([_not_valid(found.location), *found.problems]))
    return found


def usable(data: bytes, location: str) -> Manifest:
    """What is right of a manifest; a bad entry is left out, and named in `problems`.

    WeightsError for a document that is no manifest.
    """
    document = _document(data, location)
    location = document.get("base", location)
    models, problems = _checked(document)
    if not isinstance(document.get("models"), list) or (problems and not models):
        listed = problems[:MOST_PROBLEMS]
        raise WeightsError("\n  ".join([_not_valid(location), *listed]))
    if len(problems) > MOST_PROBLEMS:
        more = len(problems) - MOST_PROBLEMS
        problems = [*problems[:MOST_PROBLEMS], f"and {more} more"]
    default = document.get("default")
    return Manifest(
        location,
        tuple(_entry(model, location) for model in models),
        default if any(model["name"] == default for model in models) else None,
        tuple(problems),
    )


def _not_valid(location: str) -> str:
    return f"the manifest {presentable(location)} is not valid:"


def _document(data: bytes, location: str) -> dict[str, Any]:
    # A file that is no manifest at all.
    shown = presentable(location)
    if len(data) > MAX_MANIFEST_BYTES:
        raise WeightsError(
            f"the manifest {shown} is larger than {MAX_MANIFEST_BYTES} bytes: expected a short "
            "JSON file"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"the manifest {shown} is not JSON ({error}): expected a file like "
            "weights_manifest.json"
        ) from None
    if not isinstance(document, dict):
        raise WeightsError(
            f"the manifest {shown} holds {short(document)}: expected a JSON object with "
            "'schema' and 'models'"
        )

    # A manifest that this version cannot read, or that would send readers astray.
    if document.get("schema") != SCHEMA:
        raise WeightsError(
            f"the manifest {shown} has schema {short(document.get('schema'))}: expected "
            f"{SCHEMA}; "
            "a higher number needs a newer pillow-cwic"
        )
    base = document.get("base", location)
    if not (isinstance(base, str) and is_text(base)) or not (
        is_url(base) or (Path(base).is_absolute() and not is_url(location))
    ):
        raise WeightsError(
            f"the manifest {shown} has base {short(base)}: expected an http(s) URL, or none at all"
        )
    return document


def _checked(document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The models that are right, and what is wrong with the others and with the whole."""
    models = document.get("models")
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        return [], [f"field 'models': found {short(models)}, expected a list of objects"]

    right: dict[str, dict[str, Any]] = {}
    problems = []
    for number, model in enumerate(models, 1):
        name = model.get("name")
        label = f"model {short(name)}" if "name" in model else f"model number {number}"
        wrong = [f"{label}, {problem}" for problem in field_problems(model)]
        if not wrong and name in right:
            wrong = [f"{label} is listed twice"]
        if not wrong:
            right[str(name)] = model
        problems += wrong

    default = document.get("default")
    if default is not None and (not isinstance(default, str) or default not in right):
        problems.append(
            f"field 'default': found {short(default)}, expected the name of one of the models"
        )
    return list(right.values()), problems


def _entry(model: dict[str, Any], location: str) -> Entry:
    # All fields were checked before.
    points = (
        QualityPoint(point["index"], float(point["bpp"]), float(point["psnr"]))
        for point in model.get("quality", ())
    )

    # What is left out is empty.
    return Entry(
        name=model["name"],
        file=model["file"],
        sha256=model["sha256"],
        bytes=model["bytes"],
        origin=location,
        urls=tuple(model.get("urls", ())),
        config=model.get("config", {}),
        quality=tuple(points),
        licence=model.get("licence", ""),
        training=model.get("training"),
    )
