"""Content-weighted image compression (arXiv 1703.10553) for Pillow and imageio: `.cwic` files.

Importing this package registers the format with both. It loads no torch, reads no weights and
touches no network: that waits for the first pixel. Invariant: what is listed in `__all__` is the
public interface, stable between releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import registration as _registration
from .errors import CwicError, FormatError, UnsupportedError, WeightsError
from .format.container import read_header
from .format.header import Header
from .format.metadata import Metadata
from .runtime.forks import no_fork as _no_fork

if TYPE_CHECKING:
    import numpy
    from numpy.typing import ArrayLike, NDArray
    from PIL import Image

    from .format.framing import DataOrFile
    from .image_modes import Importance
    from .options import Device, ModelName, Region
    from .runtime.progress import Tell
    from .weights.models import ModelInfo

__version__ = "0.1.0"
__all__ = [
    "CwicError",
    "FormatError",
    "Header",
    "Metadata",
    "UnsupportedError",
    "WeightsError",
    "decode",
    "encode",
    "importance_map",
    "model_info",
    "read_header",
    "register",
]


def encode(
    picture: ArrayLike | Image.Image,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    importance: Importance | None = None,
    effort: int = 0,
    lossless: bool = False,
    exact: bool = True,
    exact_alpha: bool = False,
    model: ModelName | None = None,
    device: Device = None,
    progress: Tell | None = None,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | float | None = None,
    comment: bytes | str | None = None,
) -> bytes:
    """Compress one picture into the bytes of a .cwic file.

    Parameters
    ----------
    picture
        uint8, [H,W] grey or [H,W,C] with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. Alpha is
        kept without loss. Or an image of Pillow in any mode of 8 bits, which goes the way that its
        `save` goes: its colour profile and its comment are kept unless others are given.
    quality
        A dial from 0 (smallest file) to 1 (best), default 0.4. At most one of `quality`, `bpp` and
        `max_bytes` is given.
    bpp
        Bits per pixel of the whole file to come close to: the nearest of the model's qualities.
    max_bytes
        The best quality whose whole file has at most so many bytes.
    importance
        An image of Pillow or an array [H,W]: 128 is neutral, more where bits should go. 16 bits are
        scaled, floats are 0..1. Its sides have the picture's ratio.
    effort
        Passes of a search for better codes, 0 (none) to 100. A pass takes about twice as long
        as decoding. Files get better and, at low rates, a little larger; any decoder reads them.
        With `bpp` or `max_bytes` it may run at two or three qualities to meet the target.
    lossless
        Whether every pixel is kept as it is. No model is needed then, and none of the options above
        may be given.
    exact
        Whether text and graphics may be kept as they are, block by block, where that is cheaper
        than coding them well enough.
    exact_alpha
        Whether colours where alpha is 0 are coded as if they were seen. Else a smooth continuation
        of what is around takes their place: a smaller file, and no hidden colour at its edges.
    model
        A model's name, its id, or the path of a weights file; None is the default model.
    device
        "cpu", "cuda", "cuda:1" or "auto"; default: PILLOW_CWIC_DEVICE, else "auto".
    progress
        A function that is told the share that is done, from 0 to 1; it may be called from other
        threads, one at a time, and what it raises ends the call.
    icc_profile, exif, xmp, comment
        Blocks that are kept byte for byte; a comment given as text is stored in UTF-8.
    dpi
        Dots per inch, one number or (x, y).

    Returns
    -------
    The file's bytes.

    Raises
    ------
    ValueError, TypeError
        An option or the pixels mean nothing; the message names range and value found.
    OSError
        An image has more than 8 bits; the message has the conversion.
    WeightsError
        The model cannot be had.
    """
    with _no_fork():
        from .encoding import encode as encode_picture
        from .image_modes import with_lasting
        from .options import EncodeOptions

    metadata = with_lasting(
        picture,
        {"icc_profile": icc_profile, "exif": exif, "xmp": xmp, "dpi": dpi, "comment": comment},
    )
    options = EncodeOptions.from_keywords(
        quality=quality,
        bpp=bpp,
        max_bytes=max_bytes,
        importance=importance,
        effort=effort,
        lossless=lossless,
        exact=exact,
        exact_alpha=exact_alpha,
        model=model,
        device=device,
        progress=progress,
        **metadata,
    )
    return encode_picture(picture, options)


def decode(
    data_or_file: DataOrFile,
    *,
    device: Device = None,
    region: Region | None = None,
    progress: Tell | None = None,
) -> NDArray[numpy.uint8]:
    """Decompress a .cwic file: bytes, a path, or an open binary file from where it stands.

    Parameters
    ----------
    data_or_file
        The file.
    device, progress
        As in `encode`.
    region
        (left, upper, right, lower) in pixels: only these are decoded, and equal a crop of the whole
        within 1 of 255.

    Returns
    -------
    uint8 [H,W] for grey, else [H,W,C] with C = 2, 3 or 4 as in `encode`.

    Raises
    ------
    FormatError
        The file is damaged; the message says where.
    UnsupportedError
        It needs a newer version, or has more than twice PIL.Image.MAX_IMAGE_PIXELS.
    WeightsError
        Its model cannot be had.
    ValueError
        The region is empty or leaves the picture.
    OSError
        The file cannot be read.
    """
    with _no_fork():
        from .decoding import decode as decode_file

    return decode_file(data_or_file, device=device, region=region, progress=progress)


def importance_map(data_or_file: DataOrFile) -> NDArray[numpy.uint8]:
    """Where a .cwic file's bits went: its importance levels (paper, section 3.3).

    Takes bytes, a path or an open binary file. Returns uint8 [ceil(H/16), ceil(W/16)], one level
    for each block of 16 x 16 pixels: 0 .. L-1, where L is `model_info(...).importance_levels` of
    the model that `read_header(...).model_id` names. Errors as for `decode`; no pixels are decoded.
    """
    with _no_fork():
        from .decoding import importance_map as read_levels

    return read_levels(data_or_file)


def model_info(model: ModelName | None = None) -> ModelInfo:
    """What a model is: name, id, number of qualities and of importance levels.

    model: a name, an id (`read_header(...).model_id`) or the path of a weights file; None is the
    default model. A model that is not on this machine is fetched. WeightsError if it cannot be had.
    """
    from .weights import models

    return models.info(model)


def register() -> None:
    """Register .cwic with Pillow and imageio.

    Importing the package has done so; doing it again is harmless.
    """
    _registration.register()


register()
