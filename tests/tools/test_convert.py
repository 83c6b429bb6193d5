"""`convert`: many files in worker processes, here or on a Dask cluster.

What fails is told, what is there is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from processes import environment, run

import pillow_cwic
from pillow_cwic.tools import convert
from pillow_cwic.tools.cli import main
from pillow_cwic.tools.storage import Place

PROCESSES = partial(convert.processes, 2)


@pytest.fixture
def pictures(photo: Image.Image, tmp_path: Path) -> Path:
    """A folder: three pictures in two formats and two levels, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "2024" / "may").mkdir(parents=True)
    photo.save(folder / "a.png", dpi=(300, 300))
    photo.rotate(90).convert("L").save(folder / "2024" / "b.JPG")
    photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "2024" / "may" / "c.d.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def job(source: Path, target: Path, **options: object) -> convert.Job:
    work = convert.Work("CWIC", ".cwic", options)
    return convert.Job(Place.of(str(source)), Place.of(str(target)), work)


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_a_folder_there_and_back(pictures: Path, tmp_path: Path) -> None:
    """All pictures below a folder are encoded as by `encode`, keep their places, and come back.

    Back with --to.
    """
    cwic, back = tmp_path / "cwic", tmp_path / "back"
    done = run("convert", pictures, "--out", cwic, "--quality", 0.3, "--jobs", 2)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        f"{cwic}: 3 converted, 0 there already, 0 failed\n",
    )
    assert files(cwic) == ["2024/b.cwic", "2024/may/c.d.cwic", "a.cwic"]
    with Image.open(pictures / "a.png") as image:
        expected = pillow_cwic.encode(np.asarray(image), quality=0.3, dpi=image.info["dpi"])
    assert (cwic / "a.cwic").read_bytes() == expected
    done = run("convert", cwic, "--out", back, "--to", "png", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files(back) == ["2024/b.png", "2024/may/c.d.png", "a.png"]
    with Image.open(back / "2024" / "b.png") as image:
        assert image.mode == "L"
        assert np.array_equal(
            np.asarray(image), pillow_cwic.decode((cwic / "2024" / "b.cwic").read_bytes())
        )


def test_a_rerun_does_what_is_missing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs that are there are not touched, whatever the options; what is missing is made."""
    out = tmp_path / "out"
    command = ["convert", str(pictures), "--out", str(out), "--jobs", "1"]
    assert main([*command, "--quality", "0.1"]) == 0
    (out / "a.cwic").unlink()
    (out / "2024" / "b.cwic").write_bytes(b"mine")
    capsys.readouterr()
    assert main([*command, "--quality", "0.2"]) == 0
    assert capsys.readouterr().err == f"{out}: 1 converted, 2 there already, 0 failed\n"
    assert (out / "2024" / "b.cwic").read_bytes() == b"mine"
    made, kept = out / "a.cwic", out / "2024" / "may" / "c.d.cwic"
    assert [pillow_cwic.read_header(path).quality_index for path in (made, kept)] == [13, 6]


def test_a_bad_file_stops_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fails is a line each and exit code 1.

    The others are there, and a rerun does what was mended.
    """
    (pictures / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:900])
    (pictures / "empty.gif").write_bytes(b"")
    Image.new("I;16", (8, 8)).save(pictures / "deep.tif")
    out = tmp_path / "out"
    command = ["convert", str(pictures), "--out", str(out), "--jobs", "2"]
    assert main(command) == 1
    *failures, summary = capsys.readouterr().err.splitlines()
    assert sorted(failures) == [
        f"pillow-cwic: {pictures}/broken.png: image file is truncated",
        f"pillow-cwic: {pictures}/deep.tif: mode I;16 has more than 8 bits: --scale auto "
        "stretches the picture's own range, --scale MIN,MAX makes these values black and white",
        f"pillow-cwic: {pictures}/empty.gif: no picture that Pillow can read",
    ]
    assert summary == f"{out}: 3 converted, 0 there already, 3 failed"
    assert files(out) == ["2024/b.cwic", "2024/may/c.d.cwic", "a.cwic"]
    Image.new("L", (8, 8)).save(pictures / "deep.tif")
    assert main([*command, "-q"]) == 1
    assert (out / "deep.cwic").exists()


