"""The codec in small tiles, without its choices, and its codes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pillow_cwic.analysis import Analysis, Coded
from pillow_cwic.encoding import encode
from pillow_cwic.exact.layer import tile_picture
from pillow_cwic.format import container
from pillow_cwic.format.exact_tile import ExactTile, pack_tile
from pillow_cwic.format.grid import tiles
from pillow_cwic.model import Model
from pillow_cwic.options import EncodeOptions, check_picture
from pillow_cwic.weights import models

CPU = "cpu"


def load(model: str | Path | None = None) -> Model:
    """A model on the processor, by default the shipped one."""
    return models.load(model, CPU)


def encode_in_tiles(pixels: np.ndarray, tile_size: int = 64, **options: Any) -> bytes:
    """`pillow_cwic.encode` with tiles of another size."""
    return encode(pixels, EncodeOptions.from_keywords(**options), tile_size=tile_size)


def pack(analysis: Analysis, coded: Coded, tile_size: int = 1024) -> bytes:
    """The file of an RGB picture's codes, as they are or with their remainders."""
    size = analysis.pixels.shape[1], analysis.pixels.shape[0]
    model = analysis.model
    header = container.Header(*size, 3, False, coded.quality_index, model.id, tile_size)
    streams = [model.entropy.encode(*coded.tile(box)) for box in tiles(*size, tile_size)]
    return container.write(header, streams)


def encode_rounded(
    pixels: np.ndarray, quality_index: int, tile_size: int = 1024, model: Any = None
) -> bytes:
    """An RGB picture as a file whose codes were only rounded, never exchanged for cheaper ones."""
    analysis = Analysis(load(model), pixels)
    return pack(analysis, analysis.coded(quality_index)._replace(remainders=None), tile_size)


def partly_exact(pixels: np.ndarray, model: Model, chance: float) -> bytes:
    """A picture [H,W,C] as a file with exact blocks here and there, in tiles of 64 pixels.

    The second tile has none, the third is all exact.
    """
    picture = check_picture(pixels)
    analysis = Analysis(model, picture.colour)
    coded = analysis.coded(5)
    boxes = tiles(*picture.size, 64)
    exact = np.random.default_rng(3).random(coded.level.shape) < chance
    exact[boxes[1].slices] = False
    exact[boxes[2].slices] = True
    coded = coded._replace(remainders=None)
    header = container.Header(*picture.size, picture.bands, False, 5, model.id, 64)
    payloads = []
    for box in boxes:
        mask = exact[box.slices]
        stream = b""
        if not mask.all():
            stream = model.entropy.encode(*coded.tile(box))
        payloads.append(pack_tile(ExactTile(mask, tile_picture(picture, box, mask), stream)))
    return container.write(replace(header, has_exact_blocks=True), payloads)


def analysed(pixels: np.ndarray, quality_index: int, model: Any = None, **options: int) -> Coded:
    """What the encoder network makes of a picture; options are those of `Analysis`."""
    return Analysis(load(model), pixels, **options).coded(quality_index)


def kept(coded: Coded, model: Model) -> np.ndarray:
    """Which codes exist, by the levels: bool [h,w,n]."""
    counts = np.array(model.config.kept_planes)[coded.level]
    return np.arange(model.config.channels) < counts[..., None]
