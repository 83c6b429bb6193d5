"""Pillow: what any plugin of its own promises, case by case; docs/situations.md has the table."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from io import BytesIO, RawIOBase
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, ImageSequence, UnidentifiedImageError

import pillow_cwic
from pillow_cwic.pillow_plugin import CwicImageFile
from pillow_cwic.weights import models

ORIENTATION = 0x0112
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)


def saved(image: Image.Image, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, "CWIC", **options)
    return file


def reopened(image: Image.Image, **options: object) -> Image.Image:
    return Image.open(saved(image, **options))


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
def test_the_class_refuses_other_formats(photo: Image.Image, format_name: str) -> None:
    """Asked directly, it raises the SyntaxError by which Pillow's plugins pass a file on."""
    file = BytesIO()
    photo.save(file, format_name)
    with pytest.raises(SyntaxError, match=r"not a \.cwic file"):
        CwicImageFile(file)
    file.seek(0)
    with Image.open(file) as image:
        assert image.format == format_name


def test_the_class_opens_its_own(cwic_file: Path) -> None:
    """A path and a file, without `Image.open`."""
    with CwicImageFile(cwic_file) as image, cwic_file.open("rb") as file:
        assert image.tobytes() == CwicImageFile(file).tobytes()
        assert CwicImageFile.format_description == "Content-weighted image compression"


@pytest.mark.parametrize(
    ("formats", "opens"), [(["CWIC"], True), (["cwic"], True), (["PNG", "AVIF"], False)]
)
def test_formats_that_are_allowed(cwic_file: Path, formats: list[str], opens: bool) -> None:
    """`formats=` of Image.open includes and excludes the format by its name."""
    if opens:
        with Image.open(cwic_file, formats=formats) as image:
            assert image.format == "CWIC"
    else:
        with pytest.raises(UnidentifiedImageError):
            Image.open(cwic_file, formats=formats)


def test_an_open_file_can_be_opened_again(cwic_file: Path) -> None:
    """Two images of one file of the caller's, one after the other and at once."""
    with cwic_file.open("rb") as file:
        first, second = Image.open(file), Image.open(file)
        first.load()
        second.load()
        with Image.open(file) as third:
            assert first.tobytes() == second.tobytes() == third.tobytes()
        assert not file.closed


