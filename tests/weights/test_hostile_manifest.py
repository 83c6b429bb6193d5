"""Manifests and weights files that were made to do harm: each costs itself alone."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tiny_model
from loopback import BODY, PATH, SHA256, Server

from pillow_cwic.errors import WeightsError
from pillow_cwic.format import container
from pillow_cwic.weights import cache, catalogue, manifest, models
from pillow_cwic.weights.file import FORMAT, read_config, read_model

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")

ID = SHA256[:16]
GOOD = {"name": "mine", "file": "mine.safetensors", "sha256": SHA256, "bytes": len(BODY)}
HUGE = int("1" + "0" * 400)

BAD_ENTRIES: dict[str, dict[str, Any]] = {
    "a huge rate": {"quality": [{"index": 0, "bpp": HUGE, "psnr": 30}]},
    "a rate that is no number": {"quality": [{"index": 0, "bpp": float("nan"), "psnr": 30}]},
    "a huge index": {"quality": [{"index": HUGE, "bpp": 1, "psnr": 30}]},
    "a huge file": {"bytes": HUGE},
    "a way up": {"urls": ["%2e%2e/mine.safetensors"]},
    "a hidden slash": {"urls": ["%2Fetc/passwd"]},
    "a hidden way up": {"urls": ["a%2f..%5C..%2fetc"]},
    "a hidden end": {"urls": ["mine%00.safetensors"]},
    "a hidden line": {"urls": ["http://127.0.0.1/%0d%0aHost:x"]},
    "a drive": {"urls": ["c%3a/x"]},
    "an escape": {"urls": ["http://127.0.0.1/\x1b[2J"]},
    "many addresses": {"urls": ["x"] * 17},
    "a long address": {"urls": ["x" * 2001]},
    "a licence that steers terminals": {"licence": "MIT\x1b]0;x\x07"},
    "nested": {"quality": json.loads("[" * 500 + "]" * 500)},
}


def write(path: Path, *entries: dict[str, Any], **fields: Any) -> Path:
    """A manifest file with these entries."""
    path.write_text(json.dumps({"schema": 1, "models": list(entries), **fields}))
    return path


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_a_bad_entry_costs_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped model works, the manifest's other model does, and the bad one is named once."""
    bad = {**GOOD, "name": "bad", **BAD_ENTRIES[name]}
    path = write(tmp_path / "m.json", bad, GOOD)
    (tmp_path / "mine.safetensors").write_bytes(BODY)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(path))
    header = container.Header(8, 8, 3, False, 31, models.find(None).id)
    assert models.quality_of_file(header) == 0.49
    assert models.locate(models.find(ID)) == tmp_path / "mine.safetensors"
    (problem,) = catalogue.read_all().problems
    assert problem.count("model 'bad', field") == 1
    with pytest.raises(WeightsError, match="model 'bad', field"):
        catalogue.add(str(path))


def test_many_entries_are_read_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest manifest there may be takes time in proportion; messages name some of it."""
    names = [{**GOOD, "name": f"m{n}", "sha256": f"{n:064x}"} for n in range(24_000)]
    path = write(tmp_path / "m.json", *names)
    assert 3_000_000 < path.stat().st_size < manifest.MAX_MANIFEST_BYTES
    start = time.perf_counter()
    assert len(manifest.read(path).models) == 24_000
    seconds = time.perf_counter() - start
    few = write(tmp_path / "few.json", *names[:2400])
    start = time.perf_counter()
    manifest.read(few)
    assert seconds < 100 * (time.perf_counter() - start)  # 10 times as many: not 100 times as long
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(path))
    with pytest.raises(WeightsError, match="and 23980 more") as error:
        models.find("feedfacefeedface")
    assert len(str(error.value)) < 5000
    write(path, *({**GOOD, "bytes": -1} for _ in range(100)))
    with pytest.raises(WeightsError) as error:
        manifest.read(path)
    assert len(str(error.value)) < 5000


def test_a_false_entry_hides_no_file(
    tmp_path: Path, cache_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry with the id of another model and a hash of its own: the right file is found.

    In the cache, without a request; and by the right entry of another manifest.
    """
    false = {**GOOD, "sha256": ID + "f" * 48, "urls": [server.url("/false")]}
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(write(tmp_path / "m.json", false)))
    tiny = tmp_path / "tiny.safetensors"
    sha256 = tiny_model.export(tiny)
    write(tmp_path / "m.json", {**false, "sha256": sha256[:16] + "f" * 48})

    cache_dir.mkdir()
    shutil.copy(tiny, cache_dir / f"{sha256}.safetensors")
    assert models.load(sha256[:16], "cpu").id == sha256[:16]
    assert server.requests == []
    models.forget()

    (cache_dir / f"{sha256}.safetensors").unlink()
    true = {"name": "true", "file": tiny.name, "sha256": sha256, "bytes": tiny.stat().st_size}
    added = write(tmp_path / "true.json", true)
    catalogue.add(str(added))
    assert models.load(sha256[:16], "cpu").id == sha256[:16]
    models.forget()


