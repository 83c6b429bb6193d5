"""Child processes of this checkout: the program, one Python, or two ranks that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

from places import ROOT, TESTS


def environment(**variables: str) -> dict[str, str]:
    """For child processes: this checkout, its helpers, and what else is given."""
    search = (ROOT, TESTS / "helpers", TESTS / "independent")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search)), **variables}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program as a user runs it."""
    return python("-m", "pillow_cwic", *arguments)


def python(
    *arguments: object, folder: Path | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """A Python with these arguments, in a folder; default: the one that the tests are in."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def torchrun(*arguments: str) -> None:
    """Run a script, or `-m` a module, as two ranks, and see that both end well."""
    ranks = ["--standalone", "--nproc-per-node", "2"]
    launch = [sys.executable, "-m", "torch.distributed.run", *ranks, *arguments]
    variables = environment(OMP_NUM_THREADS="1")
    done = subprocess.run(launch, env=variables, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
