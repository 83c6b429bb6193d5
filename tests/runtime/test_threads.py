"""Threads and processes: the caller's settings are left alone, and nothing hangs."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl
import torch
from closeness import assert_close
from processes import environment, python

import pillow_cwic
from pillow_cwic.runtime import threads
from pillow_cwic.runtime.blas import one_blas_thread
from pillow_cwic.runtime.machine import available_cores
from pillow_cwic.runtime.threads import another_thread_calls, map_parallel


@pytest.fixture(scope="module")
def data(pixels) -> bytes:
    """`pixels` at quality 0.4."""
    return pillow_cwic.encode(pixels, quality=0.4)


def test_results_come_in_order():
    """Whichever piece of work ends first, its result has the place of its item."""

    def work(item: int) -> int:
        time.sleep(0.02 * (item % 3))
        return item * item

    assert map_parallel(work, range(20)) == [item * item for item in range(20)]
    assert map_parallel(work, []) == []


@pytest.mark.skipif(available_cores() < 2, reason="needs two processor cores")
def test_pieces_are_worked_on_at_once():
    """Two pieces of work that wait for each other both end."""
    together = threading.Barrier(2)
    map_parallel(lambda _: together.wait(30), range(2))


@pytest.mark.skipif(available_cores() < 2, reason="needs two processor cores")
def test_another_thread_calls_meanwhile():
    """The block and the function can wait for each other; both have ended behind it."""
    together = threading.Barrier(2)
    ended = []

    def call() -> None:
        together.wait(30)
        time.sleep(0.05)
        ended.append(threading.current_thread())

    with another_thread_calls(call):
        together.wait(30)
    assert len(ended) == 1
    assert ended[0] is not threading.current_thread()


def test_an_error_in_the_other_thread_is_left_there():
    """Whoever calls the function again gets its error; an error of the block is the block's."""

    def call() -> None:
        raise MemoryError

    with another_thread_calls(call):
        pass
    with pytest.raises(KeyError), another_thread_calls(call):
        raise KeyError


def test_one_core_has_nobody_else_to_call(monkeypatch):
    """There the function is not called: it would only take turns with the block."""
    monkeypatch.setattr(threads, "available_cores", lambda: 1)
    called = []
    with another_thread_calls(lambda: called.append(1)):
        pass
    assert not called


def test_the_first_error_ends_it():
    """What a piece of work raises reaches the caller, and what was not begun is left out."""
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise KeyError(item)
        time.sleep(0.01)

    with pytest.raises(KeyError, match="3"):
        map_parallel(work, range(1000))
    assert len(begun) < 100


def test_the_users_thread_counts_are_left_alone(data):
    """Encoding and decoding leave the threads of BLAS and of PyTorch as the caller set them."""
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with threadpoolctl.threadpool_limits(count, "blas"):
                limits = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
                pillow_cwic.encode(pillow_cwic.decode(data))
                found = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
            assert found == limits
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


def test_one_thread_for_blas_ends_with_the_last_caller():
    """Callers may overlap: one thread while any is inside, the caller's number afterwards."""

    def counts() -> set[int]:
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, "blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert counts() == {1}
        second.__exit__(None, None, None)
        assert counts() == {2}


def test_whoever_of_several_threads_ends_last_lifts_the_limit():
    """Callers in threads that live on: the last one's end gives BLAS its threads back."""

    def counts() -> set[int]:
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    inside, leave, left, end = (threading.Event() for _ in range(4))

    def first() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait(60)
        left.set()
        end.wait(60)  # lives on

    with threadpoolctl.threadpool_limits(2, "blas"):
        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(60)
        with one_blas_thread():
            leave.set()
            left.wait(60)
            assert counts() == {1}
        assert counts() == {2}
        end.set()
        thread.join()


def test_threads_keep_to_what_a_call_may_take(monkeypatch):
    """However many cores there are: fewer large pieces at a time, never none."""
    for cores, pixels, piece_bytes, count in (
        (1, 10**9, 1, 1),
        (2, 1 << 20, 80 << 20, 2),
        (8, 1 << 20, 80 << 20, 2),
        (32, 1 << 20, 20 << 20, 8),
        (32, 10**9, 80 << 20, 7),
        (32, 10**9, 10 << 30, 1),
        (32, 0, 0, 8),
    ):
        monkeypatch.setattr(threads, "available_cores", lambda cores=cores: cores)
        assert threads.threads_within(pixels, piece_bytes) == count


NO_ROOM = """
import os, resource, sys, threading
import numpy as np, pillow_cwic
from pillow_cwic.runtime import threads
picture = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
threads.available_cores = lambda: 8
data = pillow_cwic.encode(picture)
expected = pillow_cwic.decode(data)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.getuid() == 0:
    os.setuid(54321)  # root is not bound by it
try:
    threading.Thread(target=print).start()
except RuntimeError:
    print("no room")
print(pillow_cwic.encode(picture) == data, (pillow_cwic.decode(data) == expected).all())
print(threads.map_parallel(abs, range(-3, 0)))
"""


def test_without_room_for_threads_one_does_all():
    """Where no thread can be started, the work is done, and the interpreter ends."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", NO_ROOM]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "no room\nTrue True\n[3, 2, 1]\n", done.stderr


def test_a_forked_child_can_decode(data):
    """After fork() in a process that has run the networks, a child decodes instead of hanging.

    To the same pixels.
    """
    code = f"""
import os, sys, signal
import numpy as np, pillow_cwic
data = bytes.fromhex({data.hex()!r})
whole = pillow_cwic.decode(data)
child = os.fork()
if child == 0:
    os._exit(0 if np.abs(pillow_cwic.decode(data).astype(int) - whole).max() <= 1 else 3)
signal.alarm(60)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork()")
    done = python("-W", "ignore", "-c", code)
    assert done.returncode == 0, done.stderr


def test_children_of_a_process_that_used_torch_decode(data):
    """A parent whose torch has computed with threads, and that never saw a .cwic file."""
    code = f"""
import os, signal, sys
import torch, pillow_cwic
torch.set_num_threads(2)
torch.nn.functional.conv2d(torch.rand(1, 64, 128, 128), torch.rand(64, 64, 3, 3)).sum()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if pillow_cwic.decode(bytes.fromhex({data.hex()!r})).any() else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork()")
    done = python("-W", "ignore", "-c", code)
    assert done.returncode == 0, done.stderr


def test_many_threads_encode_and_decode_at_once(pixels, data):
    """Eight threads get what one thread gets."""
    expected = pillow_cwic.decode(data)
    encoded: list[bytes] = []
    decoded: list[np.ndarray] = []

    def work() -> None:
        encoded.append(pillow_cwic.encode(pixels, quality=0.4))
        decoded.append(pillow_cwic.decode(data))

    at_once = [threading.Thread(target=work) for _ in range(8)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert encoded == [data] * 8
    assert len(decoded) == 8
    for picture in decoded:
        assert_close(picture, expected)
