"""Forks at any moment: the parent goes on, and its children decode, whatever its threads do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import threadpoolctl
from processes import environment

from pillow_cwic.runtime.blas import one_blas_thread
from pillow_cwic.runtime.forks import ForkedLock, no_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")

FORK = """
import os, signal, sys, threading, time
signal.alarm(60)  # ends a parent that hangs
from PIL import Image
import pillow_cwic

def child(work):
    number = os.fork()
    if number == 0:
        signal.alarm(20)
        os._exit(0 if work() else 3)
    return number

def all_end_well(children):
    codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in children]
    assert codes == [0] * len(codes), codes
"""
WHILE_A_THREAD_DECODES = (
    FORK
    + """
path = sys.argv[1]
expected = pillow_cwic.decode(path).tobytes()
stop = threading.Event()
def decode():
    while not stop.is_set():
        pillow_cwic.decode(path)
thread = threading.Thread(target=decode)
thread.start()
for number in range(30):
    time.sleep(.002 * (number % 7))
    all_end_well([child(lambda: pillow_cwic.decode(path).tobytes() == expected)])
stop.set()
thread.join()
"""
)
FROM_THE_FIRST_MOMENT = (
    FORK
    + """
path = sys.argv[1]
image = Image.open(path)
thread = threading.Thread(target=image.load)
thread.start()
def load():
    return len(image.tobytes()) == image.width * image.height * 3 == pillow_cwic.decode(path).size
children = []
while thread.is_alive() and len(children) < 30:
    children.append(child(load))
    time.sleep(.01)
all_end_well(children)
thread.join()
"""
)
"""Children of a parent that loads model and picture; they load the same picture."""

OPENED_BEFORE = (
    FORK
    + """
expected = Image.open(sys.argv[1]).tobytes()
image = Image.open(sys.argv[1])
begin, end = os.pipe()
def load():
    os.close(end)
    os.read(begin, 1)  # all at once, when there is no one left to write
    return all(image._read_file() for _ in range(200)) and image.tobytes() == expected
children = [child(load) for _ in range(10)]
os.close(end)
all_end_well(children)
"""
)


def run(code: str, path: Path) -> None:
    """Runs it with as many threads as BLAS wants to have."""
    variables = environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        variables.pop(name, None)
    command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_children_forked_while_a_thread_decodes_decode(cwic_file: Path) -> None:
    """Thirty forks beside a thread that decodes all the time: no parent hangs, and no child."""
    run(WHILE_A_THREAD_DECODES, cwic_file)


def test_children_forked_while_all_is_loaded_load(cwic_file: Path) -> None:
    """Forks from the first moment on of a first load: modules, model, networks, picture."""
    run(FROM_THE_FIRST_MOMENT, cwic_file)


def test_children_load_the_picture_that_their_parent_opened(cwic_file: Path) -> None:
    """Ten children load one opened picture at once: they do not move each other's place in it."""
    run(OPENED_BEFORE, cwic_file)


def in_child(check: object) -> int:
    """The exit code of a child that checks something: 0 if it is true."""
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 3)  # type: ignore[operator]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def blas_threads() -> set[int]:
    pools = threadpoolctl.threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_the_callers_blas_threads() -> None:
    """Also where another thread limits them at the moment of the fork; its own limit it keeps."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    with threadpoolctl.threadpool_limits(2, "blas"):
        thread.start()
        inside.wait(60)
        assert blas_threads() == {1}
        assert in_child(lambda: blas_threads() == {2}) == 0
        with one_blas_thread():
            assert in_child(lambda: blas_threads() == {1}) == 0
        leave.set()
        thread.join()
        assert blas_threads() == {2}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_what_it_must_not_interrupt() -> None:
    """The child is made once the other thread is out of its section; its own does not count."""
    inside = threading.Event()
    done: list[bool] = []

    def work() -> None:
        with no_fork():
            inside.set()
            threading.Event().wait(0.3)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(60)
    with no_fork():
        assert in_child(lambda: done == [True]) == 0
    thread.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_free_in_a_child() -> None:
    """A child takes it at once; in the parent it stays with who has it."""
    lock = ForkedLock()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.held:
            held.set()
            leave.wait(60)

    def take() -> bool:
        with lock.held:
            return True

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    assert in_child(take) == 0
    leave.set()
    thread.join()
    assert take()
