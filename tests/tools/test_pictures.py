"""How commands read pictures: frames, ranges of deep pictures, limits, and files that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.tools.cli import main
from pillow_cwic.tools.pictures import Reading, importance_mask, load_picture


@pytest.fixture
def animation(photo: Image.Image, tmp_path: Path) -> Path:
    """Three frames: the photo, and two turned ones."""
    path = tmp_path / "animation.webp"
    others = [photo.rotate(turn) for turn in (90, 180)]
    photo.save(path, save_all=True, append_images=others, lossless=True, duration=40)
    return path


def looks_like(path: Path, picture: Image.Image) -> bool:
    decoded = pillow_cwic.decode(path).astype(int)
    return bool(np.abs(decoded[..., :3] - np.asarray(picture)).mean() < 12)


@pytest.mark.parametrize("verb", ["encode", "convert", "compare", "demo"])
def test_frames_that_are_left_out_are_counted(
    verb: str, animation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning says how many there are, and how the command at hand takes others."""
    out = [str(tmp_path / "o.cwic")] if verb == "encode" else ["--out", str(tmp_path / "o")]
    assert main([verb, str(animation), *out]) == 0
    others = ", --all-frames all of them" if verb in ("encode", "convert") else ""
    said = f"3 frames, the first one is taken: --frame N takes another (0 to 2){others}\n"
    assert said in capsys.readouterr().err
    out = [str(tmp_path / "p.cwic")] if verb == "encode" else ["--out", str(tmp_path / "p")]
    assert main([verb, str(animation), *out, "--frame", "2"]) == 0
    assert "3 frames" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["encode", "convert"])
