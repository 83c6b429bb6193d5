"""Golden files with the oldest and the newest dependencies, where these are installed already."""

import pytest
from places import ROOT
from processes import python


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_golden_files_decode_with_other_dependencies(which):
    """All of them, through Pillow, imageio and decode, to their pixels within 1 of 255."""
    done = python("-m", "tests.matrix", which, "--offline", folder=ROOT, seconds=300)
    if "skipped:" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 golden files: numpy" in done.stdout
