"""Pillow: files that change while they are open, and files with odd things in them."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageOps
from processes import environment

import pillow_cwic
from pillow_cwic import FormatError
from pillow_cwic.format.framing import SIGNATURE, pack

HEAD_BYTES = 32
ODD_BYTES = 50_000_000


def with_section(data: bytes, kind: str, payload: bytes) -> bytes:
    """The file with one more section behind HEAD."""
    start = len(SIGNATURE) + HEAD_BYTES
    return data[:start] + pack(kind, payload) + data[start:]


class CountingFile(BytesIO):
    """Counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        """As ever, counting."""
        data = super().read(size)
        self.count += len(data)
        return data


def test_opening_reads_no_unknown_section(cwic_bytes: bytes) -> None:
    """Image.open and read_header seek over what they do not know, however large it is."""
    data = with_section(cwic_bytes, "oDDs", bytes(ODD_BYTES))
    for read in (Image.open, pillow_cwic.read_header):
        file = CountingFile(data)
        assert read(file).size == (88, 72)
        assert file.count < 1000
    assert Image.open(BytesIO(data)).tobytes() == Image.open(BytesIO(cwic_bytes)).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"size": (72, 88)},
        {"mode": "L"},
        {"options": {"quality": 0.7}},
        {"options": {"quality": 0.3, "comment": b"another"}},
    ],
)
def test_a_file_rewritten_after_opening_is_noticed(
    photo: Image.Image, cwic_file: Path, change: dict[str, object]
) -> None:
    """Other pixels than the header told of are a FormatError that says so, not a garbled picture.

    So are other blocks than `info` has.
    """
    other = photo.resize(change.get("size", photo.size)).convert(change.get("mode", "RGB"))
    file = BytesIO()
    other.save(file, "CWIC", **change.get("options", {"quality": 0.3}))
    with Image.open(cwic_file) as image:
        cwic_file.write_bytes(file.getvalue())  # in place: the same file as far as handles go
        with pytest.raises(FormatError, match=r"photo\.cwic was rewritten after it was opened"):
            image.load()


def test_a_file_replaced_after_opening_is_the_old_one(cwic_file: Path, tmp_path: Path) -> None:
    """A rename over it leaves the opened file what it was."""
    expected = pillow_cwic.decode(cwic_file)
    with Image.open(cwic_file) as image:
        Image.new("L", (9, 9)).save(tmp_path / "new.cwic")
        (tmp_path / "new.cwic").replace(cwic_file)
        assert np.array_equal(np.asarray(image), expected)


def test_a_resolution_that_is_none_costs_nothing(photo: Image.Image, tmp_path: Path) -> None:
    """1e300 dpi is left out with a warning, so that the picture can be saved on as any other."""
    data = pillow_cwic.encode(photo, dpi=(1e300, 1e300), quality=0.3)
    with pytest.warns(UserWarning, match=r"1e\+300\) dpi is none") as caught:
        image = Image.open(BytesIO(data))
    assert caught[0].filename == __file__
    assert "dpi" not in image.info
    for suffix in (".png", ".jpg", ".tif", ".cwic"):
        image.save(tmp_path / f"x{suffix}", **{n: v for n, v in image.info.items() if n == "dpi"})
    assert iio.imread(data).shape == (72, 88, 3)
    assert pillow_cwic.read_header(data).metadata.dpi == (1e300, 1e300)


@pytest.mark.parametrize("block", [b"x", b"Exif\0\0", bytes(40), b"MM"])
def test_a_block_that_is_no_exif_costs_nothing(photo: Image.Image, block: bytes) -> None:
    """The tags are none, the bytes are kept, and the picture can be turned, copied and saved."""
    data = pillow_cwic.encode(photo, exif=block, quality=0.3)
    image = Image.open(BytesIO(data))
    assert image.info["exif"] == block
    if block == b"Exif\0\0":
        assert dict(image.getexif()) == {}
    else:
        with pytest.warns(UserWarning, match=rf"{len(block)} bytes, is no EXIF: it has no tags"):
            assert dict(image.getexif()) == {}
    assert ImageOps.exif_transpose(image).size == (88, 72)
    image.copy().save(BytesIO(), "PNG")
    image.save(BytesIO(), "CWIC")
    assert iio.immeta(data)["exif"] == block
    assert iio.imread(data, rotate=True).shape == (72, 88, 3)


@pytest.mark.parametrize("before", ["", "im.save(sys.argv[1], quality=0.2)"])
def test_saving_at_exit(tmp_path: Path, before: str) -> None:
    """What is saved by `atexit`, as caches are, is whole, be it the first of all or not."""
    path = tmp_path / "late.cwic"
    code = f"""if True:
        import atexit, sys, pillow_cwic
        from PIL import Image
        im = Image.linear_gradient("L").resize((1100, 40)).convert("RGB")  # two tiles: threads
        {before}
        atexit.register(lambda: im.save(sys.argv[1]))
        atexit.register(lambda: pillow_cwic.decode(pillow_cwic.encode(im)))"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(path) as image:
        assert image.info["cwic_quality"] == 0.4
        assert np.asarray(image).shape == (40, 1100, 3)