def test_a_file_in_the_current_folder_changes_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is a name, whatever lies there; with a folder in it, it is a path."""
    shipped = models.find(None)
    monkeypatch.chdir(tmp_path)
    for name in (shipped.name, shipped.id, shipped.file):
        Path(name).write_bytes(b"no model")
    assert models.find(shipped.name) == shipped
    assert models.find(shipped.id) == shipped
    assert models.find(f"./{shipped.name}").sha256 == cache.hash_file(Path(shipped.name))
    assert models.find(Path(shipped.name)).sha256 == cache.hash_file(Path(shipped.name))


@pytest.mark.parametrize("place", ["manifest", "weights"])
def test_a_pipe_is_no_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe where a manifest or weights file should be is an error, at once."""
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    if place == "manifest":
        monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(pipe))
        (problem,) = catalogue.read_all().problems
        assert problem == f"cannot read the manifest {pipe}: not a regular file"
    else:
        for read in (models.find, read_config, lambda path: read_model(path, "cpu", id=ID)):
            with pytest.raises(WeightsError, match="not a regular file"):
                read(pipe)


def test_a_base_cannot_hold_control_characters(tmp_path: Path) -> None:
    """It becomes a path, and a part of messages."""
    for base in ("/a\0b", "/a\x1b[2J", 5, None):
        with pytest.raises(WeightsError, match="has base"):
            manifest.read(write(tmp_path / "m.json", GOOD, base=base))


ABSURD = {
    "blocks": {"decoder_blocks": [10**9, 1, 1]},
    "channels": {"kept_planes": [0, 3, 8, 16 * 10**9]},
    "width": {"quarter_channels": 2 * 10**9},
    "context": {"context_features": HUGE},
    "lambda": {"lambda_max": HUGE},
    "infinite lambda": {"lambda_max": float("inf")},
    "no number": {"lambda_min": float("nan")},
    "shares": {"ssim_weight": [0.0] * 10**5, "ms_ssim_weight": [0.0] * 10**5},
    "a huge share": {"ssim_weight": [HUGE, 0.0]},
    "a share that is no number": {"ssim_weight": [float("nan")] * 2},
}


@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_configuration_is_refused(name: str, tmp_path: Path) -> None:
    """Before anything is built by it, in a short message."""
    config = {**asdict(tiny_model.CONFIG), **ABSURD[name]}
    path = tmp_path / "absurd.safetensors"
    path.write_bytes(
        safetensors.numpy.save({"x": np.zeros(1, np.float32)}, {FORMAT: json.dumps(config)})
    )
    with pytest.raises(WeightsError, match="bad model configuration") as error:
        read_model(path, "cpu", id=ID)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", ["[" * 10**5, '{"a":' * 10**5, "[]", "1e999", "\ud800"])
def test_a_configuration_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    """Deep nesting and other JSON are a WeightsError, too."""
    header = json.dumps({"__metadata__": {FORMAT: value}}).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    for read in (read_config, lambda path: read_model(path, "cpu", id=ID)):
        with pytest.raises(WeightsError, match=r"bad\.safetensors"):
            read(path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_are_finite(number: float, tiny: Path, tmp_path: Path) -> None:
    """One number of a network that is infinite or none is refused, by the tensor's name."""
    tensors = safetensors.numpy.load(tiny.read_bytes())
    name = "decoder.up.weight"
    tensors[name] = tensors[name].copy()
    tensors[name].flat[5] = number
    path = tmp_path / "bad.safetensors"
    config = replace(read_config(tiny)).to_json()
    path.write_bytes(safetensors.numpy.save(tensors, {FORMAT: config}))
    with pytest.raises(WeightsError, match=r"up\.weight holds numbers that are infinite or none"):
        read_model(path, "cpu", id=ID)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 8 + b"{}",
        (2**63 - 1).to_bytes(8, "little"),
        (10).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"\xff\xff",
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(data: bytes, tmp_path: Path) -> None:
    """Lying lengths and other JSON cost nothing."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    for read in (read_config, lambda path: read_model(path, "cpu", id=ID)):
        with pytest.raises(WeightsError, match=r"bad\.safetensors"):
            read(path)


def test_a_file_that_shrinks_after_loading_harms_nobody(tiny: Path, tmp_path: Path) -> None:
    """Weights are read into memory: whatever becomes of the file, the model stays."""
    path = Path(shutil.copy(tiny, tmp_path))
    model = models.load(path, "cpu")
    os.truncate(path, 100)
    codes = np.zeros((3, 3, model.config.channels), np.float32)
    from pillow_cwic.format.grid import Box

    area = Box(0, 0, 3, 3)
    (picture,) = model.decoder({"codes": codes}, 0.0, area, area)
    assert np.isfinite(picture).all()
    models.forget()


def test_a_file_of_another_size_is_not_hashed(
    server: Server, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file of a terabyte in the cache costs nothing, and is replaced."""
    entry = {**GOOD, "urls": [server.url(PATH)]}
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(write(tmp_path / "m.json", entry)))
    cache_dir.mkdir()
    with (cache_dir / f"{SHA256}.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    assert models.locate(models.find(ID)).read_bytes() == BODY
