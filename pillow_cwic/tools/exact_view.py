"""Which blocks of a .cwic file are exact, as a picture for people: the others are tinted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from ..exact.layer import ExactLayer, of_pixels
from ..format import container
from ..format.grid import code_grid

TITLE = "Exact blocks untinted"
TINT = (220, 30, 90)


class ExactView(NamedTuple):
    """A picture in which blocks that are not exact are tinted, and what is to be said of it."""

    picture: Image.Image
    figures: str


def exact_view(data: bytes, picture: Image.Image) -> ExactView | None:
    """The view of a file, and of the RGB picture that it decodes to; None without exact blocks."""
    parsed = container.read(data)
    if not parsed.header.has_exact_blocks:
        return None
    layer = ExactLayer(parsed)
    pixels = np.asarray(picture)  # uint8 [H,W,3]
    exact = of_pixels(layer.mask(code_grid(*parsed.header.size)), pixels.shape)  # [H,W]
    tinted = (pixels // 2 + np.array(TINT) // 2).astype(np.uint8)
    shown = Image.fromarray(np.where(exact[:, :, None], pixels, tinted))
    return ExactView(shown, f"{layer.share():.0%} of the blocks are exact; the others are tinted")
