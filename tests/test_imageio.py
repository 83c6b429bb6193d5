"""imageio: .cwic through v3 and v2, with paths, bytes and file objects."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imageio.v2 as iio2
import imageio.v3 as iio
import numpy as np
import pytest
from closeness import assert_close
from PIL import Image, ImageOps

import pillow_cwic
from pillow_cwic import FormatError
from pillow_cwic.metrics import pictures


@pytest.fixture(scope="module")
def array(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo)


# --- reading --------------------------------------------------------------------------------------


def test_imread_takes_any_source(cwic_file: Path, cwic_bytes: bytes) -> None:
    """A path, text, bytes, a BytesIO and an open file decode to what pillow_cwic.decode gives."""
    expected = pillow_cwic.decode(cwic_bytes)
    with cwic_file.open("rb") as file:
        for source in (cwic_file, str(cwic_file), cwic_bytes, BytesIO(cwic_bytes), file):
            assert np.array_equal(iio.imread(source), expected)
            assert not isinstance(source, BytesIO) or not source.closed
        file.seek(0)
        assert np.array_equal(iio.imread(file, extension=".cwic"), expected)
    assert np.array_equal(iio.imread(cwic_bytes, extension=".cwic"), expected)
    assert np.array_equal(iio.imread(cwic_bytes, plugin="cwic"), expected)


@pytest.mark.parametrize(
    ("index", "shape"), [(None, (72, 88, 3)), (0, (72, 88, 3)), (..., (1, 72, 88, 3))]
)
def test_index(cwic_file: Path, index: object, shape: tuple[int, ...]) -> None:
    """The one picture is index 0 and the default.

    `...` is a batch of one, in pixels and in properties.
    """
    assert iio.imread(cwic_file, index=index).shape == shape
    properties = iio.improps(cwic_file, index=index)
    assert properties.shape == shape
    assert properties.dtype == np.uint8
    assert properties.is_batch == (index is ...)
    assert properties.n_images == (1 if index is ... else None)


@pytest.mark.parametrize("index", [1, -1, True, "0"])
def test_bad_index(cwic_file: Path, index: object) -> None:
    """Any other index is a ValueError that names it, for pixels, properties and metadata."""
    for read in (iio.imread, iio.improps, iio.immeta):
        with pytest.raises(ValueError, match=f"index must be 0, None or .*found {index!r}"):
            read(cwic_file, index=index)


def test_imiter(cwic_file: Path) -> None:
    """imiter yields the one picture, with the same options as imread."""
    pictures = list(iio.imiter(cwic_file, region=(8, 16, 40, 40)))
    assert [picture.shape for picture in pictures] == [(24, 32, 3)]


def test_region(cwic_file: Path) -> None:
    """region=(left, upper, right, lower) gives the pixels of a crop, ±1.

    Outside the picture it is refused.
    """
    whole, part = iio.imread(cwic_file), iio.imread(cwic_file, region=(13, 5, 50, 61))
    assert part.shape == (56, 37, 3)
    assert_close(part, whole[5:61, 13:50])
    with pytest.raises(ValueError, match="region"):
        iio.imread(cwic_file, region=(0, 0, 89, 72))


def test_mode_and_device(cwic_file: Path) -> None:
    """mode converts as Pillow does; device is passed on."""
    whole = iio.imread(cwic_file, device="cpu")
    grey = iio.imread(cwic_file, mode="L")
    assert np.array_equal(grey, np.asarray(Image.fromarray(whole).convert("L")))


def test_pixels_are_writable(cwic_file: Path) -> None:
    """The array belongs to the caller, who may write into it."""
    iio.imread(cwic_file)[0, 0] = 0
    iio.imread(cwic_file, mode="L")[0, 0] = 0


@pytest.mark.parametrize(("channels", "mode"), [(None, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_properties_agree_with_pixels(channels: int | None, mode: str) -> None:
    """Shape and dtype are known from the header for every mode, and are those of the pixels."""
    shape = (11, 13) + ((channels,) if channels else ())
    data = pillow_cwic.encode(np.full(shape, 90, np.uint8))
    assert iio.immeta(data, extension=".cwic")["mode"] == mode
    properties, picture = iio.improps(data, extension=".cwic"), iio.imread(data, extension=".cwic")
    assert (
        (properties.shape, properties.dtype) == (picture.shape, picture.dtype) == (shape, np.uint8)
    )


def test_metadata(photo: Image.Image) -> None:
    """immeta has the header's figures, the blocks as stored and EXIF tags by name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    photo.save(file, "CWIC", quality=0.3, exif=exif, comment=b"hello", dpi=(300, 300))
    meta = iio.immeta(file.getvalue(), extension=".cwic")
    header = pillow_cwic.read_header(file.getvalue())
    assert meta == {
        "Orientation": 6,
        "mode": "RGB",
        "shape": (88, 72),
        "quality": 0.3,
        "lossless": False,
        "quality_index": 19,
        "model": header.model_id,
        "tile_size": 1024,
        "version": 1,
        "exif": exif.tobytes(),
        "comment": b"hello",
        "dpi": (300.0, 300.0),
    }


