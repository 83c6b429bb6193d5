"""The public interface: what is in it, what it takes, and what type checkers see of it."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_model
from PIL import Image
from processes import environment

import pillow_cwic
from pillow_cwic import Metadata, WeightsError
from pillow_cwic.weights import models

METADATA = Metadata(b"icc", b"Exif\0\0MM", b"<x/>", (300.0, 299.5), "hej, världen".encode())
OF_THE_LANGUAGE = {"annotations", "TYPE_CHECKING"}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(pillow_cwic.__path__, "pillow_cwic.")
)


def test_the_public_names_are_those_listed() -> None:
    """`__all__` is the public namespace, no less and no more; modules are not part of it."""
    found = {
        name
        for name, value in vars(pillow_cwic).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert found - OF_THE_LANGUAGE == set(pillow_cwic.__all__)
    assert list(pillow_cwic.__all__) == sorted(set(pillow_cwic.__all__))


def test_public_names_are_documented() -> None:
    """Everything in `__all__` has a docstring; the errors are one tree under OSError."""
    assert all(getattr(pillow_cwic, name).__doc__ for name in pillow_cwic.__all__)
    for error in (pillow_cwic.FormatError, pillow_cwic.UnsupportedError, pillow_cwic.WeightsError):
        assert error.__mro__[1:3] == (pillow_cwic.CwicError, OSError)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_named_like_a_public_function(module: str) -> None:
    """A module of a public function's name would take its place in the package once imported."""
    assert len(MODULES) > 50
    assert module.rpartition(".")[2] not in pillow_cwic.__all__


# --- sources ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(photo: Image.Image) -> bytes:
    """A file with all kinds of metadata."""
    return pillow_cwic.encode(np.asarray(photo), quality=0.3, **METADATA.present())


KINDS = ("bytes", "bytearray", "memoryview", "str", "Path", "file", "BytesIO")


@pytest.fixture
def sources(data: bytes, tmp_path: Path) -> Any:
    """The file in each form that the package takes; open ones are new at each call."""
    path = tmp_path / "x.cwic"
    path.write_bytes(data)
    makers: dict[str, Callable[[], Any]] = {
        "bytes": lambda: data,
        "bytearray": lambda: bytearray(data),
        "memoryview": lambda: memoryview(data),
        "str": lambda: str(path),
        "Path": lambda: path,
        "file": lambda: path.open("rb"),
        "BytesIO": lambda: BytesIO(data),
    }
    assert tuple(makers) == KINDS
    return makers


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same(kind: str, sources: Any, data: bytes) -> None:
    """Pixels, header, metadata and importance levels are those of the bytes; files stay open."""

    def read(function: Callable[[Any], Any]) -> Any:
        source = sources[kind]()
        found = function(source)
        if hasattr(source, "read"):
            assert not source.closed
            source.close()
        return found

    for function in (pillow_cwic.decode, pillow_cwic.importance_map):
        found, expected = read(function), function(data)
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)
    header = read(pillow_cwic.read_header)
    expected = pillow_cwic.read_header(data)
    assert header == expected
    assert (header.metadata, header.sections) == (expected.metadata, expected.sections)


@pytest.mark.parametrize("function", [pillow_cwic.decode, pillow_cwic.importance_map])
def test_an_open_file_is_read_from_where_it_stands(function: Any, data: bytes) -> None:
    """A picture inside another file is decoded from the file's position."""
    inside = BytesIO(b"prefix" + data)
    inside.seek(6)
    assert np.array_equal(function(inside), function(data))


@pytest.mark.parametrize(
    "function", [pillow_cwic.decode, pillow_cwic.importance_map, pillow_cwic.read_header]
)
def test_a_source_that_is_not_there_is_the_systems_own_error(function: Any, tmp_path: Path) -> None:
    """FileNotFoundError with the path, no codec error; a number is a TypeError."""
    with pytest.raises(FileNotFoundError, match=r"none\.cwic"):
        function(tmp_path / "none.cwic")
    with pytest.raises(TypeError, match="expected bytes, a path or a binary file, found int"):
        function(7)