def test_two_sources_of_one_name(
    pictures: Path, photo: Image.Image, tmp_path: Path, capsys
) -> None:
    """Where two pictures would become one file the second is refused, on a rerun, too.

    One named twice is one.
    """
    photo.save(pictures / "a.webp")
    out = tmp_path / "out"
    taken = f"{pictures}/a.png becomes {out}/a.cwic already"
    message = f"pillow-cwic: {pictures}/a.webp: not converted, {taken}"
    for counts in (
        "3 converted, 0 there already, 1 failed",
        "0 converted, 3 there already, 1 failed",
    ):
        assert (
            main(
                [
                    "convert",
                    str(pictures),
                    str(pictures / "a.png"),
                    "--out",
                    str(out),
                    "--jobs",
                    "1",
                ]
            )
            == 1
        )
        assert capsys.readouterr().err.splitlines() == [message, f"{out}: {counts}"]


class Bomb:
    """Ends the process that unpickles it, as the kernel does when memory runs out."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_takes_little_with_it(pictures: Path, tmp_path: Path) -> None:
    """Where a worker process dies, what was in its hands is reported, and new ones do the rest."""
    good = [job(pictures / "a.png", tmp_path / "out" / f"{k}.cwic") for k in range(9)]
    bomb = job(pictures / "a.png", tmp_path / "out" / "bomb.cwic", quality=Bomb())
    outcomes = {
        str(done.target): end.problem for done, end in convert.run([bomb, *good], PROCESSES)
    }
    lost = {path for path, problem in outcomes.items() if problem}
    assert len(outcomes) == 10
    assert str(bomb.target) in lost
    assert len(lost) <= 2 * convert.AHEAD
    assert all("the worker failed: " in (outcomes[path] or "") for path in lost)
    assert {
        str(tmp_path / "out" / name) for name in files(tmp_path / "out")
    } == outcomes.keys() - lost


def test_an_interrupt_ends_it_cleanly(pictures: Path, tmp_path: Path) -> None:
    """Ctrl-C is one line on stderr and exit code 1.

    No half output stays, and what was done is not done again.
    """
    for k in range(1200):
        shutil.copy(pictures / "a.png", pictures / f"more-{k}.png")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "pillow_cwic",
        "convert",
        str(pictures),
        "--out",
        str(out),
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(
        command,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that a shell started in the background have Ctrl-C ignored, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(out.glob("*.cwic")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=300)
    assert (process.returncode, shown) == (1, "pillow-cwic: interrupted\n")
    made = files(out)
    assert 0 < len(made) < 1200
    assert all(name.endswith(".cwic") for name in made)
    plan = convert.plan([str(pictures)], str(out), convert.Work("CWIC", ".cwic"))
    assert len(plan.jobs) == 1203 - len(made)


def test_no_half_files(tmp_path: Path) -> None:
    """Where an output of a storage cannot get its name nothing is left of it."""

    class Full(DirFileSystem):
        """A storage in which nothing can be renamed any more."""

        def mv(self, *_: object, **__: object) -> None:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Place(Full(str(tmp_path), LocalFileSystem()), "full/a.cwic", "a").write(b"data")
    assert files(tmp_path / "full") == []


def test_any_storage_that_fsspec_knows(pictures: Path, tmp_path: Path) -> None:
    """Sources and outputs are URLs or paths: here from a zip archive to a file:// folder."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in files(pictures):
            archive.write(pictures / name, name)
    out = tmp_path / "out"
    source = f"zip://::file://{tmp_path / 'all.zip'}"
    assert main(["convert", source, "--out", f"file://{out}", "--jobs", "2", "-q"]) == 0
    assert files(out) == ["2024/b.cwic", "2024/may/c.d.cwic", "a.cwic"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "nonsense"], "Pillow writes no format with the extension '.nonsense'"),
        (["--to", "png", "--max-bytes", "5"], "--max-bytes is for .cwic files, not for .png"),
        (["--to", "png", "--quality", "5"], "--quality: PNG has none"),
        (["--to", "jpg", "--quality", ".5"], "a whole number from 0 to 100, found 0.5"),
        (["--background", "white"], "--background is for other formats, not for .cwic files"),
        (["--quality", "30"], "quality is 0..1, found 30.0; did you mean 0.3?"),
        (["--jobs", "0"], "--jobs is at least 1, found 0"),
        (["--jobs", "2", "--scheduler", "tcp://x"], "not allowed with argument"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is exit code 2, before any file is looked at."""
    with pytest.raises(SystemExit) as stop:
        main(["convert", "nowhere", "--out", str(tmp_path), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: there is no such file or folder"),
        ("floppy://a", "Protocol not known: floppy"),
    ],
)
def test_a_source_that_is_not_there(source: str, message: str, tmp_path: Path, capsys) -> None:
    """A source that does not exist is exit code 1 before anything is converted."""
    assert main(["convert", source, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_what_exists_is_a_file(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with `::`, or one that begins like a protocol, is a file where it exists.

    So among others, and in the name of the folder for the results.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("Foo::Bar.png", "file::x.png", "plain.png"):
        photo.save(name)
    names = ["Foo::Bar.png", "file::x.png", "plain.png"]
    assert main(["convert", *names, "--out", "out::2", "-q"]) == 0
    assert files(tmp_path / "out::2") == ["Foo::Bar.cwic", "file::x.cwic", "plain.cwic"]


def test_a_chain_that_is_no_url_is_a_file_that_is_missing(
    photo: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`file::x.png` without such a file does not mean the folder it is in."""
    monkeypatch.chdir(tmp_path)
    photo.save("other.png")
    assert main(["convert", "file::x.png", "--out", "out"]) == 1
    assert "file::x.png: there is no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_regular_files_only(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What has a picture's name and is none is left out, counted and said; nothing waits for it."""
    os.mkfifo(pictures / "pipe.png")
    (pictures / "zero.png").symlink_to("/dev/zero")
    (pictures / "._a.png").write_bytes(b"what another system leaves")
    for name in ("data.h5", "film.mpg", "weather.grib"):
        (pictures / name).write_bytes(b"known to Pillow by its extension alone")
    out = tmp_path / "out"
    assert main(["convert", str(pictures), "--out", str(out), "--jobs", "1"]) == 0
    counts = "3 converted, 0 there already, 0 failed, 3 left out: no regular pictures"
    assert capsys.readouterr().err == f"{out}: {counts}\n"
    assert main(["convert", str(pictures / "pipe.png"), "--out", str(out)]) == 1
    assert "pipe.png: convert reads regular files only" in capsys.readouterr().err


def test_a_folder_without_pictures_is_told(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a folder is named, and the exit code is 1; the others are converted all the same."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("not a picture")
    folders = [str(tmp_path / "empty"), str(pictures)]
    assert main(["convert", *folders, "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    said = capsys.readouterr().err
    assert f"{folders[0]}: the folder has no file for this command" in said
    assert "3 converted, 0 there already, 1 failed" in said


def test_force_does_all_again(pictures: Path, tmp_path: Path) -> None:
    """--force makes outputs again that are there; a source is never replaced."""
    out = tmp_path / "out"
    command = ["convert", str(pictures), "--out", str(out), "--jobs", "1", "-q"]
    assert main([*command, "--quality", "0.1"]) == 0
    assert main([*command, "--quality", "0.2", "--force"]) == 0
    assert {pillow_cwic.read_header(path).quality_index for path in out.rglob("*.cwic")} == {13}


def test_no_output_replaces_a_source(
    cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that would become itself, also through a link, is refused, with --force, too."""
    before = cwic_file.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        assert main(["convert", str(cwic_file), "--out", str(out), "--force"]) == 1
        assert f"{out / cwic_file.name} would replace a source" in capsys.readouterr().err
    assert cwic_file.read_bytes() == before


def test_an_empty_file_is_no_result(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another program left with 0 bytes is made again, not taken for done."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.cwic").write_bytes(b"")
    assert main(["convert", str(pictures), "--out", str(out), "--jobs", "1"]) == 0
    assert "3 converted, 0 there already" in capsys.readouterr().err
    assert (out / "a.cwic").stat().st_size > 40


def test_results_do_not_vanish_in_the_workers(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A storage in this process's memory is another one in each worker: refused."""
    assert main(["convert", str(pictures), "--out", "memory://results"]) == 1
    said = capsys.readouterr().err
    assert "memory://results: worker processes have a memory of their own" in said


def test_a_file_is_no_folder_for_results(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before the work, by the name that was typed; the file stays."""
    out = tmp_path / "file"
    out.write_bytes(b"precious")
    assert main(["convert", str(pictures), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"pillow-cwic: {out}: {out} is no folder\n"
    assert out.read_bytes() == b"precious"


def test_names_are_shown_as_typed(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative names stay relative in messages."""
    monkeypatch.chdir(pictures)
    (pictures / "2024" / "bad.png").write_bytes(b"")
    assert main(["convert", "2024", "a.png", "--out", "../small", "--jobs", "1"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "pillow-cwic: 2024/bad.png: no picture that Pillow can read",
        "../small: 3 converted, 0 there already, 1 failed",
    ]


def test_options_of_other_formats(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--quality is the other format's, --background goes below what is transparent.

    What a format does not keep is said.
    """
    (tmp_path / "in").mkdir()
    photo.convert("RGBA").save(tmp_path / "in" / "a.cwic", exif=bytes(70_000))
    command = ["convert", str(tmp_path / "in"), "--to", "jpg", "--background", "white"]
    assert main([*command, "--out", str(tmp_path / "low"), "--quality", "20"]) == 0
    assert "in/a.cwic: JPEG does not keep EXIF of 70,000 bytes" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "high"), "-q"]) == 0
    low, high = ((tmp_path / name / "a.jpg").stat().st_size for name in ("low", "high"))
    assert low < high / 2


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and worker processes on loopback, as on machines of their own.

    The scheduler's address.
    """
    variables = environment(OMP_NUM_THREADS="1")
    told = folder / "scheduler.json"
    common = ["--scheduler-file", str(told), "--no-dashboard"]
    commands = [["dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common]]
    commands += [["dask_worker", *common, "--nthreads", "1", "--no-nanny"]] * workers
    log = (folder / "dask.log").open("wb")
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.{name}", *arguments]
            running.append(
                subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=log)
            )
            deadline = time.monotonic() + 60
            while not told.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        yield json.loads(told.read_text())["address"], running[1:]
    finally:
        for process in running[::-1]:
            process.kill()
            process.wait()
        log.close()


def test_on_a_dask_cluster(pictures: Path, tmp_path: Path) -> None:
    """--scheduler hands the files to the workers of a Dask cluster.

    Failures are reported as they are here.
    """
    pytest.importorskip("distributed", reason="needs the extra dask")
    (pictures / "empty.gif").write_bytes(b"")
    out = tmp_path / "out"
    with dask_cluster(tmp_path, workers=2) as (address, workers):
        workers.pop().kill()  # what one can't do any more, another does
        done = run("convert", pictures, "--out", out, "--scheduler", address)
    failed = f"pillow-cwic: {pictures}/empty.gif: no picture that Pillow can read\n"
    assert done.stderr == f"{failed}{out}: 3 converted, 0 there already, 1 failed\n"
    assert done.returncode == 1
    assert files(out) == ["2024/b.cwic", "2024/may/c.d.cwic", "a.cwic"]


def test_a_scheduler_without_workers(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, within the time that a cluster is given, instead of waiting for ever."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr(convert, "SECONDS_FOR_A_CLUSTER", 1)
    with (
        dask_cluster(tmp_path, workers=0) as (address, _),
        pytest.raises(OSError, match=f"the scheduler {address} has no worker after 1 s"),
        convert.cluster(address),
    ):
        pass


def test_without_dask(pictures: Path, tmp_path: Path, fresh_python) -> None:
    """Without Dask, --scheduler says what to install."""
    code = """if True:
        import sys
        sys.modules["distributed"] = None
        from pillow_cwic.tools.cli import main
        sys.stderr = sys.stdout
        main(["convert", sys.argv[1], "--out", sys.argv[2], "--scheduler", "tcp://127.0.0.1:1"])"""
    shown = fresh_python(code, pictures, tmp_path / "out")
    assert shown == "pillow-cwic: a scheduler needs Dask: pip install 'pillow-cwic[dask]'\n"
