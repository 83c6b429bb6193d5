"""Files of this machine as people type them: files, folders, patterns, pipes and "-".

Invariants: no output replaces one of the sources, or any file without --force; what can be known
about an output is known before the work. Names are shown as they were typed.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Collection, Iterable, Sequence
from io import BytesIO
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from PIL import Image

from ..runtime.files import takes_files, write_atomically, write_whole
from .terminal import stdout_errors

STREAM = "-"
"""Stands for standard input, or standard output."""

MOST_STREAMED_BYTES = 1 << 30
"""Read from what is no regular file: a pipe may never end."""

NOTHING_BELOW = "the folder has no file for this command"


class Source(NamedTuple):
    """One file to read."""

    name: str  # as it was typed, or found below what was typed
    place: PurePath  # below the folder that was typed; else the file's name


class Task(NamedTuple):
    """One file to read, and one to write."""

    source: Source
    target: str
    makes_folder: bool  # the folder it goes into, if that is not there


def expand(
    names: Iterable[str], extensions: Collection[str]
) -> tuple[list[Source], list[tuple[str, str]]]:
    """What the names stand for; names that stand for nothing, with the reason.

    Below a folder these are the regular files with one of the extensions.
    """
    sources: list[Source] = []
    problems: list[tuple[str, str]] = []
    for name in names:
        if name == STREAM:
            sources.append(_single(name))
        elif os.path.lexists(name):
            found = _below(name, extensions) if Path(name).is_dir() else [_single(name)]
            sources += found
            if not found:
                problems.append((name, NOTHING_BELOW))
        elif matches := [_single(match) for match in _matches(name)]:
            sources += matches
        else:
            problems.append((name, "there is no such file or folder"))
    return sources, problems


def _single(name: str) -> Source:
    return Source(name, PurePath(file_name(name)))


def file_name(source: str) -> str:
    """What outputs are named after: the name without its folder; a stream has none of its own."""
    return "stdin" if source == STREAM else Path(source).name


def _matches(pattern: str) -> list[str]:
    """The files of a pattern that no shell has expanded."""
    if not glob.has_magic(pattern):
        return []
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - names stay as they were typed
    return sorted(name for name in found if Path(name).is_file())


def _below(folder: str, extensions: Collection[str]) -> list[Source]:
    found = []
    for root, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(root, file)
            if path.suffix.lower() in extensions and not is_litter(file) and path.is_file():
                found.append(Source(str(path), path.relative_to(folder)))
    return found


def is_litter(name: str) -> bool:
    """Whether a file of this name is what another system keeps beside a picture."""
    return name.startswith("._")


def open_source(name: str) -> BinaryIO:
    """A source that can be read anywhere in it; a pipe is read to its end before."""
    if name == STREAM:
        if sys.stdin.isatty():
            raise OSError("standard input is a terminal: pipe a file into it")
        return _read_stream(sys.stdin.buffer, "standard input")
    file = Path(name).open("rb")  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    with file:
        return _read_stream(file, name)


def _read_stream(stream: BinaryIO, name: str) -> BytesIO:
    data = stream.read(MOST_STREAMED_BYTES + 1)
    if len(data) > MOST_STREAMED_BYTES:
        raise OSError(
            f"{name} gives more than {MOST_STREAMED_BYTES:,} bytes, the most that is read from a "
            "pipe: write it to a file first"
        )
    if not data:
        raise OSError(f"{name} gives no bytes")
    return BytesIO(data)


def read_source(name: str) -> bytes:
    """All bytes of a source."""
    with open_source(name) as file:
        return file.read()


def is_folder(out: str, names: Sequence[str]) -> bool:
    """Whether results go into the folder `out`, each under its source's name.

    ValueError where they would all go to standard output, or to the name of one picture.
    """
    several = len(names) > 1 or any(Path(name).is_dir() for name in names)
    several = several or any(not os.path.lexists(name) and glob.has_magic(name) for name in names)
    if out == STREAM:
        if several:
            raise ValueError("standard output takes one picture: name a folder for several")
        return False
    named = Path(out).is_dir() or out.endswith(("/", os.sep))
    if several and not named and Path(out).suffix.lower() in Image.registered_extensions():
        raise ValueError(
            f"{out} names one picture: name a folder for several, {out}/ if it shall be called so"
        )
    return several or named


def tasks_into(
    folder: str, sources: Iterable[Source], suffix: str
) -> tuple[list[Task], list[tuple[str, str]]]:
    """Where each source's result goes; sources whose place another one has, with the reason."""
    first: dict[str, Source] = {}
    tasks: list[Task] = []
    problems: list[tuple[str, str]] = []
    for source in sources:
        target = str(Path(folder, source.place.with_suffix(suffix)))
        other = first.setdefault(target, source)
        if other is source:
            tasks.append(Task(source, target, True))
        elif other.name != source.name:  # else it was named twice
            problems.append((source.name, f"left out, {other.name} becomes {target} already"))
    return tasks, problems


def check_target(target: str, sources: Iterable[str], *, force: bool, makes_folder: bool) -> None:
    """OSError where the output cannot be written, or would replace what it must not.

    makes_folder: the folder it goes into is made if need be.
    """
    if target == STREAM:
        if sys.stdout.isatty():
            raise OSError("standard output is a terminal: send it to a file or a pipe")
        return
    if Path(target).exists():
        if any(_is_same(target, source) for source in sources):
            raise OSError(f"{target}: the output would replace its own source: name another one")
        if Path(target).is_dir():
            raise OSError(f"{target}: the output is a folder")
        if not Path(target).is_file():
            return  # a pipe, a device: written to as it is
        if not force:
            raise OSError(f"{target} is there already: --force replaces it")
    check_folder(Path(os.path.realpath(target)).parent, target, makes_folder)


def _is_same(target: str, source: str) -> bool:
    """Also through links."""
    return source != STREAM and Path(source).exists() and Path(target).samefile(source)


def check_folder(folder: Path, target: str, makes_folder: bool) -> None:
    """OSError, named by the target, where nothing can be written into a folder."""
    while makes_folder and not os.path.lexists(folder):
        folder = folder.parent
    if not folder.exists():
        raise OSError(f"{target}: the folder {folder} does not exist")
    if not folder.is_dir():
        raise OSError(f"{target}: {folder} is no folder")
    if not takes_files(folder):
        raise OSError(f"{target}: no permission to write into the folder {folder}")


def output_name(target: str) -> str:
    """An output for people."""
    return "standard output" if target == STREAM else target


def write_target(target: str, data: bytes) -> None:
    """Write an output, whole or not at all, and the folder it lies in."""
    if target == STREAM:
        with stdout_errors():
            write_whole(sys.stdout.buffer, data)
            sys.stdout.buffer.flush()
        return
    if not Path(target).exists():
        Path(os.path.realpath(target)).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(target), data)
