"""Pillow: a .cwic file opens, saves and fails like any other image format."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms, ImageFile, UnidentifiedImageError

import pillow_cwic
from pillow_cwic import CwicError, FormatError
from pillow_cwic.format import container
from pillow_cwic.metrics import pictures


def saved(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "CWIC", **options)
    return file.getvalue()


def reopened(image: Image.Image, **options: object) -> Image.Image:
    return Image.open(BytesIO(saved(image, **options)))


# --- opening --------------------------------------------------------------------------------------


def test_open_reads_the_header_only(cwic_file: Path, fresh_python: Callable[..., str]) -> None:
    """Image.open in a fresh process knows size, mode, format and quality without loading torch."""
    code = """if True:
        import sys, pillow_cwic
        from PIL import Image
        with Image.open(sys.argv[1]) as im:
            print(im.format, im.size, im.mode, im.info["cwic_quality"], im.get_format_mimetype())
        print("torch" in sys.modules)"""
    assert fresh_python(code, cwic_file) == "CWIC (88, 72) RGB 0.3 image/x-cwic\nFalse\n"


def test_load_without_importing_the_package_by_name(cwic_file: Path, photo: Image.Image) -> None:
    """Path, file object and BytesIO open alike, and decode to the pixels of pillow_cwic.decode."""
    expected = pillow_cwic.decode(cwic_file.read_bytes())
    with cwic_file.open("rb") as file:
        for source in (cwic_file, str(cwic_file), file, BytesIO(cwic_file.read_bytes())):
            with Image.open(source) as image:
                assert np.array_equal(np.asarray(image), expected)
    assert pictures.psnr(np.asarray(photo), expected) > 24


def test_info_names_the_model(cwic_bytes: bytes) -> None:
    """info has the quality that the file was saved with, and the model's id; nothing else."""
    header = pillow_cwic.read_header(cwic_bytes)
    expected = {"cwic_quality": 0.3, "model": header.model_id}
    assert Image.open(BytesIO(cwic_bytes)).info == expected


def test_threads_share_an_image(cwic_file: Path) -> None:
    """Eight threads that load one image at once get the same pixels.

    It is decoded without an error.
    """
    with Image.open(cwic_file) as image:
        found: list[bytes] = []
        start = threading.Barrier(8)

        def work() -> None:
            start.wait()
            found.append(image.tobytes())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert set(found) == {pillow_cwic.decode(cwic_file.read_bytes()).tobytes()}


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda im: pickle.loads(pickle.dumps(im))]
)
def test_copies(cwic_file: Path, duplicate: Callable[[Image.Image], Image.Image]) -> None:
    """An image that was not loaded yet can be copied, deep-copied and pickled.

    The copy outlives the file.
    """
    with Image.open(cwic_file) as image:
        twin = duplicate(image)
        expected = image.tobytes()
    cwic_file.unlink()
    assert twin.mode == "RGB"
    assert twin.info["model"] == image.info["model"]
    assert twin.tobytes() == expected


@pytest.mark.parametrize("step", [1, 7, 500, 10**6])
def test_parser(cwic_bytes: bytes, step: int) -> None:
    """ImageFile.Parser takes the file in pieces of any size."""
    with ImageFile.Parser() as parser:
        for start in range(0, len(cwic_bytes), step):
            parser.feed(cwic_bytes[start : start + step])
        image = parser.close()
    assert image.tobytes() == pillow_cwic.decode(cwic_bytes).tobytes()


