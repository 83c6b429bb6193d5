"""Fetching against the machine: other processes, full disks, missing rights, terminals."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import BODY, PATH, SHA256, Server, entry_for, names, python_fetch, unprivileged

from pillow_cwic.errors import WeightsError
from pillow_cwic.weights import cache, download

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")


def test_a_killed_process_leaves_what_the_next_one_resumes(server: Server, cache_dir: Path) -> None:
    """After SIGKILL in mid-transfer, another process goes on where the first one stopped.

    It is not locked out.
    """
    server.pages[PATH].hangs = [2_000_000]
    partial = cache_dir / f"{SHA256}.partial"
    with python_fetch(entry_for(server.url(PATH))) as process:
        while not (partial.exists() and partial.stat().st_size >= 1_500_000):
            assert process.poll() is None, process.stderr.read()
        process.kill()
    arrived = partial.stat().st_size
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={arrived}-"]
    assert server.sent_bytes()[1] == len(BODY) - arrived


def test_eight_processes_make_one_transfer(server: Server) -> None:
    """Eight processes that want one model at once: one request, and all eight get the file."""
    server.gate.clear()
    processes = [python_fetch(entry_for(server.url(PATH))) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    server.gate.set()
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, answers
    assert {output for output, _ in answers} == {f"{cache.model_path(SHA256)}\n"}
    assert server.ranges() == [None]
    assert cache.model_path(SHA256).read_bytes() == BODY


def test_who_waits_for_another_download_is_told(cache_dir: Path) -> None:
    """A second holder of a model's lock waits, and goes on when the first is done.

    It hears of the wait after a second.
    """
    told, entered = threading.Event(), threading.Event()

    def second() -> None:
        with cache.locked(SHA256, on_wait=told.set):
            entered.set()

    thread = threading.Thread(target=second)
    with cache.locked(SHA256):
        thread.start()
        assert told.wait(10)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set()


def test_small_files_are_for_everyone_who_may_read_the_folder(cache_dir: Path) -> None:
    """A manifest kept in a shared cache has the permissions that the umask gives.

    No temporary file stays.
    """
    mask = os.umask(0o022)
    try:
        cache.store(cache_dir / "manifests" / "a.json", b"{}")
    finally:
        os.umask(mask)
    (path,) = (cache_dir / "manifests").iterdir()
    assert path.read_bytes() == b"{}"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_without_permission_says_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that can't be written is a WeightsError before any transfer.

    It names the folder and PILLOW_CWIC_CACHE_DIR.
    """
    with unprivileged() as folder:
        monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
        with pytest.raises(
            WeightsError,
            match=rf"cannot write in {folder} \(Permission denied\).*PILLOW_CWIC_CACHE_DIR",
        ):
            download.fetch(entry_for(server.url(PATH)))
    assert server.requests == []


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no right to mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_says_so_and_is_not_left_full(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that is too small the error says so.

    The partial file is gone, as others need the room.
    """
    with mounted(tmp_path / "small", "size=1m") as folder:
        monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
        with pytest.raises(
            WeightsError, match=rf"no room in {folder} \(No space left on device\): free some space"
        ):
            download.fetch(entry_for(server.url(PATH)))
        assert names(folder) == set()


def test_a_read_only_file_system_says_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only mount is a WeightsError that names the folder and the way out."""
    with mounted(tmp_path / "fixed", "ro") as folder:
        monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
        with pytest.raises(WeightsError, match=r"Read-only file system\).*PILLOW_CWIC_CACHE_DIR"):
            download.fetch(entry_for(server.url(PATH)))


def test_a_file_size_limit_is_like_a_full_disk(server: Server, cache_dir: Path) -> None:
    """A quota (here RLIMIT_FSIZE of 1 MB) ends in the same advice, not in a traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    with python_fetch(entry_for(server.url(PATH)), preexec_fn=limit) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"WeightsError: no room in {cache_dir} (File too large): free some space there" in errors
    assert names(cache_dir) == set()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_is_for_terminals(server: Server, terminal: bool) -> None:
    """On a terminal stderr shows a bar with the model's name that ends at 100%.

    Into a pipe nothing is written.
    """
    if not terminal:
        with python_fetch(entry_for(server.url(PATH))) as process:
            assert process.communicate(timeout=300)[1] == ""
        return
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with python_fetch(entry_for(server.url(PATH)), stderr=slave) as process:
        process.communicate(timeout=300)
        os.close(slave)
        shown = os.read(master, 65536).decode()
    os.close(master)
    assert "mine: 100%" in shown


def test_quiet_hides_the_bar(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quiet` writes nothing even where stderr says it is a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download.fetch(entry_for(server.url(PATH)), quiet=True)
    assert capfd.readouterr() == ("", "")
