"""Metadata from every format into .cwic files and on: kept, or said to be lost.

The table in docs/metadata.md is what happens here.
"""

from __future__ import annotations

import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from places import ROOT

import pillow_cwic
from pillow_cwic.tools.cli import main
from pillow_cwic.tools.metadata import exif_tags, metadata_of, upright
from pillow_cwic.tools.recode import write_picture

MAKE, ORIENTATION, EXIF_IFD, TAKEN = 0x010F, 0x0112, 0x8769, 0x9003
KINDS = ("icc_profile", "exif", "xmp", "dpi", "comment")


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[MAKE] = "Maker"
    tags[ORIENTATION] = orientation
    tags.get_ifd(EXIF_IFD)[TAKEN] = "2024:05:06 07:08:09"
    return tags.tobytes()


BLOCKS: dict[str, Any] = {
    "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "exif": exif(),
    "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    "dpi": (300.0, 150.0),
    "comment": "Grüße".encode(),
}


@pytest.fixture(scope="module")
def arrow() -> Image.Image:
    """RGB, 48 x 32 pixels, another colour in each corner: any turn shows."""
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    return Image.fromarray(corners.repeat(16, 0).repeat(24, 1))


def encode(picture: Image.Image, path: Path, *options: str, **save: Any) -> pillow_cwic.Header:
    """A picture in a file of another format, encoded; what the .cwic file holds."""
    picture.save(path, **save)
    out = path.with_suffix(".cwic")
    assert main(["encode", str(path), str(out), "-qf", *options]) == 0
    return pillow_cwic.read_header(out)


def decode(folder: Path, name: str, picture: Image.Image, **blocks: Any) -> Image.Image:
    """A .cwic file with these blocks, decoded to a file of that name and opened."""
    (folder / "x.cwic").write_bytes(pillow_cwic.encode(np.asarray(picture), quality=1, **blocks))
    assert main(["decode", str(folder / "x.cwic"), str(folder / name), "-qf"]) == 0
    with Image.open(folder / name) as image:
        image.load()
    return image


def png_text(chunks: dict[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        info.add_itxt(key, value)
    return info


PNG_CHUNKS = {"XML:com.adobe.xmp": BLOCKS["xmp"].decode(), "Comment": "Grüße"}


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "a.tif"])
def test_exif_is_kept_whatever_it_comes_from(name: str, arrow: Image.Image, tmp_path: Path) -> None:
    """Maker, date and orientation reach the .cwic file, from TIFF's own tags, too."""
    metadata = encode(arrow, tmp_path / name, exif=exif(8)).metadata
    tags = exif_tags(metadata.exif)
    assert tags[MAKE] == "Maker"
    assert tags.get_ifd(EXIF_IFD)[TAKEN] == "2024:05:06 07:08:09"
    # Pillow turns a TIFF when it loads it, and nothing else.
    assert tags.get(ORIENTATION, 1) == (1 if name == "a.tif" else 8)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.jpg", {"xmp": BLOCKS["xmp"], "comment": BLOCKS["comment"]}),
        ("a.png", {"pnginfo": png_text(PNG_CHUNKS)}),
        ("a.tif", {"tiffinfo": {700: BLOCKS["xmp"], 270: BLOCKS["comment"]}}),
        ("a.webp", {"xmp": BLOCKS["xmp"]}),
        ("a.avif", {"xmp": BLOCKS["xmp"]}),
        ("a.gif", {"comment": BLOCKS["comment"]}),
        ("a.jp2", {"comment": BLOCKS["comment"]}),
    ],
)
def test_xmp_and_comments_are_kept_whatever_they_come_from(
    name: str, save: dict[str, Any], arrow: Image.Image, tmp_path: Path
) -> None:
    """Each format has its own name for them; all that it holds reaches the .cwic file."""
    metadata = encode(arrow, tmp_path / name, **save).metadata
    has_xmp = name not in ("a.gif", "a.jp2")
    has_comment = name not in ("a.webp", "a.avif")
    assert metadata.xmp == (BLOCKS["xmp"] if has_xmp else None)
    assert metadata.comment == (BLOCKS["comment"] if has_comment else None)


