"""Progress: what is told rises to 1, whoever does the work."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.options import EncodeOptions
from pillow_cwic.runtime.progress import Progress


def assert_rises_to_one(told: list[float], least: int) -> None:
    """It never falls, says something between, and 1 once, at the end."""
    assert len(told) >= least
    assert told == sorted(set(told))
    assert told[0] > 0
    assert told.index(1.0) == len(told) - 1


@pytest.mark.parametrize(
    "options", [{"quality": 0.3}, {"bpp": 0.7}, {"max_bytes": 2000}, {"lossless": True}]
)
def test_encoding_tells_its_share(options: dict[str, float], pixels: np.ndarray) -> None:
    """For a quality, a target and a lossless file; the bytes are the same with and without."""
    told: list[float] = []
    data = pillow_cwic.encode(pixels, progress=told.append, **options)
    assert data == pillow_cwic.encode(pixels, **options)
    assert_rises_to_one(told, 2 if "lossless" in options else 4)


@pytest.mark.parametrize("options", [{"quality": 0.3}, {"bpp": 0.7}])
def test_effort_tells_its_share(options: dict[str, float], photo: Image.Image) -> None:
    """Each pass of effort is a step."""
    told: list[float] = []
    pillow_cwic.encode(np.asarray(photo), effort=5, progress=told.append, **options)
    assert_rises_to_one(told, 7)


def test_decoding_tells_its_share(pixels: np.ndarray) -> None:
    """Entropy decoding and networks, tile by tile and window by window."""
    told: list[float] = []
    data = pillow_cwic.encode(pixels)
    pillow_cwic.decode(data, progress=told.append)
    assert_rises_to_one(told, 3)
    told.clear()
    pillow_cwic.decode(data, region=(8, 8, 40, 40), progress=told.append)
    assert_rises_to_one(told, 2)


def test_saving_tells_its_share(photo: Image.Image, tmp_path: Path) -> None:
    """`im.save(progress=...)` is the same option."""
    told: list[float] = []
    photo.save(tmp_path / "x.cwic", progress=told.append)
    assert_rises_to_one(told, 3)


def test_who_is_told_may_end_the_call(pixels: np.ndarray) -> None:
    """What the function raises comes out of the call: a way to cancel."""

    def cancel(share: float) -> None:
        raise KeyboardInterrupt(f"at {share}")

    with pytest.raises(KeyboardInterrupt, match="at 0"):
        pillow_cwic.encode(pixels, progress=cancel)


def test_something_that_is_no_function_is_refused() -> None:
    """Before any work."""
    with pytest.raises(TypeError, match="progress is a function that takes the share"):
        EncodeOptions(progress=True)


def test_one_thread_tells_at_a_time() -> None:
    """From many threads, what is told rises all the same."""
    told: list[float] = []
    progress = Progress(told.append)
    progress.expect(4000)
    threads = [
        threading.Thread(target=lambda: [progress.add(1) for _ in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.finish()
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_more_work_than_expected_does_not_go_back() -> None:
    """An estimate that was too low is never told as done."""
    told: list[float] = []
    progress = Progress(told.append)
    progress.expect(2)
    for _ in range(5):
        progress.add(1)
    progress.expect(5)
    progress.add(1)
    progress.finish()
    assert told == [0.5, 0.99, 1.0]
