"""Photographs for the training tests.

Pieces of the ones that scikit-image carries, so that no download is needed.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

PIECE = 200  # pixels per side, enough for MS-SSIM


def photographs() -> dict[str, npt.NDArray[np.uint8]]:
    """RGB photographs by name."""
    from skimage import data

    return {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}


def write_pieces(folder: Path) -> list[Path]:
    """Cut them into PNG files of PIECE x PIECE pixels.

    The last two of each photograph are left out, for testing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pixels in photographs().items():
        rows, columns = (range(0, n - PIECE + 1, PIECE) for n in pixels.shape[:2])
        for top in rows:
            for left in columns:
                path = folder / f"{name}-{top}-{left}.png"
                Image.fromarray(pixels[top : top + PIECE, left : left + PIECE]).save(path)
                written.append(path)
    return written
