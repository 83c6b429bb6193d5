"""Opening pictures of any of Pillow's formats: which frame, which range, how many pixels.

Every command takes its pictures from here. Invariant: a file that is no picture is an OSError,
whatever Pillow makes of it; what is left out of a picture is a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..image_modes import DEEP_MODES, grey_values
from .metadata import Blocks, metadata_of, upright

Scale: TypeAlias = Literal["auto"] | tuple[float, float]
"""The values that become black and white; "auto" takes the least and the largest of a picture."""


@dataclass(frozen=True)
class Reading:
    """How pictures are read."""

    frame: int | None = None  # counted from 0
    all_frames: bool | None = None  # None for a command that takes one
    scale: Scale | None = None  # of 16-bit and float pictures
    strip: bool = False  # leave out all metadata but the colour profile
    max_pixels: int | None = None  # 0 for no limit, None for Pillow's


PLAIN = Reading()


@contextmanager
def readable() -> Iterator[None]:
    """Make whatever Pillow raises about a file an OSError."""
    try:
        yield
    except UnidentifiedImageError:
        raise OSError("no picture that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise OSError(f"{error}: --max-pixels N allows more") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # decoders of broken files raise anything
        raise OSError(f"Pillow cannot read it: {error or type(error).__name__}") from error


@contextmanager
def pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Pictures of at most so many pixels are opened; 0 for all, None for Pillow's own limit."""
    before = Image.MAX_IMAGE_PIXELS
    if max_pixels is not None:
        # Pillow warns above its limit and refuses above twice that.
        Image.MAX_IMAGE_PIXELS = max_pixels / 2 if max_pixels else None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            if max_pixels is not None:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_picture(file: BinaryIO) -> Image.Image:
    """The file as Pillow opens it, nothing decoded."""
    with readable():
        return Image.open(file)


def chosen_frames(image: Image.Image, reading: Reading) -> range:
    """The frames to take, counted from 0; a warning where others are left out."""
    with readable():
        count = getattr(image, "n_frames", 1)
    if reading.all_frames:
        return range(count)
    if reading.frame is None:
        if count > 1:
            remedy = f"--frame N takes another (0 to {count - 1})"
            remedy += ", --all-frames all of them" if reading.all_frames is not None else ""
            warnings.warn(f"{count} frames, the first one is taken: {remedy}", stacklevel=2)
        return range(1)
    if reading.frame >= count:
        raise ValueError(f"--frame {reading.frame}: the frames are 0 to {count - 1}")
    return range(reading.frame, reading.frame + 1)


def load_frame(image: Image.Image, frame: int, reading: Reading) -> tuple[Image.Image, Blocks]:
    """One frame's pixels, 8 bits each, and its metadata."""
    with readable():
        if getattr(image, "n_frames", 1) > 1:
            image.seek(frame)
        image.load()
        blocks = metadata_of(image)
    if reading.all_frames and frame == 0 and image.info.get("duration"):
        warnings.warn("how long each frame is shown is not kept", stacklevel=2)
    picture = eight_bits(image, reading.scale)
    if reading.strip:
        picture, blocks = upright(picture, blocks)
        blocks = {name: value for name, value in blocks.items() if name == "icc_profile"}
    return picture, blocks


def load_picture(file: BinaryIO, reading: Reading) -> tuple[Image.Image, Blocks]:
    """The one frame that is asked for, and its metadata."""
    with open_picture(file) as image:
        return load_frame(image, chosen_frames(image, reading)[0], reading)


def eight_bits(image: Image.Image, scale: Scale | None) -> Image.Image:
    """A picture of 16 bits or of floats as 8 bits, if a range is given; others as they are."""
    if image.mode not in DEEP_MODES:
        return image
    if scale is None:
        raise OSError(
            f"mode {image.mode} has more than 8 bits: --scale auto stretches the picture's own "
            "range, --scale MIN,MAX makes these values black and white"
        )
    values = _values(image)
    low, high = (float(values.min()), float(values.max())) if scale == "auto" else scale
    return _scaled(values, low, high)


def importance_mask(file: BinaryIO) -> NDArray[np.uint8]:
    """A picture as a mask [H,W]: grey, 16 bits by their range, floats from 0 to 1."""
    with open_picture(file) as image:
        with readable():
            image.load()
        return grey_values(image)


def _values(image: Image.Image) -> NDArray[np.float64]:
    values = np.asarray(image).astype(np.float64)  # [H,W]
    if not np.isfinite(values).all():
        raise OSError(f"mode {image.mode}: some pixels are not finite")
    return values


def _scaled(values: NDArray[np.float64], low: float, high: float) -> Image.Image:
    """Low becomes 0, high 255; a picture of one value is black."""
    span = high - low or 1.0
    return Image.fromarray(np.rint(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8))
