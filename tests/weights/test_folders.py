"""The user's folders: no home, folders that cannot be made, variables that lead nowhere.

The user without a home is a real one where this machine lets us become one: a number that has no
entry in passwd, in an empty environment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

import pillow_cwic

CAPABILITIES = "+dac_override,+dac_read_search"  # only to read this checkout, wherever it lies
NOBODY = [
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *(f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"),
    *("env", "-i"),
]
WITHOUT_PASSWD = """
import pwd, sys
def unknown(_): raise KeyError
pwd.getpwuid = unknown
"""
ALL = """
import io, sys, numpy, pillow_cwic
from PIL import Image
file = io.BytesIO()
Image.new("RGB", (64, 64)).save(file, "CWIC")
print(pillow_cwic.decode(file.getvalue()).shape, len(Image.open(file).tobytes()),
      pillow_cwic.model_info().importance_levels)
"""
ASK = """
import sys, pillow_cwic
try:
    pillow_cwic.model_info(sys.argv[1])
except pillow_cwic.CwicError as error:
    print(error)
"""


def can_become_nobody() -> bool:
    if shutil.which("setpriv") is None:
        return False
    code = "import os; assert os.path.expanduser('~') == '~'"
    command = [*NOBODY, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


REAL = can_become_nobody()


def run(code: str, *arguments: object, **variables: str) -> str:
    """Code in the process of a user without a home, in an environment of these variables alone."""
    prefix = NOBODY if REAL else ["env", "-i"]
    search = f"PYTHONPATH={environment()['PYTHONPATH']}"
    settings = [search, *(f"{name}={value}" for name, value in variables.items())]
    code = code if REAL else WITHOUT_PASSWD + code
    command = [*prefix, *settings, sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Knows a model `far` that would have to be fetched, from a port where nobody answers."""
    model = {"name": "far", "file": "far.safetensors", "sha256": "a" * 64, "bytes": 9}
    model["urls"] = ["http://127.0.0.1:9/far.safetensors"]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "models": [model]}))
    tmp_path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PILLOW_CWIC_CACHE_DIR": "/proc/none"},
        {"PILLOW_CWIC_CACHE_DIR": "~nobody-here/cache"},
        {"PILLOW_CWIC_MANIFEST": "~nobody-here/m.json"},
        {"HOME": "/proc/none"},
        {"XDG_CACHE_HOME": "/dev/null/x", "XDG_CONFIG_HOME": "/dev/null/x"},
    ],
    ids=str,
)
def test_the_shipped_model_needs_no_folder(variables: dict[str, str]) -> None:
    """Saving and loading work without a home, a cache or a manifest that could be had."""
    assert run(ALL, **variables) == "(64, 64, 3) 12288 16\n"


def test_the_command_line_needs_no_folder(cwic_file: Path) -> None:
    """`info`, `weights where` and `convert`, whose workers are processes of their own."""
    cwic_file.parent.chmod(0o777)
    code = "import sys; from pillow_cwic.tools.cli import main; sys.exit(main(sys.argv[1:]))"
    assert pillow_cwic.model_info().name in run(code, "info", cwic_file)
    assert "cache            none\n" in run(code, "weights", "where")
    out = cwic_file.parent / "out"
    said = run(code, "convert", cwic_file, "--out", out, "--to", "png", "--jobs", 1)
    assert "1 converted" in said


def test_what_must_be_fetched_names_the_variable_to_set(manifest: Path) -> None:
    """Without a home, and where the cache can't be made: what is wrong, and what to set."""
    said = run(ASK, "far", PILLOW_CWIC_MANIFEST=str(manifest))
    assert said.startswith(
        "this user has no home folder and so no cache: set PILLOW_CWIC_CACHE_DIR"
    )
    folder = {"PILLOW_CWIC_MANIFEST": str(manifest), "PILLOW_CWIC_CACHE_DIR": "/proc/none"}
    said = run(ASK, "far", **folder)
    assert said.startswith("cannot write in /proc/none (")
    assert "set PILLOW_CWIC_CACHE_DIR to a folder that is" in said


def test_a_variable_that_leads_nowhere_is_named(manifest: Path) -> None:
    """A home that nobody has, in any of our variables, is an error that names the variable."""
    nowhere = "~nobody-here/x"
    variables = {"PILLOW_CWIC_MANIFEST": str(manifest), "PILLOW_CWIC_CACHE_DIR": nowhere}
    said = run(ASK, "far", **variables)
    assert said.startswith(f"PILLOW_CWIC_CACHE_DIR is '{nowhere}', which leads nowhere")
    said = run(ASK, "far", PILLOW_CWIC_MANIFEST=nowhere)
    assert f"PILLOW_CWIC_MANIFEST is '{nowhere}', which leads nowhere" in said


def test_no_folder_called_tilde_is_made(manifest: Path, tmp_path: Path) -> None:
    """Older versions of platformdirs give "~/.cache" to who has no home: that is no folder."""
    (tmp_path / "platformdirs.py").write_text(
        "def user_cache_dir(*_, **__):\n    return '~/.cache/x'\nuser_config_dir = user_cache_dir"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + ASK
    assert "no home folder" in run(code, "far", PILLOW_CWIC_MANIFEST=str(manifest))
