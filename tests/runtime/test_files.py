"""The atomic writer: under its name a file is the old one or the new one, whole."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import environment

from pillow_cwic.runtime.files import write_atomically

FULL_DISK = """
import resource, sys
from pathlib import Path
from pillow_cwic.runtime.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), bytes(5000))
except OSError as error:
    print(error)
"""
"""A process whose files may have 1000 bytes: the writing breaks off in its middle."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_gets_its_bytes_and_leaves_no_litter(tmp_path: Path) -> None:
    """A new file and one that is replaced hold the bytes; nothing else is in the folder."""
    path = tmp_path / "x"
    for data in (b"first, and longer", b"second", b""):
        write_atomically(path, data)
        assert path.read_bytes() == data
        assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("old", [b"precious", None])
def test_a_full_disk_leaves_what_was_there(old: bytes | None, tmp_path: Path) -> None:
    """Where the writing breaks off the old file stays, or none; the error has the target's name."""
    path = tmp_path / "x.cwic"
    if old is not None:
        path.write_bytes(old)
    command = [sys.executable, "-B", "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: '{path}'\n"
    assert [one.read_bytes() for one in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_folder_that_is_not_there_is_named_by_the_target(tmp_path: Path) -> None:
    """The error is the system's own, with the name that the caller gave, not a temporary one."""
    path = tmp_path / "none" / "x.cwic"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, b"data")
    assert caught.value.filename == str(path)
    assert ".partial" not in str(caught.value)


def test_a_rename_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written but not renamed is not written: the old file stays, and no other."""
    path = tmp_path / "x.cwic"
    path.write_bytes(b"precious")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match=r"Input/output error: '.*x\.cwic'$"):
        write_atomically(path, b"data")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"precious"]


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o444, 0o755])
def test_permissions_of_the_old_file_are_kept(permissions: int, tmp_path: Path) -> None:
    """A file that is replaced keeps who may read and write it."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(permissions)
    write_atomically(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", permissions)


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """What the user's umask leaves, as of any file that is opened for writing."""
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "x", b"new")
    assert mode(tmp_path / "x") == mode(tmp_path / "usual")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(exists: bool, tmp_path: Path) -> None:
    """The link stays one, and what it points to, in another folder, gets the bytes.

    Also if it was not there.
    """
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    if exists:
        (there / "x").write_bytes(b"old")
    (here / "x").symlink_to(Path("..") / "there" / "x")
    write_atomically(here / "x", b"new")
    assert (here / "x").is_symlink()
    assert (there / "x").read_bytes() == b"new"
    assert not (there / "x").is_symlink()
    assert [one.name for one in (*there.iterdir(), *here.iterdir())] == ["x", "x"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    """A pipe stays a pipe, and whoever reads from it gets the bytes."""
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"data" * 50_000)
    reader.join(30)
    assert found == [b"data" * 50_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    """While two threads write by turns, whoever opens the file finds one of the contents, whole."""
    path, contents = tmp_path / "x", {bytes([kind]) * 200_000 for kind in (1, 2)}
    write_atomically(path, min(contents))
    writing = [
        threading.Thread(target=lambda data=data: [write_atomically(path, data) for _ in range(20)])
        for data in contents
    ]
    for thread in writing:
        thread.start()
    while any(thread.is_alive() for thread in writing):
        assert path.read_bytes() in contents
    for thread in writing:
        thread.join()
    assert path.read_bytes() in contents
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")
def test_a_full_device_is_named() -> None:
    """What is no regular file is named in its error, too."""
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_atomically(Path("/dev/full"), b"data")
