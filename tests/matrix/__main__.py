"""Golden files decoded and coded anew with the oldest dependencies allowed, and with the newest.

    python -m tests.matrix [oldest] [newest] [--folder FOLDER] [--offline]

Each set is installed into a virtual environment of its own, which is kept in FOLDER and used again.
PyTorch is not among them: processors need none, and its oldest wheels are gigabytes. Exit code 1
where a file decodes otherwise; a set that cannot be installed is skipped, and the reason told.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 300  # for an installation

DECODE = """
import importlib.metadata, sys
from pathlib import Path
import imageio.v3 as iio
import numpy as np
from PIL import Image
import pillow_cwic
from pillow_cwic.weights import models

golden = Path(sys.argv[1])
models.load(golden / "tiny" / "tiny.safetensors", "cpu")
count = 0
for path in sorted(golden.rglob("*.cwic")):
    expected = np.asarray(Image.open(path.with_suffix(".png"))).astype(int)
    readers = (Image.open, iio.imread, lambda path: pillow_cwic.decode(path.read_bytes()))
    for found in (np.asarray(read(path)) for read in readers):
        assert found.shape == expected.shape, path
        assert np.abs(found - expected).max() <= 1, path
    count += 1
pixels = np.asarray(Image.open(golden / "rgb-low.png").convert("RGB"))
assert np.array_equal(pillow_cwic.decode(pillow_cwic.encode(pixels, lossless=True)), pixels)
again = pillow_cwic.decode(pillow_cwic.encode(pixels, quality=0.9))
assert np.abs(again.astype(int) - pixels).mean() < 5
names = ("numpy", "pillow", "imageio", "safetensors", "requests")
versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
print(f"{count} golden files: {versions}")
"""


class SkippedError(Exception):
    """A set of dependencies that cannot be had here; the message says why."""


def requirements(which: str) -> list[str]:
    """pyproject's dependencies at their lower bounds, or without upper ones beyond its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if which == "newest":
        return list(project["dependencies"])
    return [re.sub(r">=([0-9.]+)(,<[0-9.]+)?", r"==\1", line) for line in project["dependencies"]]


def environment(which: str, folder: Path, offline: bool) -> Path:
    """The Python of a set's environment, made where it is missing; SkippedError if that fails."""
    wanted = requirements(which)
    key = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()[:12]
    home = folder / f"{which}-{key}"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = home / "installed"
    if done.exists():
        return python
    if offline:
        raise SkippedError(f"{home} is not there: run `python -m tests.matrix {which}` once")
    venv.create(home, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *wanted]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SkippedError(f"not installed within {SECONDS} s") from error
    if made.returncode:
        errors = [line for line in made.stderr.splitlines() if line.startswith("ERROR")]
        raise SkippedError(f"not installed: {errors[0] if errors else made.stderr[-200:]}")
    done.touch()
    return python


def decode(python: Path) -> subprocess.CompletedProcess[str]:
    """Decode the golden files there."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-c", DECODE, ROOT / "tests" / "golden"]
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def main() -> int:
    """Parse the command line, run the sets, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help="oldest, newest; default: both")
    parser.add_argument(
        "--folder", type=Path, default=Path.home() / ".cache" / "pillow-cwic-matrix"
    )
    parser.add_argument("--offline", action="store_true", help="only what is installed already")
    args = parser.parse_args()
    failed = False
    for which in args.sets or ("oldest", "newest"):
        try:
            done = decode(environment(which, args.folder, args.offline))
        except SkippedError as reason:
            print(f"{which}: skipped: {reason}", flush=True)
            continue
        failed |= done.returncode != 0
        print(f"{which}: {done.stdout.strip() or done.stderr.strip()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