def test_one_frame_and_all_of_them(
    verb: str,
    animation: Path,
    photo: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--frame N takes one, counted from 0; --all-frames makes a numbered file of each."""
    out = tmp_path / "out"
    goes_to = [f"{out}/"] if verb == "encode" else ["--out", str(out)]
    assert main([verb, str(animation), *goes_to, "--frame", "2", "-q"]) == 0
    assert looks_like(out / "animation.cwic", photo.rotate(180))
    assert main([verb, str(animation), *goes_to, "--frame", "3", "--force"]) == 1
    assert "--frame 3: the frames are 0 to 2" in capsys.readouterr().err

    assert main([verb, str(animation), *goes_to, "--all-frames"]) == 0
    assert "how long each frame is shown is not kept" in capsys.readouterr().err
    for number, turn in enumerate((0, 90, 180)):
        assert looks_like(out / f"animation-{number}.cwic", photo.rotate(turn))


def test_frames_that_are_missing_are_made(
    animation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rerun of convert with --all-frames makes what is missing, of those frames, too."""
    command = ["convert", str(animation), "--out", str(tmp_path / "out"), "--all-frames"]
    assert main(command) == 0
    (tmp_path / "out" / "animation-1.cwic").unlink()
    (tmp_path / "out" / "animation-2.cwic").write_bytes(b"mine")
    capsys.readouterr()
    assert main(command) == 0
    assert "1 converted, 0 there already, 0 failed" in capsys.readouterr().err
    assert (tmp_path / "out" / "animation-1.cwic").stat().st_size > 40
    assert (tmp_path / "out" / "animation-2.cwic").read_bytes() == b"mine"
    assert main(command) == 0
    assert "0 converted, 1 there already, 0 failed" in capsys.readouterr().err


def test_pages(tmp_path: Path) -> None:
    """Pages of a TIFF are frames, of sizes of their own."""
    pages = [Image.new("L", (20 + 10 * k, 20), 90 * k) for k in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert main(["encode", str(tmp_path / "pages.tif"), f"{tmp_path}/o/", "-q", "--frame=2"]) == 0
    assert pillow_cwic.read_header(tmp_path / "o" / "pages.cwic").size == (40, 20)


DEEP = {
    "I;16": np.linspace(1000, 3000, 64 * 48).reshape(48, 64).astype(np.uint16),
    "I": np.linspace(-500, 500, 64 * 48).reshape(48, 64).astype(np.int32),
    "F": np.linspace(0.2, 0.7, 64 * 48).reshape(48, 64).astype(np.float32),
}


def deep_file(mode: str, folder: Path) -> Path:
    path = folder / "deep.tif"
    image = Image.fromarray(DEEP[mode])
    assert image.mode == mode
    image.save(path)
    return path


@pytest.mark.parametrize("mode", DEEP)
@pytest.mark.parametrize("verb", ["encode", "convert", "compare", "demo"])
def test_deep_pictures_are_refused_alike(
    mode: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 bits and floats never saturate to white or black: the mode and the remedy are named."""
    out = [str(tmp_path / "o.cwic")] if verb == "encode" else ["--out", str(tmp_path / "o")]
    assert main([verb, str(deep_file(mode, tmp_path)), *out]) == 1
    said = capsys.readouterr().err
    assert f"deep.tif: mode {mode} has more than 8 bits: --scale auto" in said
    assert "--scale MIN,MAX" in said


@pytest.mark.parametrize("mode", DEEP)
@pytest.mark.parametrize("scale", ["auto", "range"])
def test_scale(mode: str, scale: str, tmp_path: Path) -> None:
    """--scale auto stretches the picture's own range, MIN,MAX that one; the greys are right."""
    values = DEEP[mode].astype(float)
    low, high = values.min(), values.max()
    if scale == "range":
        low, high = low - 10, high + 30
    chosen = scale if scale == "auto" else (low, high)
    with deep_file(mode, tmp_path).open("rb") as file:
        picture, _ = load_picture(file, Reading(scale=chosen))
    expected = np.rint((values - low) / (high - low) * 255)
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize("scale", ["-5,300", "-.5,300"])
def test_a_range_may_begin_below_zero(scale: str, tmp_path: Path) -> None:
    """It is no option, though it begins with a dash."""
    source = str(deep_file("F", tmp_path))
    outs = [tmp_path / "a.cwic", tmp_path / "b.cwic"]
    assert main(["encode", source, str(outs[0]), "--scale", scale, "-q"]) == 0
    assert main(["encode", source, str(outs[1]), f"--scale={scale}", "-q"]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("text", ["", "5", "9,3", "a,b", "0,inf", "nan,1", "1,1"])
def test_ranges_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, before anything is read."""
    with pytest.raises(SystemExit) as stop:
        main(["encode", "a.png", "b.cwic", f"--scale={text}"])
    assert stop.value.code == 2
    assert "auto, or two rising numbers as 0,4095" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_without_a_value(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pixel that is not finite has no grey."""
    values = DEEP["F"].copy()
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "x.tif")
    command = ["encode", str(tmp_path / "x.tif"), str(tmp_path / "x.cwic"), "--scale", "auto"]
    assert main(command) == 1
    assert "mode F: some pixels are not finite" in capsys.readouterr().err


def test_deep_masks(photo: Image.Image, tmp_path: Path) -> None:
    """An importance mask of 16 bits, or of floats from 0 to 1, is the mask of 8 bits."""
    grey = np.asarray(Image.linear_gradient("L").resize(photo.size))
    masks = {
        "8": Image.fromarray(grey),
        "16": Image.fromarray(grey.astype(np.uint16) * 257),
        "float": Image.fromarray((grey / 255).astype(np.float32)),
    }
    for name, mask in masks.items():
        mask.save(tmp_path / f"{name}.tif")
        with (tmp_path / f"{name}.tif").open("rb") as file:
            assert np.array_equal(importance_mask(file), grey), name


def test_a_mask_of_another_range_is_refused(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the scale is not plain, the values are named."""
    photo.save(tmp_path / "a.png")
    Image.fromarray(DEEP["F"] * 4).save(tmp_path / "mask.tif")
    command = ["encode", str(tmp_path / "a.png"), str(tmp_path / "a.cwic")]
    assert main([*command, "--importance", str(tmp_path / "mask.tif")]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'mask.tif'}: importance is a grey image" in said
    assert "from 0.8 to 2.8" in said


@pytest.mark.parametrize("verb", ["encode", "compare"])
def test_colours_of_print_are_managed(
    verb: str, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CMYK is converted as `save` converts it, in every command, and said."""
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    out = [str(tmp_path / "a.cwic")] if verb == "encode" else ["--out", str(tmp_path / "o")]
    assert main([verb, str(tmp_path / "a.jpg"), *out]) == 0
    assert "a.jpg: mode CMYK is stored as RGB" in capsys.readouterr().err


def test_lossless_rounds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """--lossless and --scale contradict each other: wrong usage."""
    with pytest.raises(SystemExit) as stop:
        main(["encode", "a.tif", "b.cwic", "--lossless", "--scale", "auto"])
    assert stop.value.code == 2
    assert "--scale rounds the values of deep pictures" in capsys.readouterr().err


def test_max_pixels(photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--max-pixels is exact: one more is refused in one line, so many are taken without a word."""
    photo.save(tmp_path / "a.png")
    pixels = photo.width * photo.height
    before = Image.MAX_IMAGE_PIXELS
    command = ["encode", str(tmp_path / "a.png"), str(tmp_path / "a.cwic")]
    assert main([*command, "--max-pixels", str(pixels - 1)]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "--max-pixels N allows more" in said
    assert main([*command, "-q", "--max-pixels", str(pixels)]) == 0
    assert capsys.readouterr().err == ""
    assert before == Image.MAX_IMAGE_PIXELS


def bomb(path: Path, side: int) -> None:
    """A PNG that claims side x side pixels, in 60 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("verb", ["encode", "convert", "compare", "demo"])
def test_a_decompression_bomb_is_one_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that claims billions of pixels is refused by its header, with the option named."""
    bomb(tmp_path / "bomb.png", 60_000)
    out = [str(tmp_path / "o.cwic")] if verb == "encode" else ["--out", str(tmp_path / "o")]
    assert main([verb, str(tmp_path / "bomb.png"), *out, "-q"]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "decompression bomb" in said
    assert "--max-pixels N allows more" in said


BROKEN = {
    "empty.png": b"",
    "text.png": b"not a picture",
    "cut.png": None,
    "header.png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 40,
    "tiff.tif": b"II*\x00\xff\xff\xff\xff",
    "gif.gif": b"GIF89a\x01\x00",
    "jpeg.jpg": b"\xff\xd8\xff\xe0\x00\x00",
    "bmp.bmp": b"BM" + b"\xff" * 60,
    "ico.ico": b"\x00\x00\x01\x00\x01\x00" + b"\xff" * 20,
    "psd.psd": b"8BPS\x00\x01" + b"\x00" * 40,
    "webp.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "eps.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
    "fits.fits": b"SIMPLE  =                    T" + b" " * 50,
    "cwic.cwic": b"\x89CWIC\r\n\x1a",
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_file_is_a_traceback(
    name: str, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever Pillow makes of a file that is none: one line that names it, exit code 1."""
    data = BROKEN[name]
    if data is None:
        photo.save(tmp_path / "whole.png")
        data = (tmp_path / "whole.png").read_bytes()[:700]
    (tmp_path / name).write_bytes(data)
    assert main(["encode", str(tmp_path / name), str(tmp_path / "x.cwic"), "-q"]) == 1
    *warned, said = capsys.readouterr().err.splitlines()
    assert said.startswith(f"pillow-cwic: {tmp_path / name}: ")
    assert all(line.startswith("pillow-cwic: warning: ") for line in warned)  # Pillow's own
    assert not (tmp_path / "x.cwic").exists()
