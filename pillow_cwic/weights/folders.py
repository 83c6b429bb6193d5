"""The user's folders: the cache of fetched models, and the manifests that were added.

A user may have no home: in containers, as a service, under cron. Invariant: folders are looked up
where something is fetched or looked for, never before; a shipped model needs none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import WeightsError
from ..runtime.forks import no_fork

CACHE_VARIABLE = "PILLOW_CWIC_CACHE_DIR"
MANIFEST_VARIABLE = "PILLOW_CWIC_MANIFEST"


def cache_folder() -> Path:
    """Where fetched models live: PILLOW_CWIC_CACHE_DIR, or the platform's cache directory.

    It may not exist yet. WeightsError where there is none to be had.
    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return expanded(folder, CACHE_VARIABLE)
    return _of_the_platform(
        "user_cache_dir", f"no cache: set {CACHE_VARIABLE} to a folder that may be written"
    )


def manifest_folder() -> Path:
    """Where `pillow-cwic weights add` keeps manifests; otherwise as `cache_folder`."""
    advice = f"no place for manifests: name one in {MANIFEST_VARIABLE}, or set HOME"
    return _of_the_platform("user_config_dir", advice) / "manifests"


def expanded(path: str, variable: str) -> Path:
    """A path as people write it, absolute; WeightsError names the variable that it came from."""
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise WeightsError(f"{variable} is {path!r}, which leads nowhere: {error}") from error


def existing(find: Callable[[], Path]) -> Path | None:
    """A folder of the user's to look into; None where the user has none."""
    try:
        return find()
    except WeightsError:
        return None


def _of_the_platform(kind: str, advice: str) -> Path:
    with no_fork():
        import platformdirs

    try:
        folder = Path(getattr(platformdirs, kind)("pillow-cwic", appauthor=False))
    except (RuntimeError, KeyError, OSError) as error:
        raise WeightsError(f"this user has no home folder and so {advice}") from error
    if not folder.is_absolute():  # some versions give "~/.cache"
        raise WeightsError(f"this user has no home folder and so {advice}")
    return folder