def test_broken_exif_is_kept_as_bytes(array: np.ndarray) -> None:
    """A block that is not EXIF is still given back, and stops nobody from reading the rest."""
    data = pillow_cwic.encode(array, exif=b"not exif at all")
    assert iio.immeta(data, extension=".cwic")["exif"] == b"not exif at all"


def test_reading_properties_loads_no_torch(
    cwic_file: Path, fresh_python: Callable[..., str]
) -> None:
    """improps and immeta in a fresh process decode nothing."""
    code = """if True:
        import sys, pillow_cwic
        import imageio.v3 as iio
        print(iio.improps(sys.argv[1]).shape, iio.immeta(sys.argv[1])["mode"])
        print("torch" in sys.modules)"""
    assert fresh_python(code, cwic_file) == "(72, 88, 3) RGB\nFalse\n"


def test_damaged_file(cwic_bytes: bytes, tmp_path: Path) -> None:
    """A damaged file is the codec's own error, not 'could not find a backend'.

    It names the section.
    """
    path = tmp_path / "damaged.cwic"
    path.write_bytes(cwic_bytes[:-4])
    with pytest.raises(FormatError, match="TILE"):
        iio.imread(path)


def test_other_format_under_our_name(photo: Image.Image, tmp_path: Path) -> None:
    """A PNG that is called .cwic is read by whoever can, from a file and from bytes."""
    path = tmp_path / "really.cwic"
    photo.save(path, "PNG")
    assert np.array_equal(iio.imread(path), np.asarray(photo))
    assert np.array_equal(iio.imread(path.read_bytes(), extension=".cwic"), np.asarray(photo))


# --- writing --------------------------------------------------------------------------------------


def test_imwrite_targets(array: np.ndarray, cwic_bytes: bytes, tmp_path: Path) -> None:
    """A path, "<bytes>" and a file object get the same bytes as pillow_cwic.encode."""
    path, file = tmp_path / "x.cwic", BytesIO()
    assert iio.imwrite(path, array, quality=0.3) is None
    assert iio.imwrite(file, array, extension=".cwic", quality=0.3) is None
    returned = iio.imwrite("<bytes>", array, extension=".cwic", quality=0.3)
    assert path.read_bytes() == file.getvalue() == returned == cwic_bytes


def test_options_are_the_encoders(array: np.ndarray) -> None:
    """All options of pillow_cwic.encode are keywords of imwrite."""
    mask = np.full((72, 88), 128, np.uint8)
    mask[:36] = 220
    options = {
        "quality": 0.6,
        "importance": mask,
        "device": "cpu",
        "xmp": b"<x/>",
        "comment": b"c",
        "dpi": (72, 72),
    }
    data = iio.imwrite("<bytes>", array, extension=".cwic", **options)
    assert data == pillow_cwic.encode(array, **options)
    assert len(iio.imwrite("<bytes>", array, extension=".cwic", max_bytes=900)) <= 900


