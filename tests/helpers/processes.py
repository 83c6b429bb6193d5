"""Child processes of this checkout: the program, one Python, or two ranks that torchrun starts."""

import os
import subprocess
import sys

from places import ROOT, TESTS


def environment(**variables: str) -> dict[str, str]:
    """For child processes: this checkout, its helpers, and what else is given."""
    search = (ROOT, TESTS / "helpers", TESTS / "independent")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search)), **variables}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program as a user runs it."""
    command = [sys.executable, "-m", "pillow_cwic", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def torchrun(*arguments: str) -> None:
    """Run a script, or `-m` a module, as two ranks, and see that both end well."""
    ranks = ["--standalone", "--nproc-per-node", "2"]
    launch = [sys.executable, "-m", "torch.distributed.run", *ranks, *arguments]
    variables = environment(OMP_NUM_THREADS="1")
    done = subprocess.run(launch, env=variables, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
