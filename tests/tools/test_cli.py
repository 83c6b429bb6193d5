"""The command line: results on stdout, one line per error on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import environment, run

import pillow_cwic
from pillow_cwic.metrics import pictures
from pillow_cwic.tools import demo
from pillow_cwic.tools.cli import main
from pillow_cwic.weights import models


@pytest.fixture
def png(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    photo.save(path, dpi=(300, 300))
    return path


def dpi_of(path: Path) -> tuple[float, float]:
    with Image.open(path) as image:
        return image.info["dpi"]


def test_there_and_back(png: Path, photo: Image.Image, tmp_path: Path) -> None:
    """`python -m pillow_cwic` goes there and back.

    Stdout stays empty, stderr says what was made.
    """
    cwic, back = tmp_path / "photo.cwic", tmp_path / "back.png"
    encoded = run("encode", png, cwic, "--quality", 0.3)
    assert (encoded.returncode, encoded.stdout) == (0, "")
    size = cwic.stat().st_size
    rate = f"{8 * size / (88 * 72):.3f}"
    assert encoded.stderr == f"{cwic}: {size:,} bytes, {rate} bpp, quality 0.30, on cpu (NumPy)\n"
    decoded = run("decode", cwic, back, "--quiet")
    assert (decoded.returncode, decoded.stdout, decoded.stderr) == (0, "", "")
    with Image.open(back) as image:
        assert pictures.psnr(np.asarray(photo), np.asarray(image)) > 24
        assert np.array_equal(np.asarray(image), pillow_cwic.decode(cwic.read_bytes()))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--bpp", "1.5"], {"bpp": 1.5}),
        (["--max-bytes", "900"], {"max_bytes": 900}),
        (["--quality", "0.9", "--device", "cpu"], {"quality": 0.9}),
        ([], {}),
    ],
)
def test_encode_options(
    png: Path, photo: Image.Image, arguments: list[str], options: dict[str, float]
) -> None:
    """Each option of the command line is the encoder's; without any the quality is 0.5."""
    out = png.with_suffix(".cwic")
    assert main(["encode", str(png), str(out), "-q", *arguments]) == 0
    assert out.read_bytes() == pillow_cwic.encode(np.asarray(photo), dpi=dpi_of(png), **options)


def test_importance_from_a_file(png: Path, photo: Image.Image, tmp_path: Path) -> None:
    """--importance takes any picture, as grey."""
    mask = Image.linear_gradient("L").resize(photo.size)
    mask.convert("RGB").save(tmp_path / "mask.png")
    out = tmp_path / "x.cwic"
    assert (
        main(["encode", str(png), str(out), "-q", "--importance", str(tmp_path / "mask.png")]) == 0
    )
    plain = pillow_cwic.encode(np.asarray(photo), importance=mask, dpi=dpi_of(png))
    assert out.read_bytes() == plain


