"""Images of Pillow's in every mode: the right colours, whichever entry they come through."""

from __future__ import annotations

import re
import warnings
from io import BytesIO
from pathlib import Path

import cmyk_profile
import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

import pillow_cwic
from pillow_cwic.image_modes import grey_mask, stored_image
from pillow_cwic.tools.compare import rgb_picture
from pillow_cwic.tools.pictures import PLAIN

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = ["I;16", "I;16B", "I;16L", "I;16N", "I", "F"]
CLOSE = 3  # of 255: little CMS computes in 8 bits at the edges


def saved(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "CWIC", **options)
    return file.getvalue()


def in_mode(photo: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        return to_lab.apply(photo)
    by = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA"}.get(mode, mode)
    return photo.convert(by).convert(mode)


def assert_colours(found: Image.Image, expected: Image.Image) -> None:
    """Means of large blocks are close; taken for other modes, colours are 30 and more away."""
    means = [np.asarray(im.resize((4, 4), Image.Resampling.BOX), float) for im in (found, expected)]
    assert np.abs(means[0] - means[1]).mean() < 8


# --- one way for all entries ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV"]
)
def test_encode_takes_images_as_save_does(photo: Image.Image, mode: str) -> None:
    """encode(image) and imwrite(image) give the file that save gives, in every mode."""
    image = in_mode(photo, mode)
    expected = saved(image, quality=0.3)
    assert pillow_cwic.encode(image, quality=0.3) == expected
    assert iio.imwrite("<bytes>", image, extension=".cwic", quality=0.3) == expected
    colours = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGB")
    assert_colours(Image.open(BytesIO(expected)).convert("RGB"), colours)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_encode_converts_with_a_warning_as_save_does(photo: Image.Image, mode: str) -> None:
    """The modes that lose something warn at the caller's line in every entry, and are equal."""
    image = in_mode(photo, mode)
    with pytest.warns(UserWarning, match=f"mode {mode} is stored as") as caught:
        files = [
            saved(image, quality=0.3),
            pillow_cwic.encode(image, quality=0.3),
            iio.imwrite("<bytes>", image, extension=".cwic", quality=0.3),
        ]
    assert len(set(files)) == 1
    assert [warning.filename for warning in caught] == [__file__] * 3
    assert_colours(Image.open(BytesIO(files[0])), photo)


def test_profile_and_comment_stay_with_an_image(photo: Image.Image) -> None:
    """They are encode's, too, unless others are given; a PNG's text of that name is no profile."""
    image = photo.copy()
    image.info.update(icc_profile=SRGB, comment="of the image")
    kept = pillow_cwic.read_header(pillow_cwic.encode(image)).metadata
    assert (kept.icc_profile, kept.comment) == (SRGB, b"of the image")
    given = pillow_cwic.read_header(pillow_cwic.encode(image, comment="mine")).metadata
    assert given.comment == b"mine"

    text = PngImagePlugin.PngInfo()
    for name in ("icc_profile", "exif", "dpi"):
        text.add_text(name, "72")
    file = BytesIO()
    photo.save(file, "PNG", pnginfo=text)
    with Image.open(file) as opened:
        assert Image.open(BytesIO(saved(opened))).info.keys() == {"model", "cwic_quality"}
    with pytest.raises(ValueError, match=r"dpi is a pair of numbers such as .*found '72'"):
        saved(photo, dpi="72")


# --- colours --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:mode CMYK is stored as sRGB")
@pytest.mark.parametrize("ink", list(cmyk_profile.LAB))
def test_cmyk_by_its_profile(ink: tuple[int, ...]) -> None:
    """Paper and inks get the colours that the profile says, to sRGB by the book; it then goes."""
    image = Image.new("CMYK", (4, 4), tuple(255 * value for value in ink))
    image.info["icc_profile"] = cmyk_profile.build()
    stored = stored_image(image, cmyk_profile.build())
    expected = cmyk_profile.srgb_of(cmyk_profile.LAB[ink])
    assert np.abs(np.asarray(stored.image)[0, 0] - expected).max() <= CLOSE
    assert stored.icc_profile is None
    assert pillow_cwic.read_header(saved(image)).metadata.icc_profile is None


def test_lab_by_the_formulas() -> None:
    """LAB is CIE's, with the white of D50."""
    image = Image.new("LAB", (4, 4), (153, 148, 108))  # L* 60, a* 20, b* -20
    with pytest.warns(UserWarning, match="mode LAB is stored as sRGB"):
        stored = stored_image(image, None)
    expected = cmyk_profile.srgb_of((60, 20, -20))
    assert np.abs(np.asarray(stored.image)[0, 0] - expected).max() <= CLOSE


def test_cmyk_without_a_profile_is_a_guess() -> None:
    """Pillow's own formula, and the warning says what it is worth; so for a broken profile."""
    image = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    for profile in (None, b"no profile at all"):
        with pytest.warns(UserWarning, match="without a colour profile its colours are a guess"):
            stored = stored_image(image, profile)
        assert stored.image.getpixel((0, 0)) == (0, 255, 255)


