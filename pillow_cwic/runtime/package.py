"""What ships with the package beside its code: models, manifest, a picture, a page.

Invariant: whoever asks gets a file on disk, also where the package is in an archive (zipapp), which
is unpacked file by file, for as long as the process lives.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def package_folder() -> Path:
    """Where this package is installed; it may be in an archive."""
    return Path(__file__).parents[1]


def package_data() -> Path:
    """The folder of what ships with the package beside its code."""
    return package_folder() / "data"


def pyinstaller_hook_folders() -> list[str]:
    """Where PyInstaller finds this package's hook, by the entry point `pyinstaller40`."""
    return [str(package_data())]


def on_disk(path: Path) -> Path:
    """A file of the package as one on disk; where it has no such file, the path itself."""
    if package_folder().is_dir():
        return path
    return _unpacked(path.relative_to(package_folder())) or path


@cache
def _unpacked(name: Path) -> Path | None:
    """A copy of a file in the archive, by its name in the package; None if it has none."""
    from importlib.resources import files

    source = files(__name__.partition(".")[0]).joinpath(*name.parts)
    if not source.is_file():
        return None
    copy = _folder() / name.name
    copy.write_bytes(source.read_bytes())
    return copy


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="pillow-cwic-")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child ends before its parent
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
