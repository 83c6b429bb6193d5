"""What the package and the independent decoder find in one file, side by side."""

from __future__ import annotations

import numpy as np
from closeness import assert_close
from coding import CPU
from independent_decoder import File

from pillow_cwic.exact.layer import ExactLayer
from pillow_cwic.format import container
from pillow_cwic.format.grid import code_grid, tiles
from pillow_cwic.weights import models


def the_projects(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Levels [h,w] and codes [h,w,n] of a file as the package decodes them."""
    parsed = container.read(data)
    header, loaded = parsed.header, models.load(parsed.header.model_id, CPU)
    grid = code_grid(*header.size)
    level = np.zeros((grid.height, grid.width), np.int64)
    codes = np.zeros((grid.height, grid.width, loaded.config.channels), np.int64)
    layer = ExactLayer(parsed)
    for index, box in enumerate(tiles(*header.size, header.tile_size)):
        tile = layer.tile(index, box)
        if not tile.has_codes:
            continue
        shape = (box.height, box.width)
        found = loaded.entropy.decode(tile.stream, shape, header.quality_index)
        codes[box.slices], level[box.slices] = map(np.asarray, found)
    return level, codes


def agree(file: File, data: bytes, picture: np.ndarray) -> None:
    """Both decoders find the same levels and codes, and pixels within 1 of 255; alpha exactly."""
    level, codes = the_projects(data)
    assert np.array_equal(file.level, level)
    assert np.array_equal(file.codes, codes)
    pixels, expected = file.pixels(), picture.reshape(*picture.shape[:2], -1)
    assert_close(pixels, expected)
    if file.header.flags & 2:
        assert np.array_equal(pixels[:, :, -1], expected[:, :, -1])