def test_a_text_called_dpi_is_no_resolution(arrow: Image.Image, tmp_path: Path) -> None:
    """A text chunk of PNG may have any name."""
    assert encode(arrow, tmp_path / "a.png", pnginfo=png_text({"dpi": "fine"})).metadata.dpi is None


def test_pixel_tags_of_a_tiff_stay_behind(arrow: Image.Image, tmp_path: Path) -> None:
    """What says how the TIFF stored its pixels would be untrue for another file."""
    metadata = encode(arrow, tmp_path / "a.tif").metadata
    assert metadata.exif is None
    metadata = encode(arrow, tmp_path / "a.tif", tiffinfo={MAKE: "Maker"}).metadata
    assert set(exif_tags(metadata.exif)) - {0x011A, 0x011B, 0x0128} == {MAKE}


def documented() -> dict[str, dict[str, str]]:
    """The table of docs/metadata.md: format, kind of metadata -> what it says."""
    text = (ROOT / "docs" / "metadata.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


TABLE = documented()


@pytest.mark.parametrize("format_name", TABLE)
def test_the_table_of_what_formats_keep(format_name: str, photo: Image.Image) -> None:
    """docs/metadata.md says of each format what it keeps; what it does not keep is a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = write_picture(photo, BLOCKS, format_name, {})
    with Image.open(BytesIO(data)) as image:
        image.load()
        found = metadata_of(image)
    kept = {
        "icc_profile": found.get("icc_profile") == BLOCKS["icc_profile"],
        "exif": exif_tags(found.get("exif")).get(MAKE) == "Maker",
        "xmp": found.get("xmp") == BLOCKS["xmp"],
        "dpi": "dpi" in found or 0x011A in exif_tags(found.get("exif")),
        "comment": found.get("comment") == BLOCKS["comment"],
    }
    said = {kind: TABLE[format_name][kind] for kind in KINDS}
    assert {kind: text.startswith("yes") for kind, text in said.items()} == kept
    lost = " ".join(str(warning.message) for warning in caught)
    labels = ("colour profile", "EXIF", "XMP", "resolution", "comment")
    for kind, label in zip(KINDS, labels, strict=True):
        assert (label in lost) == (not kept[kind]), lost


@pytest.mark.parametrize("orientation", [2, 6, 7])
@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.jp2", "a.ppm", "a.jpg", "a.png", "a.tif"])
def test_orientation_is_kept_or_the_pixels_are_turned(
    name: str, orientation: int, arrow: Image.Image, tmp_path: Path
) -> None:
    """Whoever shows the decoded file sees the picture upright, once, in any format."""
    image = decode(tmp_path, name, arrow, exif=exif(orientation))
    shown, _ = upright(image.convert("RGB"), metadata_of(image))
    expected, _ = upright(arrow, {"exif": exif(orientation)})
    assert shown.size == expected.size
    for x in (3, shown.width - 4):
        for y in (3, shown.height - 4):
            wanted = np.array(expected.getpixel((x, y)), int)
            assert np.abs(np.array(shown.getpixel((x, y)), int) - wanted).max() < 60


@pytest.mark.parametrize("kind", ["exif", "xmp", "comment"])
def test_what_is_too_long_for_jpeg_is_left_out(
    kind: str, arrow: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block beyond JPEG's 64 KB is dropped with a warning; the picture and the rest are there."""
    long = b"x" * 70_000
    if kind == "exif":
        tags = Image.Exif()
        tags[MAKE] = "x" * 70_000
        long = tags.tobytes()
    other = {"dpi": (300, 300), **({} if kind == "xmp" else {"xmp": BLOCKS["xmp"]})}
    image = decode(tmp_path, "a.jpg", arrow, **{kind: long}, **other)
    assert image.size == arrow.size
    assert image.info["dpi"] == (300, 300)
    label = {"exif": "EXIF", "xmp": "XMP", "comment": "the comment"}[kind]
    assert f"JPEG does not keep {label} of {len(long):,} bytes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.avif", "a.tif", "a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("block", [b"\x00", b"no TIFF at all", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_an_exif_block_that_is_none(
    name: str, block: bytes, arrow: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It costs itself, with a warning: no traceback, and the picture is there."""
    assert decode(tmp_path, name, arrow, exif=block).size == arrow.size
    assert re.search(r"does not keep EXIF of \d+ bytes", capsys.readouterr().err)


@pytest.mark.parametrize("verb", ["encode", "decode", "convert"])
def test_strip(verb: str, arrow: Image.Image, tmp_path: Path) -> None:
    """--strip leaves the colour profile alone; pixels are turned as EXIF would have turned them."""
    blocks = {**BLOCKS, "exif": exif(6)}
    if verb == "decode":
        data = pillow_cwic.encode(np.asarray(arrow), **blocks)
        (tmp_path / "x.cwic").write_bytes(data)
        command = ["decode", str(tmp_path / "x.cwic"), str(tmp_path / "x.png")]
    else:
        arrow.save(tmp_path / "x.jpg", **blocks)
        out = ["--out", f"{tmp_path}"] if verb == "convert" else [str(tmp_path / "x.cwic")]
        command = [verb, str(tmp_path / "x.jpg"), *out]
    assert main([*command, "--strip", "-q"]) == 0
    with Image.open(tmp_path / ("x.png" if verb == "decode" else "x.cwic")) as image:
        assert image.size == (32, 48)
        image.load()
        assert set(metadata_of(image)) == {"icc_profile"}


def test_grey_pictures_go_where_only_colour_goes(tmp_path: Path) -> None:
    """A format without grey gets it as colours, exactly."""
    grey = Image.linear_gradient("L")
    image = decode(tmp_path, "a.qoi", grey)
    assert image.mode == "RGB"
    expected = pillow_cwic.decode(tmp_path / "x.cwic")
    assert np.array_equal(np.asarray(image), np.stack([expected] * 3, 2))


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.jpg"])
def test_alpha_is_never_dropped_silently(
    name: str, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Formats that would drop it without a word, as Pillow's BMP does, are refused likewise."""
    photo.convert("RGBA").save(tmp_path / "x.cwic")
    assert main(["decode", str(tmp_path / "x.cwic"), str(tmp_path / name), "-q"]) == 1
    assert "cannot hold what is transparent: --background white" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_an_icon_does_not_shrink_a_picture(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow would write a smaller picture: refused."""
    photo.resize((300, 260)).save(tmp_path / "x.cwic")
    assert main(["decode", str(tmp_path / "x.cwic"), str(tmp_path / "a.ico"), "-q"]) == 1
    assert "of 300 x 260: choose another format" in capsys.readouterr().err
    assert not (tmp_path / "a.ico").exists()


def test_quality_and_options_of_the_output(cwic_file: Path, tmp_path: Path) -> None:
    """--quality and --option are Pillow's; without any, what .cwic kept is hardly lost again."""
    sizes = {}
    for name, options in {
        "default": [],
        "75": ["--quality", "75"],
        "95": ["--quality", "95"],
        "progressive": ["--option", "progressive=true"],
    }.items():
        out = tmp_path / f"{name}.jpg"
        assert main(["decode", str(cwic_file), str(out), "-q", *options]) == 0
        sizes[name] = out.stat().st_size
    assert sizes["default"] == sizes["95"] > sizes["75"]
    with Image.open(tmp_path / "progressive.jpg") as image:
        assert image.info["progressive"]


def test_what_pillow_refuses_names_the_option(
    cwic_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a plugin raises for a value that means nothing is a line, and leaves no file."""
    out = tmp_path / "x.jpg"
    assert main(["decode", str(cwic_file), str(out), "--option", "progressive=maybe"]) == 1
    said = capsys.readouterr().err
    assert "Pillow does not save it as JPEG, progressive='maybe': " in said
    assert not out.exists()


@pytest.mark.parametrize(("name", "size"), [("x.bmp", "72 x 88"), ("x.png", "88 x 72")])
def test_the_summary_has_the_size_that_is_written(
    name: str, size: str, photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where pixels are turned, because the format has no orientation, so are the figures."""
    photo.save(tmp_path / "x.cwic", exif=exif(6), lossless=True)
    assert main(["decode", str(tmp_path / "x.cwic"), str(tmp_path / name)]) == 0
    assert f"{name}: {size} pixels" in capsys.readouterr().err
