"""The codec in small tiles, its codes, and arrays as its parts take them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from pillow_cwic.analysis import Analysis, Coded
from pillow_cwic.encoding import encode
from pillow_cwic.options import EncodeOptions
from pillow_cwic.weights import models

CPU = torch.device("cpu")


def encode_in_tiles(pixels: ArrayLike, tile_size: int = 64, **options: Any) -> bytes:
    """`pillow_cwic.encode` with tiles of another size."""
    return encode(pixels, EncodeOptions.from_keywords(**options), tile_size=tile_size)


def analysed(pixels: np.ndarray, quality_index: int, model: Any = None) -> Coded:
    """What the encoder network makes of a picture."""
    return Analysis(models.load(model, CPU), pixels).coded(quality_index)


def as_codes(array: ArrayLike) -> torch.Tensor:
    """Codes or levels in the form in which entropy, analysis and synthesis take them."""
    return torch.from_numpy(np.ascontiguousarray(array))
