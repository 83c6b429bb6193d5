"""desktop: freedesktop's tools take the files; a file manager's command makes a thumbnail."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import environment

import pillow_cwic
from pillow_cwic.format.framing import SIGNATURE
from pillow_cwic.tools import desktop
from pillow_cwic.tools.cli import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.skipif(not shutil.which("update-mime-database"), reason="needs shared-mime-info")
def test_the_type_is_known_until_it_is_uninstalled(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """update-mime-database takes name and signature; uninstall leaves neither file nor type."""
    assert main(["desktop", "install"]) == 0
    assert "50:image/x-cwic:*.cwic" in (data / "mime" / "globs2").read_text()
    magic = (data / "mime" / "magic").read_bytes()
    assert b"image/x-cwic]\n>0=" + len(SIGNATURE).to_bytes(2, "big") + SIGNATURE in magic
    if shutil.which("gio"):  # what GNOME's programs ask, by a name that says nothing
        path = data / "picture"
        path.write_bytes(SIGNATURE + bytes(100))
        command = ["gio", "info", "-a", "standard::content-type", str(path)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "standard::content-type: image/x-cwic" in shown.stdout
    assert main(["desktop", "install"]) == 0  # again changes nothing
    assert main(["desktop", "uninstall"]) == 0
    assert "cwic" not in (data / "mime" / "globs2").read_text()
    assert not [path for path in data.rglob("*") if "cwic" in path.name]
    capsys.readouterr()
    assert main(["desktop", "uninstall"]) == 0
    assert "was not installed" in capsys.readouterr().err


def test_the_thumbnailer_makes_thumbnails(data: Path, tmp_path: Path, photo: Image.Image) -> None:
    """Its command, with the places filled as a file manager does, writes a PNG of that size."""
    assert main(["desktop", "install"]) == 0
    entry = configparser.ConfigParser(interpolation=None)
    entry.optionxform = str  # type: ignore[assignment, method-assign]
    entry.read(data / desktop.THUMBNAILER_FILE)
    section = entry["Thumbnailer Entry"]
    assert section["MimeType"] == "image/x-cwic;"
    assert Path(section["TryExec"]).exists()
    (tmp_path / "a picture.cwic").write_bytes(pillow_cwic.encode(photo))
    out = tmp_path / "thumbnail.without-extension"
    places = {"%s": "40", "%i": str(tmp_path / "a picture.cwic"), "%o": str(out)}
    command = [places.get(word, word) for word in shlex.split(section["Exec"])]
    subprocess.run(command, env=environment(), check=True, timeout=120)
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (40, 33))


def test_thumbnails_are_upright(tmp_path: Path, photo: Image.Image) -> None:
    """A file manager shows them as they are: the orientation is applied."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "x.cwic", exif=exif, lossless=True)
    out = tmp_path / "x.png"
    assert main(["desktop", "thumbnail", str(tmp_path / "x.cwic"), str(out)]) == 0
    with Image.open(out) as image:
        assert np.array_equal(np.asarray(image), np.rot90(np.asarray(photo), -1))
        assert 0x0112 not in image.getexif()


def test_strange_paths_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python in a folder of any name is one word of the command, quoted as for a shell."""
    monkeypatch.setattr("sys.executable", '/opt/my "py$thon" 100%/bin/python')
    line = next(line for line in desktop.thumbnailer().splitlines() if line.startswith("Exec="))
    unescaped = line.removeprefix("Exec=").replace("\\\\", "\\").replace("%%", "%")
    shown = subprocess.run(
        ["sh", "-c", f"printf '%s\n' {unescaped}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[0] == '/opt/my "py$thon" 100%/bin/python'


def test_the_description_is_sound_xml() -> None:
    """With the type's name and pattern."""
    root = ElementTree.fromstring(desktop.mime_info().encode())
    (kind,) = root
    assert kind.get("type") == "image/x-cwic"
    assert {child.tag.rpartition("}")[2] for child in kind} == {
        "comment",
        "generic-icon",
        "magic",
        "glob",
    }


def test_what_cannot_be_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture, no size, and other systems: one line."""
    (tmp_path / "no.cwic").write_bytes(b"no")
    out = str(tmp_path / "out")
    assert main(["desktop", "thumbnail", str(tmp_path / "no.cwic"), out]) == 1
    assert "no.cwic" in capsys.readouterr().err
    assert main(["desktop", "thumbnail", "-s", "0", str(tmp_path / "no.cwic"), out]) == 1
    assert "found 0" in capsys.readouterr().err
    assert not Path(out).exists()
    monkeypatch.setattr("sys.platform", "darwin")
    assert main(["desktop", "install"]) == 1
    assert "freedesktop.org" in capsys.readouterr().err