def test_metadata_travels(photo: Image.Image, tmp_path: Path) -> None:
    """ICC profile, EXIF, XMP, resolution and comment go from JPEG to .cwic and on to JPEG again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    given = {
        "icc_profile": b"icc" * 50,
        "exif": exif.tobytes(),
        "xmp": b"<x/>",
        "comment": b"hello",
    }
    photo.save(tmp_path / "a.jpg", dpi=(72, 72), **given)
    assert main(["encode", "-q", str(tmp_path / "a.jpg"), str(tmp_path / "b.cwic")]) == 0
    assert main(["decode", "-q", str(tmp_path / "b.cwic"), str(tmp_path / "c.jpg")]) == 0
    for name in ("b.cwic", "c.jpg"):
        with Image.open(tmp_path / name) as image:
            assert {key: image.info[key] for key in given} == given
            assert image.info["dpi"] == (72, 72)


def test_region(cwic_file: Path, tmp_path: Path) -> None:
    """--region decodes only these pixels; outside the picture it fails and says so."""
    out = tmp_path / "part.png"
    assert main(["decode", "-q", str(cwic_file), str(out), "--region", "8", "16", "40", "40"]) == 0
    with Image.open(out) as image:
        expected = pillow_cwic.decode(cwic_file.read_bytes(), region=(8, 16, 40, 40))
        assert np.array_equal(np.asarray(image), expected)
    assert main(["decode", "-q", str(cwic_file), str(out), "--region", "0", "0", "500", "40"]) == 1


def test_info_as_text(cwic_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """info prints size, rate, quality, model and every section, for people."""
    assert main(["info", str(cwic_file)]) == 0
    header = pillow_cwic.read_header(cwic_file)
    size = cwic_file.stat().st_size
    tile = next(section for section in header.sections if section.type == "TILE")
    assert capsys.readouterr().out.splitlines() == [
        str(cwic_file),
        "  picture   88 x 72 pixels, RGB",
        f"  size      {size:,} bytes, {8 * size / 88 / 72:.3f} bpp",
        "  quality   0.30 (index 19)",
        f"  model     {models.find(None).name} (id {header.model_id})",
        "  runs on   cpu (NumPy)",
        "  format    version 1, 1 tile(s) of 1024 pixels",
        "  section           offset       bytes",
        "  HEAD                   8          20",
        f"  TILE        {tile.offset:>12,}{tile.length:>12,}",
    ]


def test_a_rate_is_rounded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """info says what encode says: 0.21753 is 0.218, though 0.2175 would be 0.217."""
    flat = Image.new("L", (700, 700))
    bare = len(pillow_cwic.encode(flat, lossless=True, comment=b"x" * 4))
    rates = ((extra, 8 * (bare + extra) / 700**2) for extra in range(0, 100_000, 4))
    extra, rate = next((e, r) for e, r in rates if f"{r:.3f}" != f"{round(r, 4):.3f}")
    path = tmp_path / "x.cwic"
    path.write_bytes(pillow_cwic.encode(flat, lossless=True, comment=b"x" * (4 + extra)))
    assert path.stat().st_size == bare + extra
    assert main(["info", str(path)]) == 0
    assert f" {rate:.3f} bpp" in capsys.readouterr().out


def test_info_as_json(
    photo: Image.Image, cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """info --json prints a list with one object for each file.

    Metadata is described, not dumped.
    """
    rich = tmp_path / "rich.cwic"
    photo.convert("LA").save(rich, comment="Grüße", dpi=(300, 150), icc_profile=b"p" * 77)
    assert main(["info", "--json", str(cwic_file), str(rich)]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["width"], first["height"], first["mode"], first["quality_index"]) == (
        88,
        72,
        "RGB",
        19,
    )
    assert first["bytes"] == cwic_file.stat().st_size
    assert first["metadata"] == {}
    assert second["mode"] == "LA"
    assert second["metadata"] == {
        "icc_profile": {"bytes": 77},
        "dpi": [300.0, 150.0],
        "comment": {"bytes": 7, "text": "Grüße"},
    }
    assert [s["type"] for s in second["sections"]] == [
        "HEAD",
        "iCCP",
        "dPIx",
        "cMNT",
        "ALPH",
        "TILE",
    ]


def test_info_goes_on_after_a_bad_file(
    cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read is one line on stderr and exit code 1.

    The others are shown all the same.
    """
    bad = tmp_path / "bad.cwic"
    bad.write_bytes(b"GIF89a")
    assert main(["info", "--json", str(bad), str(cwic_file), str(tmp_path / "none.cwic")]) == 1
    captured = capsys.readouterr()
    assert [report["file"] for report in json.loads(captured.out)] == [str(cwic_file)]
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("none.cwic: there is no such file or folder")
    assert lines[1].startswith(f"pillow-cwic: {bad}: ")


