"""What a caller may ask for, checked in one place before anything is computed. No torch, no model.

Wrong options are ValueError or TypeError that name the option, the range and the value found.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .format.metadata import METADATA_NAMES, NO_METADATA, Metadata

if TYPE_CHECKING:
    import torch

    from .image_modes import Importance
    from .runtime.progress import Tell

    Device: TypeAlias = str | torch.device | None

ModelName: TypeAlias = str | os.PathLike[str]
"""A model's name, its id, or the path of a weights file."""

Region: TypeAlias = tuple[int, int, int, int]
"""(left, upper, right, lower) in pixels, right and lower edge excluded, as in Pillow."""

DEFAULT_QUALITY = 0.4

MOST_EFFORT = 100
"""Passes after which refinement has long stopped finding anything."""

_COLOUR_BANDS = {1: 1, 2: 1, 3: 3, 4: 3}  # by channels; even counts carry alpha


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode: at most one of quality, bpp and max_bytes is given; else a default quality.

    With lossless none of the three.
    """

    quality: float | None = None  # dial in [0, 1]
    bpp: float | None = None  # bits per pixel of the whole file
    max_bytes: int | None = None  # of the whole file
    importance: Importance | None = field(default=None, repr=False)  # grey picture, 128 is neutral
    effort: int = 0  # passes of refinement
    lossless: bool = False  # all blocks exact
    exact: bool = True  # those where that is cheaper
    exact_alpha: bool = False  # keep colours where alpha is 0
    model: ModelName | None = None
    device: Device = None
    progress: Tell | None = field(default=None, repr=False)  # is told the share that is done
    metadata: Metadata = NO_METADATA

    @classmethod
    def from_keywords(
        cls,
        *,
        icc_profile: Any = None,
        exif: Any = None,
        xmp: Any = None,
        dpi: Any = None,
        comment: Any = None,
        **options: Any,
    ) -> Self:
        """The keywords of `pillow_cwic.encode`; ValueError or TypeError for what means nothing."""
        unknown = sorted(options.keys() - set(OPTION_NAMES))
        if unknown:
            known = ", ".join(OPTION_NAMES + METADATA_NAMES)
            raise TypeError(f"there is no option {', '.join(unknown)}; there are {known}")
        metadata = check_metadata(icc_profile, exif, xmp, dpi, comment)
        return cls(**options, metadata=metadata)

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        given = [name for name in RATE_OPTIONS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of quality, bpp and max_bytes, found {' and '.join(given)}")
        for name in ("lossless", "exact", "exact_alpha"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} is True or False, found {value!r}")
        if self.lossless:
            self._check_lossless(given)
        elif not given:
            object.__setattr__(self, "quality", DEFAULT_QUALITY)
        if self.quality is not None:
            _check_quality(self.quality)
        if self.bpp is not None and not _is_positive(self.bpp):
            raise ValueError(
                f"bpp is a number of bits per pixel above 0, such as 0.25; found {self.bpp!r}"
            )
        if self.max_bytes is not None and not _is_positive(self.max_bytes):
            raise ValueError(
                f"max_bytes is a number of bytes above 0, such as 20_000; found {self.max_bytes!r}"
            )
        _check_effort(self.effort)
        if self.progress is not None and not callable(self.progress):
            raise TypeError(
                f"progress is a function that takes the share that is done, found {self.progress!r}"
            )

    def _check_lossless(self, given: list[str]) -> None:
        """Refuse what would change nothing."""
        if self.importance is not None:
            given = [*given, "importance"]
        if self.effort:
            given = [*given, "effort"]
        if not self.exact:
            given = [*given, "exact=False"]
        if given:
            raise ValueError(
                f"lossless=True keeps every pixel: {' and '.join(given)} would change nothing, "
                "leave out one or the other"
            )


RATE_OPTIONS = ("quality", "bpp", "max_bytes")

OPTION_NAMES = tuple(f.name for f in fields(EncodeOptions) if f.name != "metadata")
"""Options beside the metadata, as Pillow, imageio and the command line know them."""


def quality_index(quality: float, quality_count: int) -> int:
    """The dial's position in [0, 1] -> the quality index of a model with so many qualities."""
    return round(quality * (quality_count - 1))


