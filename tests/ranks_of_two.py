"""Child processes of this checkout: one, or two ranks that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

import pillow_cwic


def environment() -> dict[str, str]:
    """For child processes: this checkout, one thread each."""
    return {**os.environ, "PYTHONPATH": str(Path(pillow_cwic.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> None:
    """Run a script, or `-m` a module, as two ranks, and see that both end well."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
