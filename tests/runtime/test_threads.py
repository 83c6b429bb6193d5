"""Threads and processes: the caller's settings are left alone, and nothing hangs."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from closeness import assert_close
from processes import environment

import pillow_cwic
from pillow_cwic.runtime import threads


@pytest.fixture(scope="module")
def data(pixels) -> bytes:
    """`pixels` at quality 0.4."""
    return pillow_cwic.encode(pixels, quality=0.4)


def test_the_users_thread_count_is_left_alone(data):
    """Encoding and decoding leave torch's thread count alone.

    This thread's, and that of threads to come.
    """

    def elsewhere() -> int:
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            threads._executor = None  # as in a process that has not coded anything yet
            pillow_cwic.encode(pillow_cwic.decode(data))
            assert torch.get_num_threads() == count
            assert elsewhere() == count
            assert threads.map_one_thread(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
    finally:
        torch.set_num_threads(before)


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
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
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
