"""The formats that .cwic is compared with, as Pillow writes them: the one table of their settings.

`compare` and `demo` look for a rival's best file within a number of bytes, `evaluate` for curves.
No torch, no .cwic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, features

from .recode import saved

JPEG2000_TARGETS = tuple(0.7 + 0.01 * step for step in range(40))
"""JPEG 2000 misses its own target a little: targets tried, in shares of the limit."""


@dataclass(frozen=True)
class Rival:
    """One format; a dial of its own sets the rate, larger is more."""

    title: str  # in tables
    format_name: str  # as Pillow calls it
    feature: str  # as PIL.features calls it
    options: Callable[[float], dict[str, Any]]  # dial -> options of Pillow's save
    curve: tuple[float, ...]  # dials of a rate-distortion curve, rising
    dials: Callable[[Image.Image, int], Sequence[float]]  # (picture, limit in bytes) -> to search

    @property
    def available(self) -> bool:
        """Whether this Pillow can write it."""
        return bool(features.check(self.feature))

    def encode(self, picture: Image.Image, dial: float) -> bytes:
        """The RGB picture as a file."""
        return saved(picture, self.format_name, **self.options(dial))

    def largest_within(self, picture: Image.Image, limit_bytes: int) -> bytes | None:
        """By bisection over the dials, the largest file within the limit; None if there is none."""
        dials = self.dials(picture, limit_bytes)
        low, high = 0, len(dials)
        best = None
        while low < high:
            middle = (low + high) // 2
            data = self.encode(picture, dials[middle])
            if len(data) <= limit_bytes:
                best = data
                low = middle + 1
            else:
                high = middle
        return best


def _jpeg2000_dials(picture: Image.Image, limit_bytes: int) -> Sequence[float]:
    """Targets in bits per pixel."""
    limit_bpp = 8 * limit_bytes / (picture.width * picture.height)
    return [share * limit_bpp for share in JPEG2000_TARGETS]


RIVALS = {
    "jpeg": Rival(
        "JPEG 4:2:0",
        "JPEG",
        "jpg",
        lambda quality: {"quality": int(quality), "subsampling": "4:2:0", "optimize": True},
        curve=(2, 4, 6, 9, 13, 18, 25, 35, 50, 65, 80),
        dials=lambda picture, limit: range(1, 96),
    ),
    "jpeg2000": Rival(
        "JPEG 2000",
        "JPEG2000",
        "jpg_2000",
        lambda bpp: {
            "irreversible": True,
            "mct": 1,
            "quality_mode": "rates",
            "quality_layers": [24 / bpp],
        },
        curve=(0.06, 0.09, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4),
        dials=_jpeg2000_dials,
    ),
    "webp": Rival(
        "WebP m6",
        "WEBP",
        "webp",
        lambda quality: {"quality": int(quality), "method": 6},
        curve=(0, 2, 5, 10, 18, 28, 40, 55, 70, 82),
        dials=lambda picture, limit: range(101),
    ),
    "avif": Rival(
        "AVIF 4:4:4 s4",
        "AVIF",
        "avif",
        lambda quality: {"quality": int(quality), "subsampling": "4:4:4", "speed": 4},
        curve=(4, 9, 14, 20, 27, 34, 42, 50, 58, 66, 74),
        dials=lambda picture, limit: range(101),
    ),
}
"""By name: what `compare` and `demo` look at."""

AVIF_TUNES = ("psnr", "ssim", "iq", "ssimulacra2")
"""What libaom can be told to look well by; the third is its default for pictures."""


def _tuned_avif(tune: str) -> Rival:
    options = {
        "subsampling": "4:4:4",
        "speed": 6,
        "autotiling": False,
        "advanced": {"tune": tune},
    }
    return Rival(
        f"AVIF tune {tune}",
        "AVIF",
        "avif",
        lambda quality: {"quality": int(quality), **options},
        curve=(6, 14, 24, 34, 46, 58, 70, 82, 92),
        dials=lambda picture, limit: range(101),
    )


TUNED = {f"avif-{tune}": _tuned_avif(tune) for tune in AVIF_TUNES}
"""AVIF by what it is tuned for: no setting of it is the best by every measure."""

CURVES = RIVALS | TUNED
"""By the names that `evaluate --codecs` takes."""

MEASURED = ("jpeg", "jpeg2000", "webp", *TUNED)
"""What `evaluate` takes where nothing is said: a model must stand beside AVIF's best tune."""


def avif_versions() -> str:
    """Of libavif and its encoder, as Pillow has them; empty without AVIF."""
    if not features.check("avif"):
        return ""
    from PIL import _avif

    return f"libavif {features.version('avif')}, {_avif.codec_versions()}"


def available(names: Iterable[str] = RIVALS) -> list[Rival]:
    """Those that this Pillow can write, of all or of some by name."""
    return [RIVALS[name] for name in names if RIVALS[name].available]
