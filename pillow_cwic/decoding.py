"""Decoding: the bytes of a .cwic file (and a region) -> pixels; or its importance map.

The model is loaded at the first call, not at import. What the bytes mean is in docs/format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError, UnsupportedError
from .format import container
from .format.container import Container, Header
from .format.framing import DataOrFile
from .format.grid import GRID, Box, code_grid, covering, tiles
from .format.png_plane import decode_plane
from .format.quality_map import Offsets, offsets_on_grid, unpack_quality_map
from .weights import models

if TYPE_CHECKING:
    from .model import Model
    from .options import Device, Region


def decode(
    data_or_file: DataOrFile, *, device: Device = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """Decompress one file, as `pillow_cwic.decode` describes it."""
    return decode_container(container.read(data_or_file), device=device, region=region)


def decode_container(
    parsed: Container, *, device: Device = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """As `decode`, from a container that was read or salvaged already.

    A lost tile shows what no codes decode to.
    """
    from .runtime.devices import resolve_device
    from .synthesis import synthesize

    box = _checked_region(parsed.header, region)
    _check_pixels(box)
    model = models.load(parsed.header.model_id, resolve_device(device))
    _check_quality_index(parsed.header, model)
    codes, coded_area = _decode_tiles(parsed, model, box)
    quality = (parsed.header.quality_index, quality_offsets(parsed))
    colour = synthesize(model, codes, quality, coded_area, box)
    return _joined(colour, parsed, box)


def importance_map(data_or_file: DataOrFile) -> NDArray[np.uint8]:
    """The importance level at every code position, as `pillow_cwic.importance_map` describes it."""
    from .runtime.blas import one_blas_thread
    from .runtime.devices import resolve_device
    from .runtime.threads import map_parallel

    parsed = container.read(data_or_file)
    header = parsed.header
    model = models.load(header.model_id, resolve_device("cpu"))
    _check_quality_index(header, model)
    grid = code_grid(*header.size)
    levels = np.zeros((grid.height, grid.width), np.uint8)

    def decode_tile(job: tuple[bytes | None, Box]) -> None:
        stream, tile = job
        shape = (tile.height, tile.width)
        level = model.entropy.decode_level(stream or b"", shape, header.quality_index)
        levels[tile.slices] = level

    boxes = tiles(*header.size, header.tile_size)
    with one_blas_thread():
        map_parallel(decode_tile, zip(parsed.tiles, boxes, strict=True))
    return levels[: -(-header.height // GRID), : -(-header.width // GRID)]


def quality_offsets(parsed: Container) -> Offsets | None:
    """What the file adds to its quality index at every code position, float32 [h,w]."""
    if parsed.quality_map is None:
        return None
    size = parsed.header.size
    return offsets_on_grid(unpack_quality_map(parsed.quality_map, size), size)


def _decode_tiles(parsed: Container, model: Model, region: Box) -> tuple[NDArray[np.int16], Box]:
    """Codes [h,w,n] of the tiles that a region of pixels needs; where on the code grid they lie."""
    from .runtime.blas import one_blas_thread
    from .runtime.threads import map_parallel

    header = parsed.header
    needed = covering(region).grow(model.decoder.halo, code_grid(*header.size))
    boxes = tiles(*header.size, header.tile_size)
    jobs = [(index, tile) for index, tile in enumerate(boxes) if tile.meets(needed)]
    first, last = jobs[0][1], jobs[-1][1]  # row-major: the corners of a rectangle of tiles
    area = Box(first.left, first.upper, last.right, last.lower)
    shape = (area.height, area.width, model.config.channels)
    codes = np.zeros(shape, np.int16)

    def decode_tile(job: tuple[int, Box]) -> None:
        index, tile = job
        stream = parsed.tiles[index]
        if stream is None:
            return  # lost; stays without codes
        try:
            shape = (tile.height, tile.width)
            tile_codes, _ = model.entropy.decode(stream, shape, header.quality_index)
        except FormatError as error:
            raise FormatError(f"tile {index} of {len(boxes)}: {error}") from error
        codes[tile.within(area).slices] = tile_codes

    with one_blas_thread():
        map_parallel(decode_tile, jobs)
    return codes, area


def _checked_region(header: Header, region: Region | None) -> Box:
    picture = Box(0, 0, *header.size)
    if region is None:
        return picture
    try:
        box = Box(*(int(edge) for edge in region))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"region is (left, upper, right, lower) in pixels, found {region!r}"
        ) from error
    if box.width <= 0 or box.height <= 0 or box != box.grow(0, picture):
        raise ValueError(
            f"region {tuple(box)} is empty or leaves the picture "
            f"of {header.width} x {header.height} pixels"
        )
    return box


def _check_pixels(box: Box) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and box.width * box.height > 2 * limit:
        raise UnsupportedError(
            f"{box.width} x {box.height} pixels are more than twice "
            f"PIL.Image.MAX_IMAGE_PIXELS ({limit}): "
            "raise that limit if you trust the file, or decode a region"
        )


def _check_quality_index(header: Header, model: Model) -> None:
    if header.quality_index >= model.config.quality_count:
        raise FormatError(
            f"section HEAD: quality index {header.quality_index}, but model {header.model_id} has "
            f"{model.config.quality_count} qualities"
        )


def _joined(colour: NDArray[np.uint8], parsed: Container, box: Box) -> NDArray[np.uint8]:
    """Colour [H,W,3] and the file's alpha -> the array of the header's mode."""
    header = parsed.header
    if header.bands == 1:
        mean = colour.mean(2, dtype=np.float32, keepdims=True)
        colour = np.rint(mean).astype(np.uint8)  # [H,W,1]
    if header.alpha:
        alpha = np.full((box.height, box.width), 255, np.uint8)
        if parsed.alpha is not None:
            alpha = decode_plane(parsed.alpha, header.size, "ALPH")[box.slices]
        colour = np.concatenate([colour, alpha[:, :, None]], 2)  # [H,W,C+1]
    return colour[:, :, 0] if colour.shape[2] == 1 else colour