def test_help_and_info_load_no_torch(cwic_file: Path, fresh_python: Callable[..., str]) -> None:
    """--help and info answer without loading torch."""
    code = """if True:
        import sys
        from pillow_cwic.tools.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit as stop:
            print("exit code", stop.code)
        print("torch" in sys.modules)"""
    assert fresh_python(code, "info", cwic_file).endswith("\nFalse\n")
    shown = fresh_python(code, "--help")
    assert shown.endswith("exit code 0\nFalse\n")
    assert all(
        word in shown
        for word in ("encode", "decode", "info", "compare", "convert", "demo", "weights")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["shrink"], "shrink"),
        (["encode", "a.png"], "OUT"),
        (
            ["encode", "a.png", "b.cwic", "--quality", "75"],
            "quality is 0..1, found 75.0; did you mean 0.75?",
        ),
        (
            ["encode", "a.png", "b.cwic", "--quality", "0.5", "--bpp", "1"],
            "--bpp: not allowed with argument --quality",
        ),
        (
            ["decode", "a.cwic", "b.nonsense"],
            "Pillow writes no format with the extension '.nonsense'",
        ),
        (["decode", "a.cwic", "b.png", "--region", "1", "2", "3"], "--region"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is exit code 2, with what was wrong on stderr, before any file is looked at."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_failures_are_one_line(
    photo: Image.Image, cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong is exit code 1 and one line on stderr that names the file.

    An output file stays as it was.
    """
    deep, out = tmp_path / "deep.tif", tmp_path / "out"
    Image.new("I;16", (8, 8)).save(deep)
    out.write_bytes(b"precious")
    cases = [
        (["encode", tmp_path / "none.png", out], "none.png"),
        (["encode", deep, out], "deep.tif: mode I;16 has more than 8 bits: --scale auto"),
        (["encode", cwic_file, out, "--max-bytes", "40"], "max_bytes = 40"),
        (["encode", cwic_file, out, "--model", "no-such-model"], "no-such-model"),
        (["decode", deep, out, "--to", "png"], "deep.tif"),
    ]
    for arguments, message in cases:
        assert main([*map(str, arguments), "--force"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.startswith("pillow-cwic: ")
        assert len(captured.err.splitlines()) == 1
    assert out.read_bytes() == b"precious"


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from pillow_cwic.tools.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The program on a disk that takes no file of more than 100 bytes."""


@pytest.mark.parametrize(("verb", "name"), [("encode", "out.cwic"), ("decode", "out.png")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk_leaves_the_old_output(
    verb: str, name: str, exists: bool, png: Path, cwic_file: Path, tmp_path: Path
) -> None:
    """Where the writing breaks off, an output that was there stays, no part of a new one is left.

    A line says so.
    """
    out = tmp_path / "out" / name
    out.parent.mkdir()
    if exists:
        out.write_bytes(b"precious")
    source = png if verb == "encode" else cwic_file
    command = [sys.executable, "-B", "-c", FULL_DISK, verb, str(source), str(out), "-qf"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    problem = f"{out}: {os.strerror(errno.EFBIG)}"
    assert done.stderr == f"pillow-cwic: {problem}\n"
    assert [one.read_bytes() for one in out.parent.iterdir()] == [b"precious"] * exists


def test_failure_of_the_program(cwic_file: Path, tmp_path: Path) -> None:
    """The program itself exits with 1 and no traceback."""
    damaged = tmp_path / "damaged.cwic"
    damaged.write_bytes(cwic_file.read_bytes()[:-4])
    done = run("decode", damaged, tmp_path / "out.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"pillow-cwic: {damaged}: the file is cut off")
    assert len(done.stderr.splitlines()) == 1


def test_alpha_into_jpeg(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A format without alpha is refused with the remedy: --background puts it on a colour."""
    see_through = photo.convert("RGBA")
    see_through.putalpha(0)
    see_through.save(tmp_path / "a.cwic")
    command = ["decode", str(tmp_path / "a.cwic"), str(tmp_path / "a.jpg"), "-q"]
    assert main(command) == 1
    assert capsys.readouterr().err == (
        f"pillow-cwic: {tmp_path / 'a.cwic'}: JPEG cannot hold what is transparent: "
        "--background white, for instance, puts the picture on a colour\n"
    )
    assert not (tmp_path / "a.jpg").exists()
    assert main([*command, "--background", "#204060"]) == 0
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(np.asarray(image) - np.array([0x20, 0x40, 0x60])).max() <= 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version is the package's."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"pillow-cwic {pillow_cwic.__version__}\n"


def test_demo(
    png: Path, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """demo writes five .cwic files and a labelled sheet, and prints a row for each quality."""
    out = tmp_path / "shown"
    assert main(["demo", str(png), "--out", str(out), "-q"]) == 0
    files = sorted(out.glob("*.cwic"))
    assert [path.name for path in files] == [f"photo-{q:.1f}.cwic" for q in demo.QUALITIES]
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:2] == "0."
    ]
    assert [float(row[0]) for row in rows] == list(demo.QUALITIES)
    assert [int(row[1].replace(",", "")) for row in rows] == [path.stat().st_size for path in files]
    for path, row in zip(files, rows, strict=True):
        decoded = pillow_cwic.decode(path.read_bytes())
        assert float(row[2]) == pytest.approx(8 * path.stat().st_size / 88 / 72, abs=0.001)
        assert float(row[3]) == pytest.approx(pictures.psnr(np.asarray(photo), decoded), abs=0.01)
        assert float(row[4]) == pytest.approx(pictures.ssim(np.asarray(photo), decoded), abs=0.001)
    with Image.open(out / "photo-comparison.png") as sheet:
        shown = sheet.crop((24, 56, 24 + 88, 56 + 72))
        assert np.array_equal(np.asarray(shown), np.asarray(photo))


def test_a_device_is_asked_for_where_one_is_needed(
    png: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A setting that is junk is named where it matters, and costs no lossless file."""
    monkeypatch.setenv("PILLOW_CWIC_DEVICE", "meta")
    out = tmp_path / "x.cwic"
    assert main(["encode", str(png), str(out), "--lossless"]) == 0
    assert main(["decode", str(out), str(tmp_path / "x.png")]) == 0
    assert "meta" not in capsys.readouterr().err
    assert main(["encode", str(png), str(out), "--force"]) == 1
    assert "device 'meta'" in capsys.readouterr().err
