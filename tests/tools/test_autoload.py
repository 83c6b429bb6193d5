"""autoload: programs that never import the package open .cwic files, and others notice nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT

from pillow_cwic.tools import autoload

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the Python of a new environment, which finds this package and the tests' libraries."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    search = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])

    def start(*arguments: object, search: str = search) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": search},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return start


def command(run: Run, verb: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "pillow_cwic", "autoload", verb)


SHAPES = {
    "Pillow": "import PIL.Image as i, sys; print(i.open(sys.argv[1]).load()[0, 0] != 0)",
    "names": "import sys; from PIL import Image; print(any(Image.open(sys.argv[1]).tobytes()))",
    "imageio": "import imageio.v3 as i, sys; print(i.imread(sys.argv[1], region=(0,0,8,4)).shape)",
    "imageio v2": "import imageio.v2, sys; print(imageio.v2.imread(sys.argv[1]).shape)",
    "the package": "import pillow_cwic, sys; print(pillow_cwic.read_header(sys.argv[1]).size)",
}
ANSWERS = ["True", "True", "(4, 8, 3)", "(72, 88, 3)", "(88, 72)"]


def test_programs_open_files_without_an_import_of_ours(run: Run, cwic_file: Path) -> None:
    """Enabled: Pillow and imageio know the format, whichever is imported. Disabled: they do not."""
    assert run("-c", SHAPES["Pillow"], cwic_file).returncode != 0
    done = command(run, "enable")
    assert (done.returncode, done.stdout) == (0, "")
    assert "enabled in" in done.stderr
    for program, answer in zip(SHAPES.values(), ANSWERS, strict=True):
        shown = run("-W", "error", "-c", program, cwic_file)
        assert (shown.stdout.strip(), shown.stderr) == (answer, "")

    # A worker process that is spawned is a Python of its own.
    spawned = """if True:
        import multiprocessing, sys
        import PIL.Image
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(PIL.Image.open, [sys.argv[1]])[0].size)"""
    assert run("-c", spawned, cwic_file).stdout.strip() == "(88, 72)"

    assert command(run, "status").returncode == 0
    assert command(run, "disable").returncode == 0
    assert run("-c", SHAPES["Pillow"], cwic_file).returncode != 0
    status = command(run, "status")
    assert (status.returncode, status.stdout) == (1, "not enabled\n")
    assert "was not enabled" in command(run, "disable").stderr


SUITE = """
from PIL import Image

def test_open():
    with Image.open("photo.cwic") as image:
        assert image.size == (88, 72)

def test_save(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "x.cwic")
"""


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_suites_need_no_import_of_ours(run: Run, cwic_file: Path, mode: str) -> None:
    """pytest, which watches imports itself, runs tests that open and save .cwic by Pillow alone."""
    suite = cwic_file.with_name("test_a_users.py")
    suite.write_text(SUITE)
    arguments = ["-m", "pytest", "-q", "-W", "error", f"--import-mode={mode}", suite]
    assert "2 failed" in run(*arguments).stdout
    assert command(run, "enable").returncode == 0
    done = run(*arguments)
    assert "2 passed" in done.stdout, done.stdout


NOTEBOOK = """
import nbclient, nbformat
cells = ["from PIL import Image; Image.open('photo.cwic')",
         "import imageio.v3; imageio.v3.imread('photo.cwic', region=(0, 0, 8, 4)).shape"]
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
nbclient.NotebookClient(book, timeout=100, kernel_name="python3").execute()
for cell in book.cells:
    print([(kind, value[:12]) for kind, value in cell.outputs[0].data.items()])
"""


def test_notebooks_need_no_import_of_ours(run: Run, cwic_file: Path) -> None:
    """A kernel of the environment opens, shows and reads .cwic by Pillow and imageio alone."""
    for library in ("nbclient", "ipykernel"):
        pytest.importorskip(library, reason="needs nbclient and ipykernel")
    assert cwic_file.name == "photo.cwic"
    assert run("-c", NOTEBOOK).returncode != 0
    assert command(run, "enable").returncode == 0
    done = run("-c", NOTEBOOK)
    picture, shape = done.stdout.splitlines()
    assert "('image/png', 'iVBORw0KGgoA')" in picture
    assert shape == "[('text/plain', '(4, 8, 3)')]"


def test_a_python_without_pictures_loads_the_watcher_alone(run: Run, tmp_path: Path) -> None:
    """Start-up costs one module of two small classes, whatever the package has become."""
    names = "import sys; print(sorted(set(sys.modules)))"
    before = run("-c", names).stdout
    assert command(run, "enable").returncode == 0
    after = run("-c", names).stdout
    assert set(eval(after)) - set(eval(before)) == {autoload.HOOK, "__future__"}
    assert run("-c", names, search="").stdout == after  # the package is gone: as quiet
    files = list((tmp_path / "environment").rglob("*pillow_cwic_autoload*"))
    assert sorted(path.suffix for path in files) == [".pth", ".py", ".pyc"]  # compiled once
    assert command(run, "disable").returncode == 0
    assert not any(path.exists() for path in files)


def test_a_package_that_is_gone_is_no_trouble(run: Run) -> None:
    """Uninstalled without `disable`: Pillow is imported as ever; status says what is missing."""
    assert command(run, "enable").returncode == 0
    libraries = sysconfig.get_path("purelib")
    bare = run("-W", "error", "-c", "import PIL.Image; print('ok')", search=libraries)
    assert (bare.stdout, bare.stderr) == ("ok\n", "")


def test_the_watcher_stands_alone() -> None:
    """Its text imports nothing of the package before it is asked to."""
    source = autoload.hook_source()
    assert "from ." not in source
    assert source.count("import pillow_cwic") == 1
    assert f"import {autoload.HOOK}" not in source
    assert sys.modules.get(autoload.HOOK) is None
