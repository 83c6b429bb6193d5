"""Loaded models: one per id and device, loaded once whoever asks, a bounded number of them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model

from pillow_cwic import model
from pillow_cwic.errors import WeightsError
from pillow_cwic.weights import cache, file, models

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")
CPU = "cpu"


@pytest.fixture
def path(tiny: Path, tmp_path: Path) -> Path:
    """A weights file of the test's own."""
    return Path(shutil.copy(tiny, tmp_path))


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids that were really loaded, in order: the true loader, watched."""
    seen: list[str] = []
    load = file.parse_model

    def watched(data: bytes, name: str, device: str, *, id: str) -> model.Model:
        seen.append(id)
        return load(data, name, device, id=id)

    monkeypatch.setattr(file, "parse_model", watched)
    models.forget()
    yield seen
    models.forget()


def copies(path: Path, count: int) -> list[Path]:
    """Files of one model that differ in their bytes, hence in their ids.

    Safetensors headers end in spaces.
    """
    made = []
    for number in range(count):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length] + b" " * 8 * (number + 1)
        copy = path.with_name(f"copy{number}.safetensors")
        copy.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
        made.append(copy)
    return made


def test_a_model_is_loaded_once(path: Path, loads: list[str]) -> None:
    """Path, Path object and id give one object; the file is read once."""
    first = models.load(path, CPU)
    assert models.load(str(path), CPU) is first
    assert models.load(first.id, CPU) is first
    assert loads == [first.id]


def test_the_id_is_enough_once_a_model_is_in_memory(path: Path, tmp_path: Path) -> None:
    """Who encoded with a file that no manifest names can decode in the same process.

    Even if the file is gone.
    """
    gone = tmp_path / "gone.safetensors"
    gone.write_bytes(path.read_bytes())
    loaded = models.load(gone, CPU)
    gone.unlink()
    assert models.load(loaded.id, CPU) is loaded


def test_threads_that_ask_at_once_share_one_loading(path: Path, loads: list[str]) -> None:
    """Eight threads at a barrier get the same object from one load."""
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(models.load(path, CPU))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert len(loads) == 1


def test_devices_are_kept_apart(path: Path, loads: list[str]) -> None:
    """The same id on another device is another model."""
    assert models.load(path, CPU) is not models.load(path, "torch")
    assert len(loads) == 2


def test_memory_is_bounded(path: Path, loads: list[str]) -> None:
    """The fifth model pushes out the one not used for longest.

    That one is loaded again when it is wanted again.
    """
    paths = copies(path, models.MAX_LOADED + 1)
    ids = [models.load(p, CPU).id for p in paths[:-1]]
    models.load(ids[0], CPU)  # now the second is the oldest
    models.load(paths[-1], CPU)
    assert len(set(loads)) == len(loads) == models.MAX_LOADED + 1
    models.load(ids[0], CPU)
    assert len(loads) == models.MAX_LOADED + 1
    models.load(ids[1], CPU)
    assert loads[-1] == ids[1]


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    """Bytes with a known hash that are no model are a WeightsError with the file's name."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        models.load(bad, CPU)


def test_a_failed_loading_is_tried_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose file was missing is loaded as soon as the file is there.

    The failure is not kept.
    """
    late = tmp_path / "late.safetensors"
    late.write_bytes(path.read_bytes())
    tiny_model.write_manifest(tmp_path / "m.json", late, sha256=cache.hash_file(late))
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(tmp_path / "m.json"))
    late.unlink()
    for _ in range(2):
        with pytest.raises(WeightsError, match="gives no URL for it"):
            models.load("late", CPU)
    late.write_bytes(path.read_bytes())
    assert models.load("late", CPU).id == models.find(path).id


def test_bytes_are_checked_before_they_are_loaded(
    path: Path, loads: list[str], cache_dir: Path
) -> None:
    """A cached file with one flipped bit never reaches the model loader."""
    cache_dir.mkdir()
    entry = models.find(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    cached = cache_dir / f"{entry.sha256}.safetensors"
    cached.write_bytes(data)
    assert models.load(entry.id, CPU).id == entry.id  # from the path given before
    assert loads == [entry.id]
    assert not cached.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_the_parents_threads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked while another thread is loading, the child loads by itself instead of waiting."""
    loading, go_on, load = threading.Event(), threading.Event(), file.parse_model

    def slow(*args: object, **options: str) -> model.Model:
        loading.set()
        go_on.wait(30)
        return load(*args, **options)

    monkeypatch.setattr(file, "parse_model", slow)
    thread = threading.Thread(target=models.load, args=(path, CPU))
    thread.start()
    loading.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        file.parse_model = load
        os._exit(0 if models.load(path, CPU).id else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
