"""A setting that differs while any caller is inside comes back, whatever ends a caller."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import threadpoolctl
import torch

from pillow_cwic.networks.torch_precision import full_precision
from pillow_cwic.runtime.blas import one_blas_thread
from pillow_cwic.runtime.meanwhile import Meanwhile

OURS = ("meanwhile.py", "forks.py", "blas.py", "torch_precision.py", "contextlib.py", __file__)


def interrupted(work: Callable[[], None], event: int) -> bool:
    """Do work; at its event of so high a number (a line or a call), KeyboardInterrupt.

    Whether the work was so long. Signals are looked for between most instructions, but not where a
    with statement leaves its block for the end of a lock: at such lines there is none.
    """
    left = event

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.endswith(OURS):
            return None
        line = linecache.getline(code.co_filename, frame.f_lineno).strip()
        if kind in ("call", "line") and not line.startswith("with "):
            left -= 1
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def at_every_event(work: Callable[[], None], check: Callable[[], None]) -> int:
    """Interrupt work at each of its events in turn, check after each; how many there were."""
    events = 0
    while interrupted(work, events):
        check()
        events += 1
    check()
    return events


def test_an_interrupt_anywhere_leaves_the_setting_as_it_was() -> None:
    """Wherever Ctrl-C strikes, the setting is as it was, and the next caller can change it."""
    settings = {"now": "caller's"}
    ours = Meanwhile(
        lambda: settings["now"],
        lambda: settings.update(now="ours"),
        lambda before: settings.update(now=before),
    )

    def work() -> None:
        with ours():
            assert settings["now"] == "ours"
            with ours():
                assert settings["now"] == "ours"

    def check() -> None:
        assert settings["now"] == "caller's"
        with ours():
            assert settings["now"] == "ours"
        assert settings["now"] == "caller's"

    assert at_every_event(work, check) > 50


def test_an_interrupt_anywhere_leaves_blas_its_threads() -> None:
    """The same of the threads of BLAS."""

    def counts() -> set[int]:
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    def work() -> None:
        with one_blas_thread():
            pass

    def check() -> None:
        assert counts() == {2}

    with threadpoolctl.threadpool_limits(2, "blas"):
        work()  # finds the libraries, once
        assert at_every_event(work, check) > 50


def test_an_interrupt_anywhere_leaves_torch_its_precision() -> None:
    """The same of torch's precision of products."""
    before = torch.get_float32_matmul_precision()

    def work() -> None:
        with full_precision():
            pass

    def check() -> None:
        assert torch.get_float32_matmul_precision() == "medium"

    try:
        torch.set_float32_matmul_precision("medium")
        work()
        assert at_every_event(work, check) > 30
    finally:
        torch.set_float32_matmul_precision(before)


def test_who_is_left_inside_keeps_the_setting() -> None:
    """One of two callers is interrupted on its way in or out: the other still has the setting."""
    settings = {"now": 2}
    one = Meanwhile(
        lambda: settings["now"],
        lambda: settings.update(now=1),
        lambda before: settings.update(now=before),
    )
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with one():
            inside.set()
            leave.wait(60)

    def work() -> None:
        with one():
            pass

    def check() -> None:
        assert settings["now"] == 1

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    at_every_event(work, check)
    leave.set()
    thread.join()
    assert settings["now"] == 2
