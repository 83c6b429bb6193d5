"""The options of encoding: checked in one place, before anything is computed. No torch, no model.

Wrong options are ValueError or TypeError that name the option, the range and the value found.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .container import Metadata

DEFAULT_QUALITY = 0.5
NEUTRAL = 128
"""The grey level of an importance picture that leaves bits where the model puts them."""

MOST_EFFORT = 100
"""Passes after which refinement has long stopped finding anything."""

REGION_BLOCK = 32
"""Pixels per side of the blocks in which an importance picture is stored."""

_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 3}  # channels -> colour bands; even counts carry alpha


@dataclass(frozen=True)
class RateOption:
    """What the file's size follows: exactly one of the three."""

    quality: float | None = None  # dial in [0, 1]
    bpp: float | None = None  # bits per pixel of the whole file
    max_bytes: int | None = None  # of the whole file

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        given = [name for name in ("quality", "bpp", "max_bytes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of quality, bpp and max_bytes, found {' and '.join(given)}")
        if not given:
            object.__setattr__(self, "quality", DEFAULT_QUALITY)
        if self.quality is not None:
            _check_quality(self.quality)
        if self.bpp is not None and not (_is_number(self.bpp) and 0 < self.bpp < math.inf):
            raise ValueError(f"bpp is a number of bits per pixel above 0, such as 0.25; found {self.bpp!r}")
        if self.max_bytes is not None and not (_is_number(self.max_bytes) and 0 < self.max_bytes < math.inf):
            raise ValueError(f"max_bytes is a number of bytes above 0, such as 20_000; found {self.max_bytes!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _check_quality(quality: Any) -> None:
    if not _is_number(quality):
        raise ValueError(f"quality is a number in 0..1, found {quality!r}")
    if not 0 <= quality <= 1:
        hint = f"; did you mean {quality / 100:g}?" if 1 < quality <= 100 else ""
        raise ValueError(f"quality is 0..1, found {quality!r}{hint}")


def check_effort(effort: Any) -> None:
    """ValueError unless it is a whole number of passes that someone may wait for."""
    if isinstance(effort, bool) or not isinstance(effort, (int, np.integer)) or not 0 <= effort <= MOST_EFFORT:
        raise ValueError(f"effort is a whole number of passes, 0 (none) to {MOST_EFFORT}; found {effort!r}")


@dataclass(frozen=True)
class Picture:
    """An array as the codec sees it."""

    colour: NDArray[np.uint8] = field(repr=False)  # [H,W,3]; grey is repeated
    alpha: NDArray[np.uint8] | None  # [H,W]
    bands: int  # 1 grey, 3 RGB

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.colour.shape[1], self.colour.shape[0]


def picture(array: ArrayLike) -> Picture:
    """uint8 HxW or HxWx{1,2,3,4} -> Picture; TypeError or ValueError says what was found."""
    a = np.asarray(array)
    if a.dtype != np.uint8:
        hint = "; scale it to 0..255 and round first" if a.dtype.kind in "fiu" else ""
        raise TypeError(f"pixels are uint8, found {a.dtype}{hint}")
    if a.ndim == 2:
        a = a[:, :, None]
    if a.ndim != 3 or a.shape[2] not in _CHANNELS:
        raise ValueError(f"pixels are HxW or HxWx{{1,2,3,4}} (L, LA, RGB, RGBA), found shape {np.shape(array)}")
    if 0 in a.shape:
        raise ValueError(f"a picture has at least one pixel, found shape {np.shape(array)}")
    bands = _CHANNELS[a.shape[2]]
    alpha = a[:, :, -1] if a.shape[2] in (2, 4) else None
    colour = a[:, :, :3] if bands == 3 else np.broadcast_to(a[:, :, :1], (*a.shape[:2], 3))
    return Picture(colour, alpha, bands)


def metadata(
    icc_profile: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: Any, comment: bytes | str | None
) -> Metadata:
    """The metadata as it is stored; a comment given as text is UTF-8."""
    for name, value in (("icc_profile", icc_profile), ("exif", exif), ("xmp", xmp)):
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"{name} is bytes, found {type(value).__name__}")
    if isinstance(comment, str):
        comment = comment.encode()
    icc_profile, exif, xmp = (None if block is None else bytes(block) for block in (icc_profile, exif, xmp))
    return Metadata(icc_profile, exif, xmp, _dpi(dpi), comment)


def _dpi(dpi: Any) -> tuple[float, float] | None:
    if dpi is None:
        return None
    try:
        x, y = (dpi, dpi) if _is_number(dpi) else dpi
        return float(x), float(y)
    except (TypeError, ValueError) as error:
        raise ValueError(f"dpi is a pair of numbers such as (300, 300), found {dpi!r}") from error


def quality_shift(importance: Any, size: tuple[int, int], quality_count: int) -> NDArray[np.int16] | None:
    """A picture of importance -> quality indices to add in each block of REGION_BLOCK pixels, int16 [rows,columns].

    `importance` is an "L" image or a uint8 array [H,W]; 128 changes nothing, 255 adds half of the model's quality
    range, 0 takes half of it away. A size other than the picture's (width, height) is resized to it. None where
    nothing changes.
    """
    if importance is None:
        return None
    mask = _mask(importance)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    a = np.asarray(mask, np.float32)
    a = np.pad(a, ((0, -a.shape[0] % REGION_BLOCK), (0, -a.shape[1] % REGION_BLOCK)), mode="edge")
    blocks = a.reshape(a.shape[0] // REGION_BLOCK, REGION_BLOCK, a.shape[1] // REGION_BLOCK, REGION_BLOCK).mean((1, 3))
    shift = np.rint((blocks - NEUTRAL) / NEUTRAL * (quality_count / 2)).astype(np.int16)  # [rows,columns]
    return shift if shift.any() else None


def _mask(importance: Any) -> Image.Image:
    if isinstance(importance, Image.Image):
        return importance if importance.mode == "L" else importance.convert("L")
    a = np.asarray(importance)
    if a.dtype != np.uint8 or a.ndim != 2 or 0 in a.shape:
        raise ValueError(f'importance is an "L" image or a uint8 array HxW, found {a.dtype} of shape {a.shape}')
    return Image.fromarray(a)
