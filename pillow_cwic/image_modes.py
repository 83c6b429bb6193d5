"""Images of Pillow's in any mode -> what a file holds: 8-bit grey or RGB, with alpha or without.

Whoever takes an image asks here: `save`, `encode`, imageio, importance masks, compare. Invariant:
colours mean the same before and after, by the colour profile where there is one; what is lost is
a warning, what would be lost without need an error that says how to convert.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .runtime.warn import warn_caller

if TYPE_CHECKING:
    Importance: TypeAlias = Image.Image | ArrayLike

STORED_MODES = ("L", "LA", "RGB", "RGBA")

_EQUAL_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
}
"""Modes that say the same in another way, up to rounding."""

_EXACT_MODES = (*STORED_MODES, "1", "P", "PA", "RGBX")
"""Modes whose every value a file holds as it is."""

_PROFILED_MODES = {"CMYK": "CMYK", "LAB": "Lab "}
"""Modes that Pillow has no exact formula for, and the ICC name of their colour space."""

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")

_REMEDIES = {
    **dict.fromkeys(_SIXTEEN_BITS, "im.convert('I').point(lambda value: value / 257).convert('L')"),
    "I": "im.point(lambda value: value / 257).convert('L') if they are 0 to 65535",
    "F": "im.point(lambda value: value * 255).convert('L') if they are 0 to 1",
}
"""What to write instead, for modes with more than 8 bits."""

DEEP_MODES = tuple(_REMEDIES)

LASTING = ("icc_profile", "comment")
"""Metadata that stays with an image, as in Pillow's own plugins; an edit makes no other untrue."""


class StoredImage(NamedTuple):
    """An image as a file holds it."""

    image: Image.Image  # L, LA, RGB or RGBA
    icc_profile: bytes | None  # of its colours now; None says nothing, and means sRGB


def stored_image(image: Image.Image, icc_profile: bytes | None) -> StoredImage:
    """An image of any mode, and its colour profile, as a file holds them.

    CMYK and LAB become sRGB, with a warning. OSError, as Pillow's plugins have it, for modes with
    more than 8 bits; the message has the conversion.
    """
    if image.mode in _PROFILED_MODES:
        return _in_srgb(image, icc_profile)
    mode = _EQUAL_MODES.get(image.mode, image.mode)
    if mode not in STORED_MODES:
        raise OSError(_refusal(image))
    if mode in ("L", "RGB") and image.has_transparency_data:
        mode += "A"
    stored = image if mode == image.mode else image.convert(mode)
    return StoredImage(stored, icc_profile or None)


def check_exact_mode(image: Image.Image) -> None:
    """ValueError for an image of a mode that cannot be stored without rounding."""
    if image.mode not in _EXACT_MODES:
        raise ValueError(
            f"lossless=True: mode {image.mode} can only be stored with rounding, expected "
            f"{', '.join(_EXACT_MODES)}; convert it first if the rounding is welcome"
        )


def _refusal(image: Image.Image) -> str:
    if image.mode not in _REMEDIES:
        return f"cannot write mode {image.mode} as CWIC: convert to L, LA, RGB or RGBA first"
    values = np.asarray(image)
    found = f"{values.min():g} to {values.max():g}" if values.size else "none"
    return (
        f"cannot write mode {image.mode} as CWIC: a file holds 8 bits, 0 to 255, found values from "
        f"{found}; scale them first: {_REMEDIES[image.mode]}"
    )


def _in_srgb(image: Image.Image, icc_profile: bytes | None) -> StoredImage:
    """A CMYK or LAB image in sRGB, by colour management as far as there is any."""
    from PIL import ImageCms

    try:
        source = _source_profile(image.mode, icc_profile)
        if source is None:
            warn_caller(
                f"mode {image.mode} is stored as RGB, and without a colour profile its colours are "
                "a guess"
            )
            # A profile that was there is of RGB: it describes what Pillow converts to.
            return StoredImage(image.convert("RGB"), icc_profile or None)
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        converted = transform.apply(image)
    except (ImportError, ImageCms.PyCMSError) as error:
        raise OSError(
            f"cannot write mode {image.mode} as CWIC: its colours cannot be converted ({error}); "
            "convert to RGB first"
        ) from error
    warn_caller(f"mode {image.mode} is stored as sRGB: colours outside of it are lost")
    return StoredImage(converted, None)


def _source_profile(mode: str, icc_profile: bytes | None) -> Any:
    """The profile that an image's values are in; None if there is none for that mode."""
    from PIL import ImageCms

    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        except (OSError, ImageCms.PyCMSError):  # a block that is no profile
            profile = None
        if profile is not None and profile.profile.xcolor_space == _PROFILED_MODES[mode]:
            return profile
    return ImageCms.createProfile("LAB") if mode == "LAB" else None


def with_lasting(picture: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options, completed by what stays with an image where they are silent; arrays have nothing."""
    if not isinstance(picture, Image.Image):
        return options
    given = {name for name, value in options.items() if value is not None}
    return options | {n: v for n, v in lasting_blocks(picture).items() if n not in given}


def lasting_blocks(image: Image.Image) -> dict[str, Any]:
    """The colour profile and the comment of an image.

    A text chunk of PNG may be called as one of them: only what can be one is taken.
    """
    kinds: dict[str, tuple[type, ...]] = {"icc_profile": (bytes,), "comment": (bytes, str)}
    found = {name: image.info.get(name) for name in LASTING}
    return {name: value for name, value in found.items() if isinstance(value, kinds[name])}


def grey_mask(importance: Importance, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`grey_values` of a mask for a picture of `size` (width, height).

    ValueError where its sides have another ratio than the picture's.
    """
    mask = grey_values(importance)
    width, height = size
    rows, columns = mask.shape
    # Sides of a mask at a fraction of the size are rounded, either way.
    if abs(columns * height - rows * width) >= width + height:
        raise ValueError(
            f"importance has {columns} x {rows} pixels and the picture {width} x {height}: the "
            "sides have another ratio; crop or turn it as the picture was"
        )
    return mask


def grey_values(importance: Importance) -> NDArray[np.uint8]:
    """A mask of importance as uint8 [H,W].

    An image of any mode, or an array [H,W]: 8 bits, 16 bits (scaled), or floats and truth values in
    0..1. ValueError for anything else.
    """
    if isinstance(importance, Image.Image) and importance.mode not in DEEP_MODES:
        profile = lasting_blocks(importance).get("icc_profile")
        importance = stored_image(importance, profile).image.convert("L")
    values = np.asarray(importance)
    kind = values.dtype.kind
    scale = {"b": 255, "f": 255}.get(kind, 1 / 257 if values.dtype.itemsize == 2 else 1)
    is_scalable = kind in "bf" or (kind == "u" and values.dtype.itemsize <= 2)
    if values.ndim != 2 or 0 in values.shape or not is_scalable:
        raise ValueError(_mask_refusal(values))
    if kind == "f" and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(_mask_refusal(values))
    if values.dtype == np.uint8:
        return values
    return np.rint(values * scale).astype(np.uint8)


def _mask_refusal(values: NDArray[Any]) -> str:
    span = ""
    if values.size and values.dtype.kind in "iuf":
        span = f", from {values.min():g} to {values.max():g}"
    return (
        "importance is a grey image or an array HxW of 8 or 16 bits or of floats in 0..1, found "
        f"{values.dtype} of shape {values.shape}{span}"
    )
