"""Workers end with their parent, whatever ends it: real processes, real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from processes import environment

WORK = """
import pathlib, sys, time
from pillow_cwic.runtime.processes import worker_processes

def work(path):
    pathlib.Path(path).write_text("busy")
    time.sleep(300)

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    with worker_processes(2) as pool:
        futures = [pool.submit(work, str(folder / str(number))) for number in range(2)]
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        print("both are busy", flush=True)
        futures[0].result()
"""


def start(tmp_path: Path, code: str, *arguments: object) -> subprocess.Popen[str]:
    script = tmp_path / "parent.py"
    script.write_text(code)
    command = [sys.executable, str(script), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True)


def test_workers_of_a_killed_parent_end(tmp_path: Path) -> None:
    """They leave what they do, and the pipes that they share with their parent are closed."""
    folder = tmp_path / "busy"
    folder.mkdir()
    parent = start(tmp_path, WORK, folder)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "both are busy\n"
    parent.kill()
    # The pipes end only when the last worker has let go of them.
    parent.communicate(timeout=300)
    assert parent.returncode == -signal.SIGKILL


CONVERT = """
import signal
import sys

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests by nohup has it ignored
from pillow_cwic.tools.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_convert_ends_as_on_an_interrupt(tmp_path: Path, name: str) -> None:
    """On TERM and HUP as on Ctrl-C: what is begun is whole, the rest is left, exit code 1."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for index in range(200):
        Image.effect_noise((160, 160), 60).save(pictures / f"{index}.png")
    parent = start(tmp_path, CONVERT, "convert", pictures, "--out", out, "--jobs", 2)
    while not list(out.glob("*.cwic")):
        assert parent.poll() is None
    parent.send_signal(getattr(signal, name))
    _, said = parent.communicate(timeout=300)
    assert parent.returncode == 1
    assert "interrupted" in said
    written = list(out.glob("*.cwic"))
    assert 0 < len(written) < 200
    for path in written:
        with Image.open(path) as image:
            image.verify()


INTERRUPTED_AT_BIRTH = """
import multiprocessing, os, signal, threading, time
from pillow_cwic.runtime.processes import worker_processes

def interrupt() -> None:
    while True:
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)
        time.sleep(.001)

if __name__ == "__main__":
    threading.Thread(target=interrupt, daemon=True).start()
    with worker_processes(2) as pool:
        print([pool.submit(abs, -number).result() for number in range(4)])
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_a_worker_knows_no_interrupt_from_its_first_moment_on(tmp_path: Path) -> None:
    """Ctrl-C reaches workers that are still starting, too: no traceback, no broken pool."""
    script = tmp_path / "main.py"
    script.write_text(INTERRUPTED_AT_BIRTH)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")
