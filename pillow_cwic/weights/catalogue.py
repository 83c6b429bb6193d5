"""The manifests that apply here: the built-in, the user's own, and the environment's.

Invariant: ids are content hashes, so any manifest that knows an id is right about it; names may
collide, and then the later, user-given manifest wins. A broken further manifest never hides a model
that another one knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import WeightsError
from ..runtime.package import on_disk, package_folder
from . import cache, manifest
from .folders import MANIFEST_VARIABLE, cache_folder, existing, expanded, manifest_folder
from .manifest import Entry, Manifest, presentable
from .manifest_fields import is_url

REFRESH_SECONDS = 60.0  # an unknown id asks a manifest URL again, at most this often per process

_asked: dict[str, float] = {}  # URL: time.monotonic() of the last request
_fetched: dict[str, Manifest] = {}


@dataclass
class Catalogue:
    """Every manifest that could be read, the built-in first, and what was wrong with the others."""

    manifests: list[Manifest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def by_id(self, model_id: str) -> Entry | None:
        """The entry with this id.

        The built-in manifest is asked first, since it knows the files of the wheel.
        """
        return next((entry for m in self.manifests if (entry := m.by_id(model_id))), None)

    def by_name(self, name: str) -> Entry | None:
        """The entry with this name; the last manifest that has it wins."""
        return next((entry for m in reversed(self.manifests) if (entry := m.by_name(name))), None)


def builtin_path() -> Path:
    """The manifest of this release: in the package, or beside it in an editable install."""
    in_wheel = on_disk(package_folder() / "weights_manifest.json")
    in_checkout = package_folder().parent / "weights_manifest.json"
    return in_wheel if in_wheel.exists() else in_checkout


def builtin() -> Manifest:
    """The manifest of this release; WeightsError if it is damaged."""
    return manifest.read(builtin_path())


def locations() -> list[str]:
    """The built-in manifest, the user's by file name, then the one PILLOW_CWIC_MANIFEST names."""
    named = os.environ.get(MANIFEST_VARIABLE, "")
    user = (str(path) for path in cache.files_in(manifest_folder, ".json"))
    return [str(builtin_path()), *user, *([named] if named else [])]


def read_all() -> Catalogue:
    """Reads every manifest, without network: of a URL, what this process or the cache has of it."""
    catalogue = Catalogue()
    for location in locations():
        try:
            found = read(location)
        except WeightsError as error:
            catalogue.problems.append(str(error))
            continue
        catalogue.manifests.append(found)
        if found.problems:
            left_out = "\n  ".join(found.problems)
            catalogue.problems.append(
                f"the manifest {presentable(found.location)} has bad entries, which were left out:"
                f"\n  {left_out}"
            )
    return catalogue


def read(location: str) -> Manifest:
    """Reads the manifest at a path, or the copy of the one at a URL.

    WeightsError if there is none.
    """
    if not is_url(location):
        return manifest.read(expanded(location, MANIFEST_VARIABLE))
    if location in _fetched:
        return _fetched[location]
    copy = _copy_of(location)
    if copy is None or not cache.exists(copy):
        raise WeightsError(f"the manifest {presentable(location)} has not been fetched yet")
    return manifest.usable(manifest.read_bytes(copy), location)


def refresh(*, older_than_seconds: float = REFRESH_SECONDS) -> list[str]:
    """Fetches the manifests that came by URL and were not asked for so long.

    Returns what went wrong.
    """
    problems = []
    now = time.monotonic()
    for url, copy in _remote():
        if now - _asked.get(url, -math.inf) >= older_than_seconds:
            try:
                fetch(url, copy)
            except WeightsError as error:
                problems.append(str(error))
    return problems


def fetch_missing() -> list[str]:
    """Fetches the manifest URLs of which there is no copy; returns what went wrong."""
    missing = [
        url
        for url, copy in _remote()
        if url not in _fetched and (copy is None or not cache.exists(copy))
    ]
    return refresh() if missing else []


def fetch(url: str, copy: Path | None) -> Manifest:
    """Fetches a manifest and keeps it at `copy`, if that is writable, for times without network."""
    from . import download

    _asked[url] = time.monotonic()
    data = download.fetch_small(url, manifest.MAX_MANIFEST_BYTES)
    _fetched[url] = manifest.usable(data, url)
    # A read-only cache costs a transfer per process, not the picture.
    with contextlib.suppress(WeightsError):
        if copy is not None:
            _keep(copy, data, _fetched[url])
    return _fetched[url]


def add(location: str) -> tuple[Path, Manifest]:
    """Checks the manifest at a path or URL and copies it to the user's.

    Adding it again updates the copy.
    """
    from . import download

    if is_url(location):
        data = download.fetch_small(location, manifest.MAX_MANIFEST_BYTES)
    else:
        location = str(expanded(location, "the manifest"))
        data = manifest.read_bytes(Path(location))
    parsed = manifest.parse(data, location)
    path = manifest_folder() / f"{Path(location).stem}-{_key(location)[:8]}.json"
    _keep(path, data, parsed)
    return path, parsed


def find_added(target: str) -> Path | None:
    """The user's copy of a manifest, by the location it was added from or by the copy's file name.

    None if none.
    """
    location = target if is_url(target) else str(expanded(target, "the manifest"))
    for path in cache.files_in(manifest_folder, ".json"):
        if path.name == target or path.stem.endswith(f"-{_key(location)[:8]}"):
            return path
    return None


def forget() -> None:
    """Drops what this process remembers of manifest URLs; the copies in the cache stay."""
    _asked.clear()
    _fetched.clear()


def _copy_of(url: str) -> Path | None:
    """Where a manifest that came by URL is kept; None where there is no cache."""
    folder = existing(cache_folder)
    return folder / "manifests" / f"{_key(url)}.json" if folder else None


def _key(location: str) -> str:
    return hashlib.sha256(location.encode()).hexdigest()[:16]


def _remote() -> Iterator[tuple[str, Path | None]]:
    """The manifests that came by URL, and their copies: in the cache, or among the user's."""
    for location in locations():
        if is_url(location):
            yield location, _copy_of(location)
        else:
            with contextlib.suppress(WeightsError):
                if is_url(origin := read(location).location):
                    yield origin, Path(location)


def _keep(copy: Path, data: bytes, parsed: Manifest) -> None:
    """Stores a manifest with its "base", so that relative URLs keep their meaning."""
    try:
        text = json.dumps({**json.loads(data), "base": parsed.location}, indent=2)
    except RecursionError as error:
        shown = presentable(parsed.location)
        raise WeightsError(f"the manifest {shown} is nested too deeply to be kept") from error
    cache.store(copy, text.encode())
