"""Outputs of the command line: nothing is replaced unasked, and what is wrong is known at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.tools import sources
from pillow_cwic.tools.cli import main

KEPT = b"precious"


@pytest.fixture
def png(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    photo.save(path)
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that fails says."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def misused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that makes no sense says."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_what_is_there_is_replaced_only_with_force(
    verb: str, png: Path, cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An existing output stays as it is and the remedy is named; --force replaces it."""
    source = png if verb == "encode" else cwic_file
    out = tmp_path / ("out.cwic" if verb == "encode" else "out.png")
    out.write_bytes(KEPT)
    said = fails(capsys, verb, source, out)
    assert said == f"pillow-cwic: {out} is there already: --force replaces it\n"
    assert out.read_bytes() == KEPT
    assert main([verb, str(source), str(out), "-qf"]) == 0
    assert out.read_bytes() != KEPT


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard"])
def test_no_output_replaces_its_own_source(
    link: str, cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Input and output are one file, by name or through links: refused, also with --force."""
    before = cwic_file.read_bytes()
    out = cwic_file
    if link != "itself":
        out = tmp_path / "other.cwic"
        (out.symlink_to if link == "symbolic" else out.hardlink_to)(cwic_file)
    for force in ([], ["--force"]):
        said = fails(capsys, "encode", cwic_file, out, *force)
        assert "the output would replace its own source" in said
    assert cwic_file.read_bytes() == before
    assert out.is_symlink() == (link == "symbolic")


def test_one_of_several_sources_is_not_replaced(
    cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output may not be another source of the same command either."""
    again = tmp_path / "in" / "photo.cwic"
    again.parent.mkdir()
    again.write_bytes(cwic_file.read_bytes())
    said = fails(capsys, "encode", again, cwic_file, tmp_path, "--force")
    assert "would replace its own source" in said
    assert again.read_bytes() == cwic_file.read_bytes()


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.webp", "x.jxl", "x.heic", "x.svg"])
def test_an_extension_of_another_format_is_refused(
    name: str, png: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Encode writes .cwic bytes under no name that says another picture format."""
    said = misused(capsys, "encode", png, tmp_path / name)
    assert f"{tmp_path / name} would hold a .cwic file" in said
    assert "call it x.cwic" in said


@pytest.mark.parametrize(
    ("verb", "out"), [("encode", "x.cwic"), ("encode", "x.jpg"), ("decode", "x.png")]
)
def test_several_pictures_are_no_picture(
    verb: str, out: str, png: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture's name for the results of several is refused; one that is a folder's is taken."""
    said = misused(capsys, verb, png, png, tmp_path / out)
    assert f"{tmp_path / out} names one picture: name a folder for several" in said
    assert not (tmp_path / out).exists()
    assert main(["encode", str(png), str(png), f"{tmp_path / out}/", "-q"]) == 0
    assert files(tmp_path / out) == ["photo.cwic"]


@pytest.mark.parametrize("name", ["x", "x.tmp", "x.cwic.part", "x.CWIC"])
def test_other_names_are_taken(name: str, png: Path, tmp_path: Path) -> None:
    """Names without an extension, or with one that is no picture's, are the user's business."""
    assert main(["encode", str(png), str(tmp_path / name), "-q"]) == 0
    assert pillow_cwic.read_header(tmp_path / name).size == (88, 72)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.cwic"], "decoding makes other formats than .cwic"),
        (["x"], "--to says which format"),
        (["x.jpg", "--to", "png"], "the extension says JPEG, --to png"),
        (["-"], "--to says which format"),
        (["x.png", "--quality", "50"], "--quality: PNG has none"),
        (["x.jpg", "--quality", "0.5"], "a whole number from 0 to 100, found 0.5"),
        (["x.jpg", "--background", "soap"], "a colour's name or #rrggbb"),
        (["x.jpg", "--option", "progressive"], "NAME=VALUE"),
        (["x.jpg", "--option", "progresive=true"], "Pillow's JPEG has no such option"),
        (["x.png", "--option", "pnginfo=1"], "--option pnginfo: metadata goes along by itself"),
        (["x.webp", "--option", "exif=1"], "--option exif: metadata goes along by itself"),
        (["folder/"], "error: --to says which format"),
        (["x.png", "--device", "meta"], "use cpu, torch, cuda, cuda:N or auto"),
    ],
)
def test_decodings_that_make_no_sense(
    arguments: list[str], message: str, cwic_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Formats, options and devices are checked before anything is read: exit code 2."""
    assert message in misused(capsys, "decode", cwic_file, *arguments)


def test_targets_are_checked_before_the_work(
    png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is missing, is a file or may not be written to is said at once.

    Nothing is opened.
    """

    def worked(name: str) -> None:
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr(sources, "open_source", worked)
    (tmp_path / "folder.cwic").mkdir()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    cases = {
        tmp_path / "none" / "x.cwic": f"the folder {tmp_path / 'none'} does not exist",
        png / "x.cwic": f"{png} is no folder",
    }
    if os.geteuid() != 0:  # root may write anywhere
        cases[locked / "x.cwic"] = f"no permission to write into the folder {locked}"
    for target, message in cases.items():
        assert fails(capsys, "encode", png, target) == f"pillow-cwic: {target}: {message}\n"


def test_results_go_into_a_folder(png: Path, tmp_path: Path) -> None:
    """An existing folder as OUT, or one that ends in a slash, takes the result by its name."""
    (tmp_path / "there").mkdir()
    for folder in (str(tmp_path / "there"), f"{tmp_path / 'new'}/"):
        assert main(["encode", str(png), folder, "-q"]) == 0
        assert files(Path(folder)) == ["photo.cwic"]


def test_folders_patterns_and_several_files(
    png: Path, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All verbs take folders (with all below), patterns and lists.

    One bad picture spoils nothing, and is named.
    """
    album = tmp_path / "album"
    (album / "may").mkdir(parents=True)
    photo.save(album / "a.png")
    photo.save(album / "may" / "b.jpg")
    (album / "bad.png").write_bytes(b"no picture")
    (album / "._a.png").write_bytes(b"what another system leaves")
    (album / "notes.txt").write_text("not a picture")
    out, back = tmp_path / "out", tmp_path / "back"

    assert main(["encode", str(album), str(tmp_path / "no.png"), str(png), str(out)]) == 1
    said = capsys.readouterr().err
    assert f"pillow-cwic: {album}/bad.png: no picture that Pillow can read\n" in said
    assert f"pillow-cwic: {tmp_path}/no.png: there is no such file or folder\n" in said
    assert said.endswith(f"{out}: 3 done, 2 failed\n")
    assert files(out) == ["a.cwic", "may/b.cwic", "photo.cwic"]

    assert main(["decode", str(out / "*.cwic"), str(back), "--to", "png", "-q"]) == 0
    assert files(back) == ["a.png", "photo.png"]
    capsys.readouterr()
    assert main(["info", str(out), str(album / "bad.png")]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("88 x 72 pixels") == 3
    assert "bad.png" in captured.err


def test_two_sources_of_one_output(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where two pictures would become one file the first has it, the second is named."""
    for name in ("a.png", "a.webp"):
        photo.save(tmp_path / name)
    out = tmp_path / "out"
    sources_ = [str(tmp_path / "a.png"), str(tmp_path / "a.webp"), str(tmp_path / "a.png")]
    assert main(["encode", *sources_, str(out), "-q"]) == 1
    left_out = f"{tmp_path}/a.webp: left out, {tmp_path}/a.png becomes {out}/a.cwic already"
    assert capsys.readouterr().err == f"pillow-cwic: {left_out}\n"
    assert main(["encode", *sources_, str(out), "--force"]) == 1
    assert capsys.readouterr().err.endswith(f"{out}: 1 done, 1 failed\n")


def test_options_between_the_paths(png: Path, tmp_path: Path) -> None:
    """Paths may stand on both sides of options."""
    assert main(["encode", str(png), str(png), "-q", "--quality", "0.1", f"{tmp_path}/o/"]) == 0
    assert files(tmp_path / "o") == ["photo.cwic"]


@pytest.mark.parametrize("verb", ["compare", "demo"])
def test_reports_replace_nothing(
    verb: str, png: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report's folder is checked before the work: files that are there stay."""
    out = tmp_path / "report"
    out.mkdir()
    name = "index.html" if verb == "compare" else "photo-0.5.cwic"
    (out / name).write_bytes(KEPT)
    said = fails(capsys, verb, png, "--out", out)
    assert said == f"pillow-cwic: {out / name} is there already: --force replaces it\n"
    assert files(out) == [name]


def test_a_report_does_not_replace_its_source(
    cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture whose name a file of the report would have is never replaced."""
    before = cwic_file.read_bytes()
    said = fails(capsys, "compare", cwic_file, "--out", tmp_path, "--force")
    assert "would replace its own source" in said
    assert cwic_file.read_bytes() == before


def test_help_fits_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of every command, and of every verb below it, has at most 40 lines of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = 0
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert stop.value.code == 0, words
        assert len(lines) <= 40, words
        assert max(map(len, lines)) <= 80, words
        shown += 1
        # Verbs stand below "COMMAND" or "VERB", each with its help.
        verbs = (re.match(r"    (\w+)(  |$)", line) for line in lines if "VERB" not in line)
        if any(line.strip() in ("COMMAND", "VERB") for line in lines):
            waiting += [[*words, verb[1]] for verb in verbs if verb]
    assert shown == 1 + 9 + 6 + 3 + 3  # the program, commands, and verbs of three of them
