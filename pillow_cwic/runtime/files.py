"""Reading and writing whole files, and the one atomic writer.

Under its name a file is the old one or the new one, whole, whatever happens. Invariant: everything
that the package writes for a user, into the cache or into a run goes through here; only storage
that is not a file system (fsspec) is written elsewhere.
"""

import errno
import os
import secrets
import stat
from io import BufferedReader, FileIO, RawIOBase
from pathlib import Path
from typing import IO


def read_whole(file: IO[bytes]) -> bytes:
    """An open file from its start.

    A file on disk is read without its position, which forked processes share and would move for
    each other.
    """
    if isinstance(file, BufferedReader) and isinstance(file.raw, FileIO) and hasattr(os, "pread"):
        number = file.fileno()
        size = max(os.fstat(number).st_size, 1 << 16)
        data = bytearray()
        while piece := os.pread(number, size, len(data)):
            data += piece
        return bytes(data)
    file.seek(0)
    return file.read()


def write_whole(file: IO[bytes], data: bytes) -> None:
    """Into a file that the caller opened; OSError where it does not take all of it.

    A file without a buffer (a socket, one on a disk that is filling up) may take less than it is
    given, and says so by a number that is easily overlooked.
    """
    while data:
        count = file.write(data)
        if not isinstance(file, RawIOBase):  # all others take everything, or raise
            return
        if not count:
            raise BlockingIOError(errno.EAGAIN, f"{len(data)} bytes are left that it does not take")
        data = data[count:]


def takes_files(folder: Path) -> bool:
    """Whether files can be made in a folder, by the user and the rights in effect."""
    by_effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=by_effective)


def open_regular(path: Path) -> BufferedReader:
    """A regular file, to be read; OSError for a pipe or a device, which could wait for ever."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, flush to disk, rename; the file's own OSError where that fails.

    A link is followed, and permissions of a file that was there are kept. What is no regular file
    (a pipe, a terminal) is written to as it is.
    """
    if path.exists() and not path.is_file():
        try:
            path.write_bytes(data)  # by its own name: where /dev/stdout leads to has none
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".cwic-{secrets.token_hex(8)}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except OSError as error:
        # Not the name of a file that is gone.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
