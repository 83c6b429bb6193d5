"""What a user gets by installing.

Quick imports, a complete wheel, commands in the README that work.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from places import GOLDEN, ROOT

import pillow_cwic

HEAVY = {"torch", "safetensors", "constriction", "requests", "tqdm", "matplotlib", "skimage"}
RUN_TIME = {
    "pillow", "imageio", "numpy", "constriction", "platformdirs", "requests",
    "safetensors", "tqdm", "filelock", "fsspec", "threadpoolctl",
}  # fmt: skip


def test_import_loads_nothing_heavy(fresh_python: Callable[..., str]) -> None:
    """`import pillow_cwic` loads no torch, and nothing else for pixels, models or the network."""
    code = "import sys, pillow_cwic; print(*(name.partition('.')[0] for name in sys.modules))"
    assert not HEAVY & set(fresh_python(code).split())


def test_registering_again_changes_nothing() -> None:
    """register() may be called any number of times; each registry has the format once."""
    from imageio.config import extension_list, known_extensions, known_plugins
    from PIL import Image

    def state() -> list[object]:
        return [
            list(Image.ID),
            dict(Image.EXTENSION),
            dict(Image.MIME),
            len(extension_list),
            list(known_plugins),
        ]

    before = state()
    pillow_cwic.register()
    pillow_cwic.register()
    assert state() == before
    assert Image.ID.count("CWIC") == 1
    assert Image.registered_extensions()[".cwic"] == "CWIC"
    assert Image.MIME["CWIC"] == "image/x-cwic"
    assert [e.priority for e in known_extensions[".cwic"]] == [["cwic", "pillow"]]


def test_it_runs_from_an_archive(fresh_python: Callable[..., str], tmp_path: Path) -> None:
    """Zipped (zipapp, shiv): models, manifest and the demo's picture are found and read.

    What was unpacked for that is gone afterwards, and a forked child does not remove it.
    """
    archive = tmp_path / "package.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (ROOT / "pillow_cwic").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path, path.relative_to(ROOT))
        file.write(ROOT / "weights_manifest.json", "pillow_cwic/weights_manifest.json")
    code = """if True:
        import multiprocessing, os, sys, tempfile
        sys.path.insert(0, sys.argv[1])
        tempfile.tempdir = sys.argv[2]
        import pillow_cwic
        from PIL import Image
        from pillow_cwic.tools.cli import main
        assert pillow_cwic.__file__.startswith(sys.argv[1])
        data = pillow_cwic.encode(pillow_cwic.decode(sys.argv[3]), quality=0.5)
        child = multiprocessing.get_context("fork").Process(target=pillow_cwic.decode, args=[data])
        child.start()
        child.join()
        print(child.exitcode, len(os.listdir(sys.argv[2])))
        pillow_cwic.decode(data)
        print(main(["weights", "verify"]))"""
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    lines = fresh_python(code, archive, unpacked, GOLDEN / "grey.cwic").splitlines()
    assert lines[0] == "0 1"
    assert lines[-1] == "0"
    assert not list(unpacked.iterdir())


def test_run_time_dependencies() -> None:
    """The package needs the agreed libraries at run time and no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {
        re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]
    } == RUN_TIME


def test_constraints_pin_what_is_needed() -> None:
    """constraints.txt pins every run-time dependency exactly, and PyTorch at the tested version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned.keys() >= RUN_TIME
    assert pinned["torch"] == "2.13.0"


def test_readme_has_two_commands() -> None:
    """The README's set-up is two commands, both with the constraints.

    One runs the demo, one the tests.
    """
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert all("pip install -c constraints.txt" in command for command in commands)
    assert commands[0].endswith("pillow-cwic demo")
    assert commands[1].endswith("pytest")


def test_readme_tree_names_what_is_there() -> None:
    """Every folder of the README's file tree is there, and no sub-package is missing in it."""
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    named = {
        (len(indent), name) for indent, name in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE)
    }
    top = {name for indent, name in named if indent == 0}
    assert top >= {"pillow_cwic", "training", "benchmarks", "tests"}
    assert all((ROOT / name).is_dir() for name in top)
    packages = {path.parent.name for path in (ROOT / "pillow_cwic").glob("*/__init__.py")}
    assert {name for indent, name in named if indent > 0} == packages | {"data"}


def test_changelog_knows_the_version() -> None:
    """The newest entry of the changelog is the package's version."""
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == pillow_cwic.__version__


def test_wheel_is_complete() -> None:
    """An installed wheel is complete.

    It has the manifest, all models without a URL, the training recipes and the type marker.
    """
    try:
        files = {str(path) for path in importlib.metadata.files("pillow-cwic") or ()}
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pillow-cwic is not installed here, only on the path")
    if "pillow_cwic/__init__.py" not in files:
        pytest.skip("an editable install has no wheel to look into")
    manifest = json.loads((ROOT / "weights_manifest.json").read_text())
    models = {f"data/{entry['file']}" for entry in manifest["models"] if not entry["urls"]}
    recipes = {
        f"pillow_cwic/training/recipes/{path.name}"
        for path in (ROOT / "training" / "recipes").glob("*.toml")
    }
    expected = {"weights_manifest.json", "py.typed", "data/astronaut.webp"}
    assert models
    assert files >= {f"pillow_cwic/{name}" for name in expected | models} | recipes
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in files)