@pytest.mark.parametrize("shape", [(72, 88), (72, 88, 1)])
def test_grey(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """[H,W] and [H,W,1] are grey pictures and come back as [H,W]."""
    grey = array[:, :, 1].reshape(shape)
    back = iio.imread(iio.imwrite("<bytes>", grey, extension=".cwic"), extension=".cwic")
    assert back.shape == (72, 88)
    assert pictures.psnr(grey.reshape(72, 88), back) > 24


def test_batches_of_one(array: np.ndarray) -> None:
    """A list, a tuple or a 4-D array with one picture is that picture."""
    expected = pillow_cwic.encode(array)
    for batch in ([array], (array,), array[None]):
        assert iio.imwrite("<bytes>", batch, extension=".cwic") == expected
    grey = pillow_cwic.encode(array[:, :, 0])
    assert iio.imwrite("<bytes>", array[None, :, :, 0], extension=".cwic") == grey
    assert iio.imwrite("<bytes>", array[None, :, :, 0], extension=".cwic", is_batch=True) == grey


@pytest.mark.parametrize("make", [lambda a: [a, a], lambda a: np.stack([a, a, a]), lambda a: []])
def test_other_batches_are_refused(
    array: np.ndarray, make: Callable[[np.ndarray], object], tmp_path: Path
) -> None:
    """More than one picture, or none, is a ValueError that says how many; no file is made."""
    batch = make(array)
    with pytest.raises(ValueError, match=f"holds one picture, found a batch of {len(batch)}"):
        iio.imwrite(tmp_path / "x.cwic", batch)
    assert not (tmp_path / "x.cwic").exists()


def test_writing_twice_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    """A second picture into an opened file is a ValueError, and the first one stays whole."""
    path = tmp_path / "x.cwic"
    with iio.imopen(path, "w") as file:
        file.write(array)
        with pytest.raises(ValueError, match="holds one picture, and it has been written"):
            file.write(array)
    assert iio.imread(path).shape == array.shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a / 255, TypeError, "uint8, found float64"),
        (lambda a: a.astype(np.uint16), TypeError, "uint8, found uint16"),
        (lambda a: a > 100, TypeError, "uint8, found bool"),
        (lambda a: a[:0], ValueError, "at least one pixel"),
    ],
)
def test_wrong_pixels(
    array: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    """Pixels that are not uint8, or none at all, are refused by name.

    An existing file stays as it was.
    """
    path = tmp_path / "precious.cwic"
    path.write_bytes(b"precious")
    with pytest.raises(error, match=message):
        iio.imwrite(path, change(array))
    assert path.read_bytes() == b"precious"


def test_wrong_options(array: np.ndarray) -> None:
    """Wrong values are ValueErrors as everywhere.

    An option that does not exist is a TypeError that names it.
    """
    with pytest.raises(ValueError, match=r"did you mean 0\.75"):
        iio.imwrite("<bytes>", array, extension=".cwic", quality=75)
    with pytest.raises(TypeError, match=r"^there is no option optimize; there are quality, bpp"):
        iio.imwrite("<bytes>", array, extension=".cwic", optimize=True)


def test_by_name_the_plugin_writes_and_reads_anything(
    array: np.ndarray, cwic_bytes: bytes, tmp_path: Path
) -> None:
    """plugin="cwic" writes and reads .cwic files under any name, into a BytesIO and "<bytes>"."""
    for name in ("x.png", "x", "x.unknown"):
        iio.imwrite(tmp_path / name, array, plugin="cwic", quality=0.3)
        assert (tmp_path / name).read_bytes() == cwic_bytes
        assert iio.imread(tmp_path / name, plugin="cwic").shape == array.shape
    file = BytesIO()
    iio.imwrite(file, array, plugin="cwic", quality=0.3)
    assert file.getvalue() == cwic_bytes
    assert iio.imwrite("<bytes>", array, plugin="cwic", quality=0.3) == cwic_bytes


def test_unasked_the_plugin_writes_its_own_extension_only(
    array: np.ndarray, tmp_path: Path
) -> None:
    """Other names are left to other plugins, and so is a file object without a name."""
    iio.imwrite(tmp_path / "x.png", array)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    iio.imwrite(tmp_path / "x.tif", array)
    assert np.array_equal(iio.imread(tmp_path / "x.tif"), array)
    with (
        pytest.warns(UserWarning, match="Can't determine file format"),
        pytest.raises(ValueError, match="unknown file extension"),
    ):
        iio.imwrite(tmp_path / "x", array)


@pytest.mark.parametrize("name", ["photo.cwic", "photo.png", "photo.tif", "photo", "photo.bin"])
def test_what_is_in_a_file_counts_not_its_name(
    cwic_bytes: bytes, tmp_path: Path, name: str
) -> None:
    """Options of ours work whatever a file is called: region, and the metadata."""
    path = tmp_path / name
    path.write_bytes(cwic_bytes)
    expected = pillow_cwic.decode(cwic_bytes, region=(8, 8, 40, 40))
    with path.open("rb") as file:
        assert np.array_equal(iio.imread(file, region=(8, 8, 40, 40)), expected)
    assert np.array_equal(iio.imread(path, region=(8, 8, 40, 40)), expected)
    assert np.array_equal(iio2.imread(path, region=(8, 8, 40, 40)), expected)
    assert iio.immeta(path)["quality_index"] == 19
    assert iio.improps(path).shape == (72, 88, 3)


def test_bytes_need_no_name(cwic_bytes: bytes) -> None:
    """Bytes and a BytesIO are known by what they begin with."""
    expected = pillow_cwic.decode(cwic_bytes, region=(8, 8, 40, 40))
    for source in (cwic_bytes, BytesIO(cwic_bytes)):
        assert np.array_equal(iio.imread(source, region=(8, 8, 40, 40)), expected)
        assert iio.immeta(source)["quality_index"] == 19
        assert [part.shape for part in iio.imiter(source, region=(0, 0, 8, 8))] == [(8, 8, 3)]


def test_other_formats_go_where_they_went(photo: Image.Image, tmp_path: Path) -> None:
    """imageio's plugin for Pillow still has everything else, by any source."""
    for suffix in (".png", ".bmp", ".tif", ""):
        path = tmp_path / f"x{suffix}"
        photo.save(path, "PNG")
        for source in (path, path.read_bytes(), BytesIO(path.read_bytes())):
            with iio.imopen(source, "r") as opened:
                assert type(opened).__name__ in ("PillowPlugin", "LegacyPlugin")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotate(array: np.ndarray, orientation: int) -> None:
    """rotate=True turns what was read as Pillow's exif_transpose does, a region as well."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = pillow_cwic.encode(array, exif=exif.tobytes(), quality=0.3)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert np.array_equal(iio.imread(data, rotate=True), np.asarray(upright))
    region = (8, 16, 40, 64)
    whole = iio.imread(data, rotate=True, region=region, mode="L")
    assert whole.shape == ((48, 32) if orientation < 5 else (32, 48))
    assert np.array_equal(iio.imread(data, rotate=False), pillow_cwic.decode(data))


def test_what_is_no_picture_is_described(array: np.ndarray) -> None:
    """Five channels are no batch of 72: the message has the shape."""
    wide = np.concatenate([array, array[:, :, :2]], axis=2)
    with pytest.raises(ValueError, match=r"found an array of shape \(72, 88, 5\): neither"):
        iio.imwrite("<bytes>", wide, extension=".cwic")


def test_nothing_is_left_open(cwic_file: Path, photo: Image.Image) -> None:
    """Reading, also of what is not ours, leaves no open file behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        iio.imread(cwic_file)
        iio.immeta(cwic_file)
        with pytest.raises(FormatError):
            iio.imread(cwic_file.read_bytes()[:-4], extension=".cwic")
        gc.collect()


# --- v2 -------------------------------------------------------------------------------------------


def test_v2_imread_and_imwrite(array: np.ndarray, cwic_bytes: bytes, tmp_path: Path) -> None:
    """imageio.v2 reads and writes with the same options."""
    path = tmp_path / "x.cwic"
    iio2.imwrite(path, array, quality=0.3)
    assert path.read_bytes() == cwic_bytes
    assert iio2.imwrite("<bytes>", array, format=".cwic", quality=0.3) == cwic_bytes
    assert np.array_equal(iio2.imread(path), pillow_cwic.decode(cwic_bytes))
    assert iio2.imread(path, format="cwic", region=(0, 0, 8, 8)).shape == (8, 8, 3)
    iio2.imwrite(tmp_path / "x.dat", array, format="cwic", quality=0.3)
    assert (tmp_path / "x.dat").read_bytes() == cwic_bytes
    assert iio2.imread(tmp_path / "x.dat", format="cwic", region=(0, 0, 8, 8)).shape == (8, 8, 3)
    assert iio2.imwrite("<bytes>", array, format="cwic", quality=0.3) == cwic_bytes


def test_v2_reader(cwic_file: Path, cwic_bytes: bytes) -> None:
    """get_reader has a length, data by index, metadata, and can be iterated."""
    with iio2.get_reader(cwic_file) as reader:
        assert len(reader) == 1
        data = reader.get_data(0)
        assert np.array_equal(data, pillow_cwic.decode(cwic_bytes))
        assert data.meta["quality_index"] == reader.get_meta_data()["quality_index"] == 19
        assert [picture.shape for picture in reader] == [(72, 88, 3)]
        with pytest.raises(ValueError, match="found 1"):
            reader.get_data(1)


def test_v2_writer(array: np.ndarray, cwic_bytes: bytes, tmp_path: Path) -> None:
    """get_writer takes one picture, mimwrite a list of one, and both refuse a second."""
    path = tmp_path / "x.cwic"
    with iio2.get_writer(path, quality=0.3) as writer:
        writer.append_data(array)
        with pytest.raises(ValueError, match="holds one picture"):
            writer.append_data(array)
    assert path.read_bytes() == cwic_bytes
    iio2.mimwrite(tmp_path / "y.cwic", [array], quality=0.3)
    assert (tmp_path / "y.cwic").read_bytes() == cwic_bytes
    assert [a.shape for a in iio2.mimread(path)] == [(72, 88, 3)]
    with pytest.raises(ValueError, match="found a batch of 2"):
        iio2.mimwrite(tmp_path / "z.cwic", [array, array])
