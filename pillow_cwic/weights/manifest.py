"""The manifest: which models exist, what their files must hash to, and where they can be fetched.

A manifest is plain JSON, {"schema": 1, "default": NAME, "base": LOCATION, "models": [...]},
described field by field in docs/weights.md. Invariant: an `Entry` that exists is valid, and its id
is a content hash, so two manifests can disagree about a name but never about an id. This module
reads and checks; it knows no network, no cache and no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin

from ..errors import WeightsError

SCHEMA = 1
ID_DIGITS = 16  # hex digits: the first 8 bytes of the SHA-256, as in a .cwic header
MAX_MANIFEST_BYTES = 4 << 20

_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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

    def by_id(self, model_id: str) -> Entry | None:
        """The entry with this id, or None."""
        return next((entry for entry in self.models if entry.id == model_id), None)

    def by_name(self, name: str) -> Entry | None:
        """The entry with this name, or None."""
        return next((entry for entry in self.models if entry.name == name), None)


def is_url(location: str) -> bool:
    """True for an http or https URL; everything else is a path."""
    return location.lower().startswith(("http://", "https://"))


def is_id(text: str) -> bool:
    """True for 16 lower-case hex digits, which are always an id and never a name or a path."""
    return _ID.fullmatch(text) is not None


def read(path: Path) -> Manifest:
    """Reads and checks the manifest at `path`.

    WeightsError when it is missing, too large or wrong.
    """
    return parse(read_bytes(path), str(path.absolute()))


def read_bytes(path: Path) -> bytes:
    """The manifest's bytes, up to one more than the limit; WeightsError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"cannot read the manifest {path}: {error.strerror or error}") from error


def parse(data: bytes, location: str) -> Manifest:
    """Checks a manifest's bytes.

    A WeightsError lists every bad field as model, field, found, expected.
    """
    document = _document(data, location)
    location = document.get("base", location)
    problems = _top_level_problems(document) or _model_problems(document)
    if problems:
        raise WeightsError(f"the manifest {location} is not valid:\n  " + "\n  ".join(problems))
    models = tuple(_entry(model, location) for model in document["models"])
    return Manifest(location, models, document.get("default"))


def _document(data: bytes, location: str) -> dict[str, Any]:
    # A file that is no manifest at all.
    if len(data) > MAX_MANIFEST_BYTES:
        raise WeightsError(
            f"the manifest {location} is larger than {MAX_MANIFEST_BYTES} bytes: expected a short "
            "JSON file"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"the manifest {location} is not JSON ({error}): expected a file like "
            "weights_manifest.json"
        ) from None
    if not isinstance(document, dict):
        raise WeightsError(
            f"the manifest {location} holds {_short(document)}: expected a JSON object with "
            "'schema' and 'models'"
        )

    # A manifest that this version cannot read, or that would send readers astray.
    if document.get("schema") != SCHEMA:
        raise WeightsError(
            f"the manifest {location} has schema {_short(document.get('schema'))}: expected "
            f"{SCHEMA}; "
            "a higher number needs a newer pillow-cwic"
        )
    base = document.get("base", location)
    if not isinstance(base, str) or not (
        is_url(base) or (Path(base).is_absolute() and not is_url(location))
    ):
        raise WeightsError(
            f"the manifest {location} has base {_short(base)}: expected an http(s) URL, or none "
            "at all"
        )
    return document


def _top_level_problems(document: dict[str, Any]) -> list[str]:
    models = document.get("models")
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        return [f"field 'models': found {_short(models)}, expected a list of objects"]
    names = [model.get("name") for model in models]
    default = document.get("default")
    problems = [
        f"model {name!r} is listed twice"
        for name in {n for n in names if isinstance(n, str) and names.count(n) > 1}
    ]
    if default is not None and default not in names:
        problems.append(
            f"field 'default': found {_short(default)}, expected the name of one of the models"
        )
    return problems


def _model_problems(document: dict[str, Any]) -> list[str]:
    problems = []
    for number, model in enumerate(document["models"]):
        label = (
            f"model {_short(model['name'])}" if "name" in model else f"model number {number + 1}"
        )
        for name, (valid, expected, required) in _FIELDS.items():
            if name not in model:
                if required:
                    problems.append(f"{label}, field {name!r}: missing, expected {expected}")
            elif not valid(model[name]):
                problems.append(
                    f"{label}, field {name!r}: found {_short(model[name])}, expected {expected}"
                )
    return problems


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


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _PLAIN_NAME.fullmatch(value) is not None and not is_id(value)


def _is_file(value: object) -> bool:
    return _is_name(value) and isinstance(value, str) and value.endswith(".safetensors")


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )


def _are_urls(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(url, str) and _is_reachable(url) for url in value
    )


def _is_reachable(url: str) -> bool:
    """http(s), or relative to the manifest: no other scheme, no absolute path, no way up."""
    if is_url(url):
        return True
    is_relative = bool(url) and ":" not in url and url[0] not in "/\\"
    return is_relative and ".." not in re.split(r"[/\\]", url)


def _is_calibration(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(point, dict) for point in value):
        return False
    indices = [point.get("index") for point in value]
    numbers = [point.get(key) for point in value for key in ("bpp", "psnr")]
    in_range = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i <= 63 for i in indices)
    return in_range and indices == sorted(set(indices)) and all(map(_is_number, numbers))


# Field: (check, what is expected, whether it is required).
_FIELDS: dict[str, tuple[Callable[[object], bool], str, bool]] = {
    "name": (_is_name, "1 to 64 letters, digits, '.', '_' or '-', not 16 hex digits", True),
    "file": (_is_file, "a plain file name ending in .safetensors, without folders", True),
    "sha256": (_is_sha256, "64 lower-case hex digits", True),
    "bytes": (_is_size, "the file's size, a positive integer", True),
    "urls": (
        _are_urls,
        "a list of http(s) URLs or of paths relative to the manifest, without '..'",
        False,
    ),
    "config": (lambda value: isinstance(value, dict), "an object", False),
    "quality": (
        _is_calibration,
        'a list of {"index": 0..63, "bpp": x, "psnr": y} with rising indices',
        False,
    ),
    "licence": (lambda value: isinstance(value, str), "text", False),
    "training": (lambda value: isinstance(value, (str, dict)), "text or an object", False),
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