def test_read_header_has_the_metadata_that_went_in(data: bytes) -> None:
    """`read_header(...).metadata` is what `encode` was given, block by block, absent ones None."""
    assert pillow_cwic.read_header(data).metadata == METADATA
    some = pillow_cwic.encode(np.zeros((8, 8), np.uint8), exif=b"", comment="hi", dpi=72)
    found = pillow_cwic.read_header(some).metadata
    assert found == Metadata(exif=b"", comment=b"hi", dpi=(72.0, 72.0))
    assert (found.icc_profile, found.xmp) == (None, None)


# --- models -------------------------------------------------------------------------------------


def test_model_info_of_the_default() -> None:
    """None is the shipped model; its name and its id lead to the same facts."""
    info = pillow_cwic.model_info()
    assert (info.quality_count, info.importance_levels) == (64, 16)
    entry = models.find(None)
    assert (info.name, info.id) == (entry.name, entry.id)
    assert pillow_cwic.model_info(info.id) == pillow_cwic.model_info(info.name) == info


@pytest.mark.parametrize("kind", [str, Path])
def test_model_info_of_a_path(tiny: Path, kind: type) -> None:
    """A weights file's facts are its own, and from then on its id is known, too."""
    info = pillow_cwic.model_info(kind(tiny))
    config = tiny_model.CONFIG
    assert (info.name, info.quality_count) == ("tiny", config.quality_count)
    assert info.importance_levels == len(config.kept_planes)
    assert pillow_cwic.model_info(info.id) == info


@pytest.mark.parametrize("unknown", ["no-such-model", "feedfacefeedface", "/none.safetensors"])
def test_model_info_of_an_unknown_model_is_a_named_error(unknown: str) -> None:
    """WeightsError, with what was asked for, by name, by id or by path."""
    with pytest.raises(WeightsError, match=unknown):
        pillow_cwic.model_info(unknown)


def test_a_files_model_id_leads_to_its_levels(data: bytes) -> None:
    """`model_info(read_header(file).model_id)` says what `importance_map` counts to."""
    info = pillow_cwic.model_info(pillow_cwic.read_header(data).model_id)
    levels = pillow_cwic.importance_map(data)
    assert 0 < levels.max() < info.importance_levels


# --- types --------------------------------------------------------------------------------------

SNIPPET = """
import numpy as np
from PIL import Image

import pillow_cwic

array = np.zeros((8, 8, 3), np.uint8)
mask = Image.new("L", (8, 8))
data: bytes = pillow_cwic.encode(array, importance=mask)
data = pillow_cwic.encode(array, importance=np.zeros((8, 8), np.uint8), model=None, dpi=72)
with open("x.cwic", "rb") as f:
    exif: bytes | None = pillow_cwic.read_header(f).metadata.exif
levels: int = pillow_cwic.model_info().importance_levels
rows: int = pillow_cwic.decode(data, region=(0, 0, 8, 8)).shape[0]
"""
WRONG = {
    'pillow_cwic.encode(array, quality="high")': "arg-type",
    "pillow_cwic.read_header(data).quality": "attr-defined",
    "pillow_cwic.decode(data).nothing": "attr-defined",
}


@pytest.mark.slow
def test_type_checkers_know_the_interface(tmp_path: Path) -> None:
    """What the documents show passes `mypy --strict` outside the package, and mistakes do not."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy")
    (tmp_path / "right.py").write_text(SNIPPET)
    (tmp_path / "wrong.py").write_text(SNIPPET + "\n".join(WRONG) + "\n")
    options = ["--strict", "--follow-imports=silent", "--config-file=", "--no-color-output"]
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    first = len(SNIPPET.splitlines()) + 1
    expected = [(f"wrong.py:{first + n}", code) for n, code in enumerate(WRONG.values())]
    assert [
        (line.split(": ")[0], line.rpartition("[")[2].rstrip("]")) for line in found
    ] == expected
