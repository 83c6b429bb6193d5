"""The cache directory: model files named by their SHA-256, written once, verified at every read.

Invariant: <sha256>.safetensors appears by an atomic rename, so a reader needs no lock and a
read-only directory works. A writer holds <sha256>.lock; <sha256>.partial is what an interrupted
download left, for the next one to resume.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import WeightsError
from ..runtime.files import open_regular, write_atomically
from .folders import CACHE_VARIABLE, cache_folder, existing

if TYPE_CHECKING:
    import filelock

PATIENCE_SECONDS = 300.0
"""How long to wait for another's download of which nothing arrives."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def model_path(sha256: str) -> Path:
    """Where the model with this hash is, or will be; WeightsError where there is no cache."""
    return cache_folder() / f"{sha256}.safetensors"


def copies(sha256: str) -> list[Path]:
    """The file in the cache that may be this model, if there is one."""
    folder = existing(cache_folder)
    path = folder / f"{sha256}.safetensors" if folder else None
    return [path] if path and exists(path) else []


def partial_path(sha256: str) -> Path:
    """Where an unfinished download of this model is kept."""
    return cache_folder() / f"{sha256}.partial"


def stored_models(model_id: str = "") -> list[Path]:
    """Every finished model file in the cache, or those of an id, sorted.

    No manifest is needed to know them, their name is their hash.
    """
    return [
        path
        for path in files_in(cache_folder, ".safetensors")
        if len(path.stem) == 64 and path.stem.startswith(model_id) and path.is_file()
    ]


def files_in(find: Callable[[], Path], suffix: str) -> list[Path]:
    """The files of a folder of the user's with this suffix, sorted.

    None where there is no folder or no right to look into it.
    """
    try:
        return sorted(path for path in find().iterdir() if path.suffix == suffix)
    except OSError:  # a WeightsError, too
        return []


def exists(path: Path) -> bool:
    """True when a file can be seen there; unlike Path.exists, False without the right to look."""
    try:
        return path.stat().st_size >= 0
    except OSError:
        return False


def hash_file(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits; OSError when it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_intact(path: Path, sha256: str, size: int) -> bytes | None:
    """The bytes of a file, if it has this size and this hash; else None.

    What was hashed is what is returned, whatever happens to the file.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            data = file.read(size + 1)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def open_partial(path: Path, *, append: bool) -> BinaryIO:
    """An unfinished download, to be written, at its end or from zero; OSError if that fails.

    Never through a link that someone put there: the file is here and has one name.
    """
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    opener = lambda name, mode: os.open(name, mode | flags, 0o666)  # noqa: E731
    return cast(BinaryIO, open(path, "ab" if append else "wb", opener=opener))


def partial_size(path: Path) -> int:
    """Bytes that an unfinished download has; what is there instead of a file is removed."""
    try:
        state = path.lstat()
    except OSError:
        return 0
    if stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
        return state.st_size
    with disk_errors(path.parent):
        path.unlink()
    return 0


def is_intact(path: Path, sha256: str, size: int | None = None) -> bool:
    """True when `path` is a readable file with this hash; one of another size is not hashed."""
    try:
        return (size is None or path.stat().st_size == size) and hash_file(path) == sha256
    except OSError:
        return False


def discard_damaged(sha256: str, size: int) -> None:
    """Deletes a cached file whose content is not its name's hash.

    Does nothing where the directory is read-only.
    """
    path = model_path(sha256)
    with contextlib.suppress(WeightsError, OSError), locked(sha256):
        # Looked at again under the lock: another may have healed it.
        if exists(path) and not is_intact(path, sha256, size):
            path.unlink()


def store(path: Path, data: bytes) -> None:
    """Writes a small file by a temporary file and an atomic rename.

    WeightsError when the disk refuses.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)


@contextlib.contextmanager
def locked(sha256: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the one lock per model across threads and processes.

    The system drops it when its holder dies. `on_wait` is called once when another holder makes
    this one wait for more than a second. WeightsError where nothing of the holder's download
    arrives any more.
    """
    import filelock

    # Waiting is announced only where it lasts.
    folder = cache_folder()
    lock = filelock.FileLock(folder / f"{sha256}.lock")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            on_wait()
            _wait_for(lock, partial_path(sha256))

    # Errors of the caller's own work are not the lock's.
    try:
        yield
    finally:
        lock.release()


def _wait_for(lock: filelock.BaseFileLock, partial: Path) -> None:
    """Acquires the lock once its holder is done, as long as that one gets on."""
    import filelock

    seen: object = None
    since = time.monotonic()
    while True:
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(timeout=0.5)
            return
        state = partial.stat() if exists(partial) else None
        arrived = state and (state.st_ino, state.st_size)
        if arrived != seen:
            seen = arrived
            since = time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            raise WeightsError(
                f"{lock.lock_file} is held by another process, of whose download nothing arrived "
                f"for {PATIENCE_SECONDS:g} s: end that process, or try again later"
            )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError of the file system into a WeightsError that says what to do about it."""
    try:
        yield
    except WeightsError:
        raise
    except NotImplementedError as error:  # filelock's word for a file system without locks
        raise WeightsError(
            f"cannot lock a file in {folder} ({error}): set {CACHE_VARIABLE} to a local folder"
        ) from error
    except OSError as error:
        wrapped = WeightsError(_advice(folder, error))
        wrapped.errno = error.errno
        raise wrapped from error


def _advice(folder: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    cache = existing(cache_folder)
    in_cache = cache is not None and folder.is_relative_to(cache)
    if error.errno in DISK_FULL:
        elsewhere = f", or set {CACHE_VARIABLE} to a folder on another disk" if in_cache else ""
        return f"no room in {folder} ({reason}): free some space there{elsewhere}"
    elsewhere = (
        f", set {CACHE_VARIABLE} to a folder that is, or give a weights file's path as the model"
        if in_cache
        else ""
    )
    return f"cannot write in {folder} ({reason}): make it writable{elsewhere}"
