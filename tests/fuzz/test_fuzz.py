"""A short run of the fuzzer, and that it notices what it is there for."""

import subprocess

import pytest
from places import ROOT
from processes import python

BROKEN = {
    "silent": """
from pillow_cwic.format import header, walk
def unchecked(source, section):
    return source.read(section.length + 4)[:-4]
header.read_payload = walk.read_payload = unchecked
""",
    "foreign": """
from pillow_cwic.format import header
header.check_room = lambda *_: 1 // 0
from pillow_cwic.format import container
container.check_room = header.check_room
""",
}


def fuzz(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m tests.fuzz`, in a process where `before` was run."""
    code = f"{before}\nimport runpy\nrunpy.run_module('tests.fuzz', run_name='__main__')"
    return python("-c", code, *arguments, folder=ROOT, seconds=300)


def test_a_short_run_finds_nothing():
    """Nothing silent, foreign or hung; every kind is read and refused."""
    done = fuzz("--trials", "100", "--seed", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[4:]]
    assert [row[0] for row in rows] == ["bytes", "sections", "manifests", "weights"]
    for kind, trials, read, refused, *faults in rows:
        assert int(trials) >= 100
        assert int(refused) > 0
        assert int(read) > 0 or kind == "bytes"
        assert faults == ["0", "0", "0"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_reader_is_noticed(kind, tmp_path):
    """A reader without checksums, or with an error of its own: exit code 1, and the inputs kept."""
    done = fuzz("--trials", "60", "--seed", "3", "--save", str(tmp_path), before=BROKEN[kind])
    assert done.returncode == 1, done.stdout + done.stderr
    assert f": {kind}: " in done.stderr
    assert list(tmp_path.iterdir())
