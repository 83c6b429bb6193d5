"""Content-weighted image compression (arXiv 1703.10553) for Pillow and imageio: `.cwic` files.

Importing this package registers the format with both. It loads no torch, reads no weights and touches no network: that
waits for the first pixel. Invariant: what is listed in `__all__` is the public interface, stable between releases.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from . import imageio_plugin, pillow_plugin
from .container import Header, read_header
from .errors import CwicError, FormatError, UnsupportedError, WeightsError

if TYPE_CHECKING:
    import numpy
    import torch
    from numpy.typing import ArrayLike, NDArray

__version__ = "0.1.0"
__all__ = [
    "CwicError",
    "FormatError",
    "Header",
    "UnsupportedError",
    "WeightsError",
    "decode",
    "encode",
    "importance_map",
    "read_header",
    "register",
]


def encode(
    array: ArrayLike,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    importance: ArrayLike | None = None,
    effort: int = 0,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    comment: bytes | None = None,
) -> bytes:
    """Compress one picture into the bytes of a .cwic file.

    array: uint8, [H,W] grey or [H,W,C] with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; alpha is kept without loss.
    quality: 0 (smallest file) to 1 (best), default 0.5; or bpp: bits per pixel to come close to; or max_bytes: the
    best quality whose whole file is not larger. At most one of the three.
    importance: uint8 [H,W], 128 neutral, more where bits should go. effort: passes of a search for better codes, 0 to
    100; ten save 3 to 9 % of a photograph's bytes. model: name, id or path of a weights file.
    device: "cpu", "cuda", "cuda:1" or "auto"; default PILLOW_CWIC_DEVICE, else auto.
    ValueError names the option, its range and the value found; WeightsError if the model cannot be had.
    """
    from . import codec

    return codec.encode(
        array,
        quality=quality,
        bpp=bpp,
        max_bytes=max_bytes,
        importance=importance,
        effort=effort,
        model=model,
        device=device,
        icc_profile=icc_profile,
        exif=exif,
        xmp=xmp,
        dpi=dpi,
        comment=comment,
    )


def decode(
    data: bytes | bytearray | memoryview,
    *,
    device: str | torch.device | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> NDArray[numpy.uint8]:
    """Decompress the bytes of a .cwic file.

    Returns uint8 [H,W] for grey, else [H,W,C] with C = 2, 3 or 4 as in `encode`. region: (left, upper, right, lower) in
    pixels, decoded alone, with the same pixels as a crop of the whole (±1). FormatError says what is damaged and where.
    """
    from . import codec

    return codec.decode(data, device=device, region=region)


def importance_map(
    data_or_file: bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO,
) -> NDArray[numpy.uint8]:
    """Where a .cwic file's bits went: its importance levels, uint8 [ceil(H/16), ceil(W/16)] (paper, section 3.3)."""
    from . import codec

    return codec.importance_map(data_or_file)


def register() -> None:
    """Register .cwic with Pillow and imageio; importing the package has done so, and doing it again is harmless."""
    pillow_plugin.register()
    imageio_plugin.register()


register()