def quality_of(index: int, quality_count: int) -> float:
    """A quality index of a model -> the dial: of the positions that mean it, the shortest decimal.

    So a file that was saved at 0.5 says 0.5, not 0.508.
    """
    centre = index / max(1, quality_count - 1)
    shorter = (round(centre, digits) for digits in (1, 2))
    return next((q for q in shorter if quality_index(q, quality_count) == index), centre)


def _is_number(value: Any) -> bool:
    numbers = (int, float, np.integer, np.floating)
    return isinstance(value, numbers) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _check_quality(quality: Any) -> None:
    if not _is_number(quality):
        raise ValueError(f"quality is a number in 0..1, found {quality!r}")
    if not 0 <= quality <= 1:
        hint = f"; did you mean {quality / 100:g}?" if 1 < quality <= 100 else ""
        raise ValueError(f"quality is 0..1, found {quality!r}{hint}")


def _check_effort(effort: Any) -> None:
    is_whole = isinstance(effort, (int, np.integer)) and not isinstance(effort, bool)
    if not is_whole or not 0 <= effort <= MOST_EFFORT:
        raise ValueError(
            f"effort is a whole number of passes, 0 (none) to {MOST_EFFORT}; found {effort!r}"
        )


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


def check_picture(array: ArrayLike) -> Picture:
    """uint8 HxW or HxWx{1,2,3,4} -> Picture; TypeError or ValueError says what was found."""
    pixels = np.asarray(array)
    if pixels.dtype.kind not in "buifc":  # a path, for one
        raise TypeError(
            f"a picture is an array of uint8 or an image of Pillow's, found {type(array).__name__}"
        )
    if pixels.dtype != np.uint8:
        hint = "; scale it to 0..255 and round first" if pixels.dtype.kind in "fiu" else ""
        raise TypeError(f"pixels are uint8, found {pixels.dtype}{hint}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]  # [H,W,1]
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_BANDS:
        raise ValueError(
            f"pixels are HxW or HxWx{{1,2,3,4}} (L, LA, RGB, RGBA), found shape {np.shape(array)}"
        )
    if 0 in pixels.shape:
        raise ValueError(f"a picture has at least one pixel, found shape {np.shape(array)}")
    bands = _COLOUR_BANDS[pixels.shape[2]]
    alpha = pixels[:, :, -1] if pixels.shape[2] in (2, 4) else None
    grey = pixels[:, :, :1]
    colour = pixels[:, :, :3] if bands == 3 else np.broadcast_to(grey, (*grey.shape[:2], 3))
    return Picture(colour, alpha, bands)


def check_metadata(icc_profile: Any, exif: Any, xmp: Any, dpi: Any, comment: Any) -> Metadata:
    """The metadata as it is stored; a comment given as text is UTF-8."""
    if isinstance(comment, str):
        comment = comment.encode()
    blocks = {"icc_profile": icc_profile, "exif": exif, "xmp": xmp, "comment": comment}
    for name, value in blocks.items():
        if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"{name} is bytes, found {type(value).__name__}")
    kept = {name: None if value is None else bytes(value) for name, value in blocks.items()}
    return Metadata(**kept, dpi=_resolution(dpi))


def _resolution(dpi: Any) -> tuple[float, float] | None:
    if dpi is None:
        return None
    try:
        if isinstance(dpi, (str, bytes)):  # a text of two digits is a pair of numbers, too
            raise TypeError
        x, y = (dpi, dpi) if _is_number(dpi) else dpi
        return float(x), float(y)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"dpi is a pair of numbers such as (300, 300), found {dpi!r}") from error
