"""Standard streams and pipes: every command reads and writes them, and none depends on them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import environment

import pillow_cwic
from pillow_cwic.tools.terminal import printable

PROGRAM = [sys.executable, "-m", "pillow_cwic"]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    variables = environment(**options.pop("variables", {}))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, env=variables, timeout=120, check=False, **options)


@pytest.fixture
def png(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    photo.save(path)
    return path


def test_through_pipes(png: Path) -> None:
    """`-` is standard input and output: encode, info and decode work without a file between."""
    encoded = run("encode", "-", "-", input=png.read_bytes())
    assert (encoded.returncode, encoded.stderr[:17]) == (0, b"standard output: ")
    shown = run("info", "--json", "-", input=encoded.stdout)
    assert json.loads(shown.stdout)[0]["bytes"] == len(encoded.stdout)
    decoded = run("decode", "-", "-", "--to", "png", "-q", input=encoded.stdout)
    assert decoded.stderr == b""
    with Image.open(BytesIO(decoded.stdout)) as image:
        assert np.array_equal(np.asarray(image), pillow_cwic.decode(encoded.stdout))


def test_outputs_of_a_stream_have_a_name(png: Path, tmp_path: Path) -> None:
    """Reports on what comes through a pipe are called stdin, not "-", which shells misread."""
    out = tmp_path / "out"
    assert run("compare", "-", "--out", out, "-q", input=png.read_bytes()).returncode == 0
    names = {path.name for path in out.iterdir()} - {"index.html"}
    assert "stdin.cwic" in names
    assert {name[:5] for name in names} == {"stdin"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("verb", ["encode", "decode", "info", "compare"])
def test_named_pipes(verb: str, png: Path, cwic_bytes: bytes, tmp_path: Path) -> None:
    """Every command that takes a file takes a pipe; none waits for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = png.read_bytes() if verb in ("encode", "compare") else cwic_bytes
    writer = threading.Thread(target=pipe.write_bytes, args=[data], daemon=True)
    writer.start()
    outputs = {
        "encode": [tmp_path / "out.cwic"],
        "decode": [tmp_path / "out.png"],
        "info": [],
        "compare": ["--out", tmp_path / "out"],
    }
    done = run(verb, pipe, *outputs[verb])
    writer.join(20)
    assert done.returncode == 0, done.stderr
    if outputs[verb]:
        assert Path(outputs[verb][-1]).exists()


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="this system has no /dev/stdin")
def test_streams_by_their_device(png: Path, cwic_bytes: bytes) -> None:
    """/dev/stdin and /dev/stdout are pipes, too."""
    done = run("decode", "/dev/stdin", "/dev/stdout", "--to", "png", "-q", input=cwic_bytes)
    assert done.stderr == b""
    assert Image.open(BytesIO(done.stdout)).size == (88, 72)


def test_an_endless_stream_is_refused(
    png: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no regular file is read up to a limit."""
    from pillow_cwic.tools import sources
    from pillow_cwic.tools.cli import main

    monkeypatch.setattr(sources, "MOST_STREAMED_BYTES", 1 << 20)
    assert main(["encode", "/dev/zero", str(png.with_suffix(".cwic"))]) == 1
    assert "/dev/zero gives more than 1,048,576 bytes" in capsys.readouterr().err


def test_an_empty_stream_is_named() -> None:
    """Nothing on standard input is a line that says so."""
    done = run("info", "-", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr == b"pillow-cwic: standard input gives no bytes\n"


def test_no_bytes_for_a_terminal(png: Path) -> None:
    """Neither is a picture written to a terminal, nor waited for from one."""
    screen, terminal = pty.openpty()
    try:
        done = run("encode", png, "-", stdout=terminal)
        assert b"standard output is a terminal" in done.stderr
        done = run("info", "-", stdin=terminal)
        assert b"standard input is a terminal" in done.stderr
    finally:
        os.close(screen)
        os.close(terminal)


def test_several_pictures_do_not_go_to_standard_output(png: Path) -> None:
    """Their bytes would run into each other: wrong usage."""
    done = run("encode", png, png, "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard output takes one picture" in done.stderr


VERBS = ["encode", "decode", "info", "compare", "convert"]


def arguments_of(verb: str, png: Path, cwic: Path, out: Path) -> list[object]:
    return {
        "encode": [png, out / "x.cwic"],
        "decode": [cwic, out / "x.png"],
        "info": [cwic],
        "compare": [png, "--out", out],
        "convert": [png, "--out", out],
    }[verb]


@pytest.mark.parametrize(
    ("verb", "closed"), [("encode", (2,)), *((verb, (0, 1, 2)) for verb in VERBS)]
)
def test_missing_streams(
    verb: str, closed: tuple[int, ...], png: Path, cwic_file: Path, tmp_path: Path
) -> None:
    """Without standard error, or any stream, a command does its work and exits with 0."""
    (tmp_path / "out").mkdir()

    def close() -> None:
        for number in closed:
            os.close(number)

    arguments = arguments_of(verb, png, cwic_file, tmp_path / "out")
    done = run(verb, *arguments, preexec_fn=close)
    assert done.returncode == 0
    assert verb == "info" or any((tmp_path / "out").iterdir())
    for path in (tmp_path / "out").iterdir():
        assert b"pillow-cwic: " not in path.read_bytes()  # no message in a file of ours


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_streams(png: Path, cwic_file: Path, tmp_path: Path) -> None:
    """Messages that are not taken cost nothing; results that are not taken are an error."""
    with Path("/dev/full").open("wb") as full:
        done = run("encode", png, tmp_path / "x.cwic", stderr=full)
        assert done.returncode == 0
        assert (tmp_path / "x.cwic").exists()
        for arguments in (["info", cwic_file], ["encode", png, "-", "-q"]):
            done = run(*arguments, stdout=full)
            assert done.returncode == 1
            assert b"standard output: No space left on device" in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_who_has_seen_enough(cwic_file: Path) -> None:
    """A reader that goes away is no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("info", cwic_file, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_narrow_streams(png: Path, photo: Image.Image, tmp_path: Path) -> None:
    """What an encoding lacks is shown escaped: a letter costs nobody the whole report."""
    path = tmp_path / "snow.cwic"
    photo.save(path, comment="Grüße \u2603")
    done = run("info", path, variables={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"comment     11 bytes: 'Gr\xfc\xdfe \u2603'" in done.stdout
    out = tmp_path / "sn\u00f6.cwic"
    done = run("encode", png, out, variables={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert rb"sn\xf6.cwic: " in done.stderr


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters of a name, or of a comment, are shown, not sent."""
    assert printable("a\x1b[31m\u202eb\tü") == r"a\x1b[31m\u202eb\tü"
    done = run("info", tmp_path / "\x1b[31m.cwic")
    assert rb"\x1b[31m.cwic: there is no such file" in done.stderr