@pytest.mark.parametrize("name", ["UPPER.CWIC", "bytes.cwic", "ünï code.cwic"])
def test_names_of_any_kind(photo: Image.Image, tmp_path: Path, name: str) -> None:
    """An extension in capitals, a path of bytes, other letters."""
    path = os.fsencode(tmp_path / name) if name.startswith("bytes") else tmp_path / name
    photo.save(path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("CWIC", photo.size)


@pytest.mark.parametrize("use", ["load", "getpixel", "tobytes", "getexif"])
def test_a_closed_image(cwic_file: Path, use: str) -> None:
    """Pixels of it are a ValueError, in Pillow's words; what was read stays."""
    image = Image.open(cwic_file)
    image.close()
    image.close()  # again is no error
    if use == "getexif":
        assert dict(image.getexif()) == {}
        return
    arguments = [(0, 0)] if use == "getpixel" else []
    with pytest.raises(ValueError, match="Operation on closed image"):
        getattr(image, use)(*arguments)


def test_closing_after_loading_is_quiet(cwic_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No error is swallowed into Pillow's log."""
    with caplog.at_level(logging.DEBUG):
        image = Image.open(cwic_file)
        image.load()
        image.close()
    assert caplog.records == []


def test_a_with_block_closes_the_file(cwic_file: Path) -> None:
    """Also where no pixel was read; a file of the caller's stays open."""
    with Image.open(cwic_file) as image:
        number = image.fp.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with cwic_file.open("rb") as file:
        with Image.open(file):
            pass
        assert not file.closed


def test_no_resource_warning(cwic_file: Path, tmp_path: Path) -> None:
    """Opening, saving as another file and closing leave nothing open."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(cwic_file) as image:
            image.save(tmp_path / "again.cwic")
        Image.open(cwic_file).load()


@pytest.mark.parametrize("spoil", ["load", "copy", "pickle"])
def test_verify_comes_first(cwic_file: Path, spoil: str) -> None:
    """Once the pixels are there no file is left to check: a RuntimeError, as PNG has it."""
    image = Image.open(cwic_file)
    image.load()
    image = {"load": image, "copy": image.copy(), "pickle": pickle.loads(pickle.dumps(image))}[
        spoil
    ]
    if spoil == "copy":
        assert image.verify() is None  # a plain image of Pillow's: nothing to check
        return
    with pytest.raises(RuntimeError, match="directly after open"):
        image.verify()


# --- frames ---------------------------------------------------------------------------------------


def test_the_one_frame(cwic_file: Path) -> None:
    """tell is 0, seek(0) is welcome before and after loading, an iterator has one picture."""
    with Image.open(cwic_file) as image:
        image.seek(0)
        pixels = image.tobytes()
        image.seek(0)
        assert (image.tell(), image.tobytes()) == (0, pixels)
        assert [frame.tobytes() for frame in ImageSequence.Iterator(image)] == [pixels]
        assert (getattr(image, "n_frames", 1), getattr(image, "is_animated", False)) == (1, False)


@pytest.mark.parametrize("frame", [-1, 1, 42])
def test_other_frames(cwic_file: Path, frame: int) -> None:
    """An EOFError, and the picture can be read as before."""
    with Image.open(cwic_file) as image:
        with pytest.raises(EOFError):
            image.seek(frame)
        assert image.tell() == 0
        assert image.size == image.copy().size


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_frame_of_an_animation(frame: int) -> None:
    """`save` without `save_all` takes the frame that an animation stands at."""
    colours = ["red", "lime", "blue"]
    frames = [Image.new("RGB", (16, 16), colour) for colour in colours]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with Image.open(file) as animation:
        animation.seek(frame)
        found = np.asarray(reopened(animation).convert("RGB")).mean((0, 1))
    assert np.abs(found - np.asarray(frames[frame]).mean((0, 1))).max() < 8


# --- pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(0, 0), (5, 0), (0, 5)])
def test_no_pixels(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    """A picture without a pixel is a ValueError, and leaves no file."""
    with pytest.raises(ValueError, match="at least one pixel"):
        Image.new(mode, size).save(tmp_path / "x.cwic")
    assert list(tmp_path.iterdir()) == []


def test_pixels_can_be_set(cwic_file: Path, cwic_bytes: bytes) -> None:
    """putpixel, paste and load()[x, y] change the image, not the file."""
    with Image.open(cwic_file) as image:
        image.putpixel((0, 0), (1, 2, 3))
        image.load()[1, 0] = (4, 5, 6)
        image.paste((7, 8, 9), (2, 0, 3, 1))
        assert [image.getpixel((x, 0)) for x in range(3)] == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert cwic_file.read_bytes() == cwic_bytes


@pytest.mark.parametrize("colour", [(0, 0, 0, 0), (255, 255, 255, 255), (200, 0, 90, 1)])
def test_alpha_of_one_value(colour: tuple[int, ...]) -> None:
    """Pictures that are wholly transparent, opaque, or nearly transparent keep their alpha."""
    back = reopened(Image.new("RGBA", (10, 10), colour))
    assert (back.mode, back.getchannel("A").getcolors()) == ("RGBA", [(100, colour[3])])


@pytest.mark.parametrize("transparency", [0, 3, bytes([0, 90, 255, 128])])
def test_transparency_of_a_palette(photo: Image.Image, transparency: int | bytes) -> None:
    """Of a PNG with one transparent entry, or an alpha for each: the same alpha comes back."""
    file = BytesIO()
    photo.quantize(4).save(file, "PNG", transparency=transparency)
    with Image.open(file) as image:
        assert image.mode == "P"
        back = reopened(image, quality=1.0)
        assert back.getchannel("A").tobytes() == image.convert("RGBA").getchannel("A").tobytes()


def test_background_of_a_gif(tmp_path: Path) -> None:
    """A GIF with a background colour keeps its colours by way of .cwic to another GIF."""
    gif = Image.new("RGB", (32, 32), (40, 90, 200)).quantize(4)
    gif.save(tmp_path / "a.gif", background=1)
    with Image.open(tmp_path / "a.gif") as image:
        image.save(tmp_path / "b.cwic")
    with Image.open(tmp_path / "b.cwic") as image:
        image.save(tmp_path / "c.gif")
    with Image.open(tmp_path / "c.gif") as image:
        difference = np.subtract(image.convert("RGB").getpixel((1, 1)), (40, 90, 200))
    assert np.abs(difference).sum() <= 6


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_blocks_of_any_size(
    cwic_file: Path, cwic_bytes: bytes, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Pillow's sizes of blocks change no pixel."""
    monkeypatch.setattr(ImageFile, "MAXBLOCK", block)
    monkeypatch.setattr(ImageFile, "SAFEBLOCK", block)
    with Image.open(cwic_file) as image:
        assert image.tobytes() == pillow_cwic.decode(cwic_bytes).tobytes()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(photo: Image.Image, tmp_path: Path, protocol: int, mode: str) -> None:
    """By every protocol, as bytes and by a file, an opened image is itself again."""
    path = tmp_path / "x.cwic"
    photo.convert(mode).save(path, exif=exif(6), lossless=True)
    with Image.open(path) as image, (tmp_path / "x.pickle").open("w+b") as file:
        pickle.dump(image, file, protocol)
        file.seek(0)
        for twin in (pickle.loads(pickle.dumps(image, protocol)), pickle.load(file)):
            assert twin == image
            assert (twin.filename, twin.tell(), twin.format) == (str(path), 0, "CWIC")
            assert twin.getexif()[ORIENTATION] == 6


@pytest.mark.parametrize("options", [{"quality": 0.3}, {"lossless": True}])
def test_loading_again_takes_no_memory(
    face: Image.Image, tmp_path: Path, fresh_python: Callable[..., str], options: dict[str, object]
) -> None:
    """Memory stands still while a picture is opened and loaded again and again."""
    pytest.importorskip("resource", reason="needs getrusage, which POSIX has")
    path = tmp_path / "x.cwic"
    face.save(path, **options)
    code = """if True:
        import resource, sys, pillow_cwic
        from PIL import Image
        def load(count):
            for _ in range(count):
                with Image.open(sys.argv[1]) as image:
                    image.load()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(-load(5) + load(20))"""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    assert int(fresh_python(code, path)) * unit < 10 * len(face.tobytes())


# --- pieces ---------------------------------------------------------------------------------------


def test_a_parser_waits_for_more(cwic_bytes: bytes) -> None:
    """It has no image before the end, and takes bytes only."""
    parser = ImageFile.Parser()
    with pytest.raises(TypeError):
        parser.feed(1)  # type: ignore[arg-type]
    parser = ImageFile.Parser()
    parser.feed(cwic_bytes[:40])
    assert parser.image is None
    parser.feed(cwic_bytes[40:])
    assert parser.close().size == (88, 72)


# --- saving ---------------------------------------------------------------------------------------


class Reluctant(RawIOBase):
    """A file without a buffer that takes at most 50 bytes at once, or none at all."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.data = b""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int | None:
        """Take some; None for none, as files that must not wait."""
        if self.most is not None:
            self.data += bytes(data[: self.most])
            return min(self.most, len(data))
        return None


def test_a_file_that_takes_less_gets_all(photo: Image.Image, cwic_bytes: bytes) -> None:
    """Unbuffered files may take part of what they are given: the rest follows."""
    file = Reluctant(50)
    photo.save(file, "CWIC", quality=0.3)
    assert file.data == cwic_bytes


def test_a_file_that_takes_nothing_is_an_error(photo: Image.Image) -> None:
    """As a full pipe that must not wait: an error that counts what is left, no success."""
    with pytest.raises(BlockingIOError, match=r"\d+ bytes are left"):
        photo.save(Reluctant(None), "CWIC")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exif", 3),
        ("xmp", 3.5),
        ("icc_profile", "sRGB"),
        ("comment", 5),
        ("lossless", 1),
        ("progress", 1),
    ],
)
def test_values_of_another_type_are_named(photo: Image.Image, name: str, value: object) -> None:
    """A TypeError says which option, and what was found."""
    with pytest.raises(TypeError, match=f"^{name} is .*found "):
        saved(photo, **{name: value})


@pytest.mark.parametrize("effort", [-1, 1.5, 101, "fast", True])
def test_effort_that_is_none(photo: Image.Image, effort: object) -> None:
    """A ValueError has the range and the value."""
    with pytest.raises(ValueError, match=f"effort is a whole .*found {effort!r}"):
        saved(photo, effort=effort)


def test_a_model_by_any_of_its_names(photo: Image.Image, cwic_bytes: bytes) -> None:
    """The default by its name and by its id makes the same file."""
    info = pillow_cwic.model_info()
    for name in (info.name, info.id, None):
        assert saved(photo, quality=0.3, model=name).getvalue() == cwic_bytes
    assert models.quality_of_file(pillow_cwic.read_header(cwic_bytes)) == 0.3


@pytest.mark.parametrize(
    "option", ["subsampling", "range", "speed", "advanced", "codec", "method", "minimize_size"]
)
def test_options_of_others_are_named(photo: Image.Image, option: str) -> None:
    """What other plugins know and this one does not is named in a warning; the file is the same."""
    with pytest.warns(UserWarning, match=f"ignores {option}; it knows"):
        data = saved(photo, **{option: 1}).getvalue()
    assert data == saved(photo).getvalue()


# --- metadata -------------------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(photo: Image.Image, orientation: int, as_bytes: bool) -> None:
    """Every orientation comes back, from bytes and from an object, and through a second save.

    Turned by it, picture and tag are upright.
    """
    tags = exif(orientation)
    back = reopened(photo, exif=tags.tobytes() if as_bytes else tags, lossless=True)
    assert back.info["exif"] == tags.tobytes()
    again = reopened(back, exif=back.getexif(), lossless=True)
    assert again.getexif()[ORIENTATION] == orientation
    upright = ImageOps.exif_transpose(again)
    assert upright.size == (photo.size if orientation < 5 else photo.size[::-1])
    assert upright.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_xmp(photo: Image.Image, orientation: int) -> None:
    """Where only XMP has it, Pillow reads it there."""
    packet = XMP.format(orientation)
    back = reopened(photo, xmp=packet, lossless=True)
    assert back.info["xmp"] == packet.encode()
    assert back.getexif()[ORIENTATION] == orientation


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_exif_with_and_without_its_prefix(photo: Image.Image, prefix: bytes) -> None:
    """Both blocks are kept as they are, and both are read."""
    tags = Image.Exif()
    tags[0x0110] = "A model"
    block = prefix + tags.tobytes().removeprefix(b"Exif\0\0")
    back = reopened(photo, exif=block, lossless=True)
    assert back.info["exif"] == block
    assert back.getexif()[0x0110] == "A model"


def test_nothing_is_invented(photo: Image.Image) -> None:
    """A picture without metadata is opened without any, twice over."""
    for back in (reopened(photo), reopened(reopened(photo))):
        assert back.info.keys() == {"model", "cwic_quality"}
        assert dict(back.getexif()) == {}


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "JPEG2000"])
def test_info_harms_no_other_plugin(
    photo: Image.Image, face: Image.Image, format_name: str
) -> None:
    """`save(..., **image.info)` of an opened .cwic gives the file that `save` gives without."""
    assert saved(face, quality=0.2).tell()
    image = reopened(photo, quality=0.2)
    with_info, without = BytesIO(), BytesIO()
    image.save(with_info, format_name, **image.info)
    image.save(without, format_name)
    assert with_info.getvalue() == without.getvalue()
