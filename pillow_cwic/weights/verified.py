"""From an entry to a verified file.

The order of places: the package, the cache, the folder of a local manifest, a download. Invariant:
what is given was read once and its SHA-256 checked. (So a model of the package needs no cache.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import WeightsError
from ..runtime.package import on_disk, package_data
from . import cache, catalogue
from .manifest import Entry, presentable

WHEEL_DIR = package_data()
"""The models that ship with the package."""


def locate(entry: Entry, *, quiet: bool = False) -> Path:
    """A verified file of this entry: in the package, the cache, beside its manifest, or fetched.

    `quiet` hides the progress bar of a download. WeightsError when there is no intact file to be
    had.
    """
    return read(entry, quiet=quiet)[0]


def read(entry: Entry, *, quiet: bool = False) -> tuple[Path, bytes]:
    """As `locate`, and the bytes that were verified."""
    # A damaged copy is reported only if nothing else helps.
    damaged = []
    for path in copies(entry):
        data = cache.read_intact(path, entry.sha256, entry.bytes)
        if data is not None:
            return path, data
        damaged.append(path)
        if path in cache.copies(entry.sha256):
            cache.discard_damaged(entry.sha256, entry.bytes)
    if any(path.parent == WHEEL_DIR for path in damaged):
        raise WeightsError(
            f"{damaged[0]} is damaged: its SHA-256 is not {entry.sha256}; reinstall pillow-cwic"
        )

    from . import download

    try:
        path = download.fetch(entry, quiet=quiet)
    except WeightsError as error:
        found = [
            f"{path}: its SHA-256 is not the {entry.sha256} of {presentable(entry.origin)}"
            for path in damaged
            if cache.exists(path)  # one in the cache is gone
        ]
        raise WeightsError("\n".join([*found, str(error)])) from error
    data = cache.read_intact(path, entry.sha256, entry.bytes)
    if data is None:
        raise WeightsError(f"{path} was changed by someone else as soon as it was there: try again")
    return path, data


def copies(entry: Entry) -> Iterator[Path]:
    """The files on this machine that should be this entry's.

    The package's own first: they need no folder of the user's, which is not looked up then. Only
    the built-in manifest's ship in the wheel.
    """
    shipped = (
        [on_disk(WHEEL_DIR / entry.file)] if entry.origin == str(catalogue.builtin_path()) else []
    )
    yield from filter(cache.exists, shipped)
    yield from cache.copies(entry.sha256)
    yield from filter(cache.exists, entry.local_files())
