"""The formats that .cwic is compared with: their best file within a number of bytes, as Pillow writes it.

Settings are those of the published tables. No torch, no .cwic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image, features

from .recode import recoded

Search = Callable[[Image.Image, int], bytes | None]
"""(RGB picture, limit in bytes) -> the best file that is not larger; None if even the worst is."""


def jpeg(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """JPEG, 4:2:0 with optimized tables."""
    settings = [{"quality": q, "subsampling": "4:2:0", "optimize": True} for q in range(1, 96)]
    return _largest_within(picture, limit_bytes, "JPEG", settings)


def jpeg2000(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """JPEG 2000 codestream, 9/7 wavelet. It misses its own target a little, hence many targets."""
    raw_bytes = 3 * picture.width * picture.height
    targets = [int(limit_bytes * (0.7 + 0.01 * step)) for step in range(40)]
    fixed = {"irreversible": True, "mct": 1, "no_jp2": True, "quality_mode": "rates"}
    settings = [{**fixed, "quality_layers": [raw_bytes / max(1, target)]} for target in targets]
    return _largest_within(picture, limit_bytes, "JPEG2000", settings)


def webp(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """WebP, lossy, slowest method."""
    return _largest_within(picture, limit_bytes, "WEBP", [{"quality": q, "method": 6} for q in range(101)])


def avif(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """AVIF, 4:4:4, speed 4."""
    settings = [{"quality": q, "subsampling": "4:4:4", "speed": 4} for q in range(101)]
    return _largest_within(picture, limit_bytes, "AVIF", settings)


_ALL: dict[str, tuple[str, Search]] = {  # name: (Pillow's feature, search)
    "JPEG 4:2:0": ("jpg", jpeg),
    "JPEG 2000": ("jpg_2000", jpeg2000),
    "WebP": ("webp", webp),
    "AVIF": ("avif", avif),
}


def available(names: Iterable[str] = _ALL) -> dict[str, Search]:
    """Those that this Pillow can write, of all or of some by name."""
    return {name: _ALL[name][1] for name in names if features.check(_ALL[name][0])}


def _largest_within(
    picture: Image.Image, limit_bytes: int, format_name: str, settings: Sequence[dict[str, Any]]
) -> bytes | None:
    """By bisection over settings in order of size, the largest file that is within the limit."""
    low, high, best = 0, len(settings), None
    while low < high:
        middle = (low + high) // 2
        data = recoded(picture, format_name, **settings[middle])
        if len(data) <= limit_bytes:
            low, best = middle + 1, data
        else:
            high = middle
    return best