def test_a_profile_of_rgb_stays(photo: Image.Image) -> None:
    """YCbCr and HSV are other ways to write RGB: a profile describes that, and is kept."""
    for mode in ("YCbCr", "HSV", "P", "RGB"):
        assert stored_image(photo.convert(mode), SRGB).icc_profile == SRGB


def test_compare_shows_the_right_colours(tmp_path: Path) -> None:
    """compare and demo read pictures the same way."""
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image.save(tmp_path / "cyan.tif", icc_profile=cmyk_profile.build())
    with pytest.warns(UserWarning, match="mode CMYK is stored as sRGB"):
        picture, profile = rgb_picture(str(tmp_path / "cyan.tif"), PLAIN)
    expected = cmyk_profile.srgb_of(cmyk_profile.LAB[1, 0, 0, 0])
    assert np.abs(np.asarray(picture)[0, 0] - expected).max() <= CLOSE
    assert profile is None


# --- more than 8 bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", DEEP)
def test_deep_modes_are_refused_with_a_remedy_that_works(mode: str) -> None:
    """More than 8 bits is an OSError with the range found; the conversion it names is right."""
    value = 0.5 if mode == "F" else 128 * 257
    im = Image.new(mode, (8, 8), value)
    with pytest.raises(OSError, match=f"cannot write mode {mode} as CWIC") as caught:
        saved(im)
    assert f"found values from {value:g} to {value:g}" in str(caught.value)
    with pytest.raises(OSError, match=f"cannot write mode {mode} as CWIC"):
        pillow_cwic.encode(im)
    if mode == "I;16N" and im.convert("I").getpixel((0, 0)) != value:
        pytest.skip("this Pillow converts I;16N wrongly, as 11.3 does")
    remedy = re.search(r"im\..*\.convert\('L'\)", str(caught.value))
    assert remedy
    scaled = eval(remedy[0], {"im": im})
    assert scaled.mode == "L"
    assert abs(scaled.getpixel((0, 0)) - 128) <= 1
    saved(scaled)


# --- importance masks -----------------------------------------------------------------------------

GREY = np.linspace(0, 255, 72 * 88).reshape(72, 88).astype(np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        GREY,
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        GREY.astype(np.uint16) * 257,
        (GREY.astype(np.uint16) * 257).astype(">u2"),
        Image.fromarray((GREY / 255).astype(np.float32)),
        GREY / 255,
        Image.fromarray(GREY).convert("RGB"),
        Image.fromarray(GREY).convert("LA").convert("La"),
        Image.fromarray(GREY).convert("P"),
    ],
)
def test_masks_of_all_kinds_say_the_same(mask: object) -> None:
    """8 and 16 bits, floats in 0..1 and images of other modes are one mask, not black or white."""
    assert np.array_equal(grey_mask(mask, (88, 72)), GREY)


def test_truth_values_are_a_mask() -> None:
    """False is 0, True 255: as mode "1"."""
    truth = GREY > 100
    expected = truth * np.uint8(255)
    assert np.array_equal(grey_mask(truth, (88, 72)), expected)
    assert np.array_equal(grey_mask(Image.fromarray(truth), (88, 72)), expected)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (Image.new("F", (88, 72), 3), r"float32 of shape \(72, 88\), from 3 to 3"),
        (Image.new("I", (88, 72), 40000), r"int32 of shape \(72, 88\), from 40000 to 40000"),
        (np.full((72, 88), np.nan), "float64"),
        (GREY.astype(np.int16), "int16"),
        (GREY[:, :, None], r"uint8 of shape \(72, 88, 1\)"),
        (GREY[:0], r"uint8 of shape \(0, 88\)"),
        ("mask.png", "of shape"),
    ],
)
def test_other_masks_are_refused(photo: Image.Image, mask: object, found: str) -> None:
    """What has no plain range is a ValueError that says what was found."""
    with pytest.raises(ValueError, match=f"importance is a grey image or .*found {found}|{found}"):
        saved(photo, importance=mask)


@pytest.mark.parametrize("shape", [(72, 88), (5, 6), (4, 5), (36, 44), (144, 176), (1, 1)])
def test_masks_of_the_same_ratio(shape: tuple[int, int]) -> None:
    """Any size goes that is the picture's at some scale, rounded: importance_map's, for one."""
    assert grey_mask(np.zeros(shape, np.uint8), (88, 72)).shape == shape


@pytest.mark.parametrize("shape", [(88, 72), (72, 72), (30, 88), (300, 200)])
def test_masks_of_another_ratio_are_refused(photo: Image.Image, shape: tuple[int, int]) -> None:
    """A mask that was turned or cropped otherwise than the picture is no mask of it."""
    with pytest.raises(ValueError, match=rf"importance has {shape[1]} x {shape[0]} pixels"):
        saved(photo, importance=np.zeros(shape, np.uint8))


def test_ordinary_images_are_no_occasion_to_warn(photo: Image.Image) -> None:
    """Nor are grey and palette pictures with profiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("L", "P", "RGB", "YCbCr"):
            stored_image(photo.convert(mode), SRGB)