def test_parser_without_the_end(cwic_bytes: bytes) -> None:
    """A parser that is closed too early raises OSError, no half picture."""
    parser = ImageFile.Parser()
    parser.feed(cwic_bytes[: len(cwic_bytes) // 2])
    with pytest.raises(OSError):
        parser.close()


def test_loading_after_closing(cwic_file: Path) -> None:
    """Pixels of a closed image are refused in Pillow's words."""
    with Image.open(cwic_file) as image:
        pass
    with pytest.raises(ValueError, match="Operation on closed image"):
        image.load()


def test_file_is_closed_after_loading(cwic_file: Path) -> None:
    """A file that Pillow opened is closed once the pixels are there.

    An open file of the caller's is left alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        image = Image.open(cwic_file)
        opened = image.fp
        image.load()
        assert opened.closed
    with cwic_file.open("rb") as file:
        Image.open(file).load()
        assert not file.closed


def test_saving_over_itself(cwic_file: Path) -> None:
    """An image can be saved to the file that it was opened from."""
    with Image.open(cwic_file) as image:
        image.save(cwic_file, quality=0.9)
    with Image.open(cwic_file) as image:
        assert image.info["cwic_quality"] == 0.9


def test_decompression_bomb(cwic_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limits on pixels hold: a warning above one, an error above twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 88 * 72 - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(cwic_file).close()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 88 * 36 - 1)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(cwic_file)


# --- bad files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\x89CWIC", b"\x89CWIC\r\n\x1b" + bytes(80), b"GIF89a.cwic"]
)
def test_not_a_cwic(content: bytes) -> None:
    """What does not start with the signature is Pillow's UnidentifiedImageError."""
    with pytest.raises(UnidentifiedImageError):
        Image.open(BytesIO(content))


def test_truncated_anywhere(cwic_bytes: bytes) -> None:
    """A file cut anywhere behind the signature is a CwicError, never a picture.

    From open or from load.
    """
    for length in range(8, len(cwic_bytes), 11):
        with pytest.raises(CwicError):
            Image.open(BytesIO(cwic_bytes[:length])).load()


def test_flipped_byte_is_named(cwic_bytes: bytes) -> None:
    """A changed byte in the pixels' section opens, and fails in load with the section's name.

    And again.
    """
    damaged = bytearray(cwic_bytes)
    damaged[-20] ^= 1
    image = Image.open(BytesIO(damaged))
    for _ in range(2):
        with pytest.raises(FormatError, match="TILE"):
            image.load()


def test_verify(cwic_bytes: bytes) -> None:
    """verify() checks every section without decoding."""
    Image.open(BytesIO(cwic_bytes)).verify()
    with pytest.raises(FormatError, match="TILE"):
        Image.open(BytesIO(cwic_bytes[:-1] + b"\0\0")).verify()


def test_load_truncated_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With LOAD_TRUNCATED_IMAGES the intact tiles of a cut file are shown.

    A warning names the lost one.
    """
    flat = Image.new("RGB", (1100, 40), (200, 120, 40))  # two tiles: 1024 and 76 pixels wide
    flat.save(tmp_path / "whole.cwic", quality=0.2)
    path = tmp_path / "cut.cwic"
    path.write_bytes((tmp_path / "whole.cwic").read_bytes()[:-6])
    with pytest.raises(FormatError), Image.open(path) as image:
        image.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(path) as image, pytest.warns(UserWarning, match=r"cut\.cwic is damaged.*TILE"):
        shown = np.asarray(image)
    with Image.open(tmp_path / "whole.cwic") as image:
        whole = np.asarray(image)
    assert np.array_equal(shown[:, :800], whole[:, :800])
    assert not np.array_equal(shown[:, 1024:], whole[:, 1024:])


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(88, 72), (1, 1), (3, 17), (64, 9)])
def test_round_trip(photo: Image.Image, mode: str, size: tuple[int, int]) -> None:
    """Each mode comes back in its mode and size; alpha exactly, colours closely."""
    image = photo.resize(size).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    back = reopened(image, quality=0.9)
    assert (back.mode, back.size) == (mode, size)
    if mode.endswith("A"):
        assert back.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    colours = ("RGB", "L")[mode.startswith("L")]
    assert pictures.psnr(np.asarray(image.convert(colours)), np.asarray(back.convert(colours))) > 20


def palette(photo: Image.Image) -> Image.Image:
    return photo.quantize(16)


def transparent_palette(photo: Image.Image) -> Image.Image:
    image = photo.quantize(16)
    image.info["transparency"] = 3
    return image


def transparent_colour(mode: str) -> Callable[[Image.Image], Image.Image]:
    def make(photo: Image.Image) -> Image.Image:
        image = photo.convert(mode)
        image.info["transparency"] = image.getpixel((5, 5))
        return image

    return make


def converted(mode: str) -> Callable[[Image.Image], Image.Image]:
    return lambda photo: photo.convert(
        "RGBA" if mode == "RGBa" else "LA" if mode == "La" else mode
    ).convert(mode)


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (converted("1"), "L"),
        (palette, "RGB"),
        (transparent_palette, "RGBA"),
        (transparent_colour("RGB"), "RGBA"),
        (transparent_colour("L"), "LA"),
        (transparent_colour("1"), "LA"),
        (converted("PA"), "RGBA"),
        (converted("La"), "LA"),
        (converted("RGBa"), "RGBA"),
        (converted("RGBX"), "RGB"),
    ],
)
def test_exact_conversions(
    photo: Image.Image, make: Callable[[Image.Image], Image.Image], mode: str
) -> None:
    """Modes that convert without loss are saved as what they convert to, without a word."""
    image = make(photo)
    assert saved(image) == saved(image.convert(mode))
    assert Image.open(BytesIO(saved(image))).mode == mode


# --- options --------------------------------------------------------------------------------------


def test_quality_is_a_dial(photo: Image.Image) -> None:
    """More quality is more bytes and less error, from 0 to 1; 0.4 is the default."""
    files = [saved(photo, quality=q) for q in (0, 0.2, 0.4, 0.7, 1)]
    sizes = [len(file) for file in files]
    errors = [-pictures.psnr(np.asarray(photo), pillow_cwic.decode(file)) for file in files]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert saved(photo) == files[2]


def test_max_bytes(photo: Image.Image) -> None:
    """max_bytes counts the whole file, metadata too, and takes the best quality that fits."""
    comment = b"x" * 400
    limit = len(saved(photo, quality=31.5 / 63, comment=comment))
    data = saved(photo, max_bytes=limit, comment=comment)
    index = pillow_cwic.read_header(data).quality_index
    assert len(data) <= limit < len(saved(photo, quality=(index + 1) / 63, comment=comment))


def test_importance_moves_bits(photo: Image.Image) -> None:
    """Where the mask is light the picture comes out better than where it is dark.

    Images and arrays do the same.
    """
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (0, 0, 44, 72))
    data = saved(photo, quality=0.5, importance=mask)
    assert data == saved(photo, quality=0.5, importance=np.asarray(mask))

    def errors(file: bytes) -> np.ndarray:
        return np.abs(
            pillow_cwic.decode(file).astype(float) - np.asarray(photo.convert("RGB"))
        ).mean((0, 2))

    change = errors(data) / errors(saved(photo, quality=0.5))  # of every column
    assert change[:40].mean() < 0.95
    assert change[48:].mean() > 1.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quality": 75}, ValueError, r"quality is 0\.\.1, found 75; did you mean 0\.75\?"),
        ({"quality": -0.1}, ValueError, r"quality is 0\.\.1, found -0\.1"),
        ({"quality": float("nan")}, ValueError, r"quality is 0\.\.1, found nan"),
        ({"quality": "high"}, ValueError, "quality is a number in 0..1, found 'high'"),
        (
            {"quality": 0.5, "bpp": 0.2},
            ValueError,
            "give one of quality, bpp and max_bytes, found quality and bpp",
        ),
        ({"bpp": 0}, ValueError, "bpp is .* above 0.*found 0"),
        ({"max_bytes": -3}, ValueError, "max_bytes is .* above 0.*found -3"),
        (
            {"max_bytes": 40},
            ValueError,
            r"max_bytes = 40: the smallest file of this picture has \d+ bytes",
        ),
        ({"importance": np.full((4, 4), 2.0)}, ValueError, "importance is .*found float64"),
        ({"model": "no-such-model"}, pillow_cwic.WeightsError, "no-such-model"),
        ({"append": True}, ValueError, "a .cwic file holds one picture"),
    ],
)
def test_wrong_options(
    photo: Image.Image, options: dict[str, object], error: type[Exception], message: str
) -> None:
    """A wrong option is an error that names it, its range and the value found."""
    with pytest.raises(error, match=message):
        saved(photo, **options)


def test_unknown_options_are_named(photo: Image.Image) -> None:
    """Options of other formats do no harm but are not swallowed either.

    A warning names them, at the caller's line.
    """
    with pytest.warns(
        UserWarning, match="saving as CWIC ignores optimize, progressive; it knows quality, bpp"
    ) as caught:
        photo.save(BytesIO(), "CWIC", optimize=True, progressive=True)
    assert caught[0].filename == __file__


def test_several_frames_are_refused(photo: Image.Image) -> None:
    """save_all with several pictures is a ValueError; with one it is an ordinary save."""
    assert saved(photo, save_all=True) == saved(photo)
    with pytest.raises(ValueError, match=r"a \.cwic file holds one picture, found 3"):
        saved(photo, save_all=True, append_images=[photo, photo])
    with pytest.raises(ValueError, match="found 2"):
        saved(photo, append_images=[photo])


# --- metadata -------------------------------------------------------------------------------------

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation
    exif[0x010F] = "A camera"
    return exif


def test_metadata_byte_for_byte(photo: Image.Image) -> None:
    """ICC profile, EXIF, XMP, resolution and comment come back exactly as given."""
    given = {
        "icc_profile": ICC,
        "exif": exif_block().tobytes(),
        "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        "dpi": (300.0, 299.5),
        "comment": bytes(range(256)),
    }
    back = reopened(photo, **given)
    assert {name: back.info[name] for name in given} == given
    assert back.getexif()[0x0112] == 6
    assert back.getexif()[0x010F] == "A camera"


def test_metadata_as_objects(photo: Image.Image) -> None:
    """An Image.Exif, text and Pillow's fractions are taken, too."""
    from PIL.TiffImagePlugin import IFDRational

    dpi = (IFDRational(144, 2), 72)
    back = reopened(photo, exif=exif_block(), xmp="<ä/>", comment="Grüße", dpi=dpi)
    assert back.info["exif"] == exif_block().tobytes()
    assert back.info["xmp"] == "<ä/>".encode()
    assert back.info["comment"] == "Grüße".encode()
    assert back.info["dpi"] == (72.0, 72.0)


def test_what_stays_with_an_image(photo: Image.Image) -> None:
    """An ICC profile and a comment stay with an image that is saved again.

    Other blocks are stored when asked for. So it is with Pillow's PNG and JPEG. None or b"" leaves
    a block out.
    """
    first = reopened(
        photo, icc_profile=ICC, comment=b"hello", exif=exif_block(), xmp=b"<x/>", dpi=(72, 72)
    )
    again = reopened(first)
    assert again.info["icc_profile"] == ICC
    assert again.info["comment"] == b"hello"
    assert not {"exif", "xmp", "dpi"} & again.info.keys()
    bare = reopened(first, icc_profile=None, comment=b"")
    assert not {"icc_profile", "comment"} & bare.info.keys()


def test_reading_metadata_decodes_nothing(
    photo: Image.Image, fresh_python: Callable[..., str], tmp_path: Path
) -> None:
    """getexif() on an opened file needs no pixels and loads no torch."""
    path = tmp_path / "x.cwic"
    photo.save(path, exif=exif_block())
    code = """if True:
        import sys, pillow_cwic
        from PIL import Image
        with Image.open(sys.argv[1]) as im:
            print(im.getexif()[0x0112], "torch" in sys.modules)"""
    assert fresh_python(code, path) == "6 False\n"


# --- failed saves ---------------------------------------------------------------------------------

GONE = "was emptied when it was opened for saving; what was in it is gone"


def test_failed_save_of_an_existing_file_says_so(photo: Image.Image, tmp_path: Path) -> None:
    """Pillow empties a file before the encoder is asked.

    The error's own message says that its content is gone.
    """
    path = tmp_path / "precious.cwic"
    path.write_bytes(b"precious")
    os.utime(path, (0, 0))  # written a while ago
    with pytest.raises(ValueError, match=GONE) as caught:
        photo.save(path, quality=75)
    assert str(caught.value).startswith("quality is 0..1, found 75")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b""


def test_failed_save_of_a_new_file_leaves_none(photo: Image.Image, tmp_path: Path) -> None:
    """Nothing was lost when the file is new: no such message, and no empty file stays behind."""
    path = tmp_path / "new.cwic"
    with pytest.raises(ValueError, match="found 75") as caught:
        photo.save(path, quality=75)
    assert GONE not in str(caught.value)
    assert not path.exists()


def test_failed_save_into_memory(photo: Image.Image) -> None:
    """A BytesIO was not emptied by anybody."""
    with pytest.raises(ValueError, match="found 75") as caught:
        photo.save(BytesIO(b"precious"), "CWIC", quality=75)
    assert GONE not in str(caught.value)


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full"
)
def test_full_disk(photo: Image.Image) -> None:
    """A disk that fills up is the system's own OSError."""
    with (
        pytest.raises(OSError, match="No space left on device"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        photo.save(file, "CWIC")


def test_pillow_pipeline(cwic_file: Path, tmp_path: Path) -> None:
    """What pipelines do with an image works: thumbnail, convert, crop, compare, save as PNG."""
    with Image.open(cwic_file) as image:
        image.convert("L").crop((0, 0, 8, 8)).save(tmp_path / "a.png")
        image.thumbnail((44, 44))
        assert image.size == (44, 36)
    with Image.open(cwic_file) as image:
        image.save(tmp_path / "b.png")
        with Image.open(tmp_path / "b.png") as back:
            assert ImageChops.difference(image, back).getbbox() is None


def test_header_is_exported(cwic_file: Path) -> None:
    """read_header gives the container's Header, under its public name."""
    header = pillow_cwic.read_header(cwic_file)
    assert isinstance(header, pillow_cwic.Header)
    assert pillow_cwic.Header is container.Header
    assert (header.size, header.mode) == ((88, 72), "RGB")
