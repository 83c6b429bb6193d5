"""Small lossless planes inside a .cwic file, as PNG: alpha and the quality map.

No torch, no sections.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import FormatError


def encode_plane(plane: NDArray[np.uint8]) -> bytes:
    """uint8 [H,W] -> a grey 8-bit PNG file."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(out, "PNG", optimize=True)
    return out.getvalue()


def decode_plane(data: bytes, size: tuple[int, int], section: str) -> NDArray[np.uint8]:
    """A PNG file -> uint8 [H,W].

    FormatError naming the section unless it is grey, 8-bit and of `size` (w, h).
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            mode = image.mode
            width, height = image.size
            plane = np.asarray(image) if (width, height) == size and mode == "L" else None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise FormatError(f"section {section}: not a readable PNG: {error}") from error
    if plane is None:
        raise FormatError(
            f"section {section}: a PNG of {width} x {height} pixels in mode {mode}, "
            f"expected {size[0]} x {size[1]} in mode L"
        )
    return plane
