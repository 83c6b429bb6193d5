"""Decoding: the bytes of a .cwic file (and a region) -> pixels; or its importance map.

The model is loaded at the first call, not at import. What the bytes mean is in docs/format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import FormatError, UnsupportedError
from .exact.layer import ExactLayer
from .format import container
from .format.container import Container, Header
from .format.framing import DataOrFile
from .format.grid import GRID, MIN_POSITIONS, Box, code_grid, covering, tiles_in
from .format.png_plane import decode_plane
from .format.quality_map import Offsets, offsets_in_file
from .networks.bands import Bands
from .runtime.blas import one_blas_thread
from .runtime.devices import resolve_device
from .runtime.machine import memory_errors
from .runtime.progress import Progress
from .runtime.threads import map_parallel, threads_within
from .synthesis import synthesize
from .weights import models

if TYPE_CHECKING:
    from .model import Model
    from .options import Device, Region
    from .runtime.progress import Tell

ALWAYS_DECODED = 1 << 24
"""Pixels in tiles that a region may need however low Pillow's limit is."""


def decode(
    data_or_file: DataOrFile,
    *,
    device: Device = None,
    region: Region | None = None,
    progress: Tell | None = None,
) -> NDArray[np.uint8]:
    """Decompress one file, as `pillow_cwic.decode` describes it."""
    parsed = container.read(data_or_file)
    return decode_container(parsed, device=device, region=region, progress=progress)


def decode_container(
    parsed: Container,
    *,
    device: Device = None,
    region: Region | None = None,
    progress: Tell | None = None,
) -> NDArray[np.uint8]:
    """As `decode`, from a container that was read or salvaged already.

    A lost tile shows what no codes decode to. Where all blocks are exact, no model is loaded.
    """
    header = parsed.header
    box = _checked_region(header, region)
    with memory_errors(f"decode {box.width} x {box.height} pixels", "decode a smaller region"):
        _check_work(header, box, 0)
        layer = ExactLayer(parsed)
        pixels = np.empty((box.height, box.width, header.bands + header.alpha), np.uint8)
        colours = pixels[:, :, : header.bands]
        counted = Progress(progress)
        if not layer.mask(covering(box)).all():
            _decode_codes(layer, box, device, colours, counted)
        layer.paste(box, colours)
        if header.alpha:
            pixels[:, :, -1] = _alpha(parsed, box)
        counted.finish()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _decode_codes(
    layer: ExactLayer, box: Box, device: Device, colours: NDArray[np.uint8], progress: Progress
) -> None:
    """What the networks show of a region `box` of pixels -> colours [H,W,bands].

    Where blocks are exact, pixels may stay as they are.
    """
    header = layer.header
    model = models.load(header.model_id, resolve_device(device))
    _check_quality_index(header, model)
    _check_work(header, box, model.halo)
    area = covering(box)
    progress.expect(2 * area.width * area.height)  # entropy decoding, then the networks
    bands = Bands.of(header, model.config, model.halo)
    reader = _CodeReader(layer, model, box, progress)
    for stripe in bands.stripes(box):
        codes = None
        for band, area in bands.bands(stripe):
            with model.building_decoder():
                codes = reader.read(area, codes)
            quality = (header.quality_index, quality_offsets(layer.parsed, area))
            out = colours[band.within(box).slices]
            exact = layer.mask(covering(band))
            synthesize(
                model, codes.codes, quality, area, band, out=out, exact=exact, progress=progress
            )


def importance_map(data_or_file: DataOrFile) -> NDArray[np.uint8]:
    """The importance level at every code position, as `pillow_cwic.importance_map` describes it."""
    parsed = container.read(data_or_file)
    header = parsed.header
    _check_work(header, Box(0, 0, *header.size), 0)
    grid = code_grid(*header.size)
    layer = ExactLayer(parsed)

    def decode_tile(job: tuple[int, Box]) -> None:
        index, box = job
        tile = layer.tile(index, box)
        if tile is not None and tile.has_codes:
            levels[box.slices] = model.entropy.decode_level(
                tile.stream, tile.exact.shape, header.quality_index
            )

    with memory_errors("decode the importance map", "no part of it can be asked for"):
        levels = np.zeros((grid.height, grid.width), np.uint8)
        if not layer.mask(grid).all():
            model = models.load(header.model_id, resolve_device("cpu"))
            _check_quality_index(header, model)
            with one_blas_thread():
                map_parallel(decode_tile, tiles_in(grid, grid, header.tile_size))
    return levels[: -(-header.height // GRID), : -(-header.width // GRID)]


def quality_offsets(parsed: Container, area: Box | None = None) -> Offsets | None:
    """What the file adds to its quality index at every code position of an area, float32 [h,w].

    By default of the whole code grid; None without a quality map.
    """
    if parsed.quality_map is None:
        return None
    size = parsed.header.size
    return offsets_in_file(parsed.quality_map, size, area or code_grid(*size))


class _Decoded(NamedTuple):
    """Codes [h,w,n], and where on the code grid they lie."""

    codes: NDArray[np.int16]
    area: Box


class _CodeReader:
    """The codes of a file, for a region of it in pixels: one area of the code grid at a time."""

    def __init__(self, layer: ExactLayer, model: Model, region: Box, progress: Progress) -> None:
        self.layer = layer
        self.entropy = model.entropy
        self.channels = model.config.channels
        self.region = region
        self.progress = progress

    def read(self, area: Box, before: _Decoded | None) -> _Decoded:
        """The codes of an area; what lies in the one before, above it, is taken from there."""
        header = self.layer.header
        codes = np.zeros((area.height, area.width, self.channels), np.int16)
        missing = area
        if before is not None:
            missing = Box(area.left, before.area.lower, area.right, area.lower)
            above = Box(area.left, area.upper, area.right, before.area.lower)
            codes[above.within(area).slices] = before.codes[above.within(before.area).slices]

        def decode_tile(job: tuple[int, Box]) -> None:
            index, box = job
            tile = self.layer.tile(index, box)
            if tile is None or not tile.has_codes:
                return  # stays without
            try:
                tile_codes, _ = self.entropy.decode(
                    tile.stream, tile.exact.shape, header.quality_index
                )
            except FormatError as error:
                raise FormatError(f"tile {index} of {header.tile_count}: {error}") from error
            inside = box.intersection(missing)
            codes[inside.within(area).slices] = tile_codes[inside.within(box).slices]
            self.progress.add(inside.width * inside.height)

        jobs = list(tiles_in(missing, code_grid(*header.size), header.tile_size))
        with one_blas_thread():
            map_parallel(decode_tile, jobs, self._threads(jobs))
        return _Decoded(codes, area)

    def _threads(self, jobs: list[tuple[int, Box]]) -> int:
        """How many tiles at a time memory is meant for, if all are like the worst of them."""
        payloads = self.layer.parsed.tiles
        tile_bytes = (
            self.entropy.work_bytes(box.width * box.height, len(payloads[index] or b""))
            for index, box in jobs
        )
        return threads_within(self.region.width * self.region.height, max(tile_bytes, default=0))


def _checked_region(header: Header, region: Region | None) -> Box:
    picture = Box(0, 0, *header.size)
    if region is None:
        return picture
    # Four numbers in an order, all of them whole: nothing else has edges, and none is cut off.
    try:
        edges = np.asarray(region)
    except ValueError:  # of several lengths
        edges = np.empty(0)
    are_four = edges.dtype.kind in "iuf" and edges.shape == (4,)
    if not are_four or not (np.isfinite(edges) & (np.rint(edges) == edges)).all():
        raise ValueError(
            f"region is (left, upper, right, lower) in whole pixels, found {region!r:.200}"
        )
    box = Box(*(int(edge) for edge in edges))
    if box.width <= 0 or box.height <= 0 or box != box.grow(0, picture):
        raise ValueError(
            f"region {tuple(box)} is empty or leaves the picture "
            f"of {header.width} x {header.height} pixels"
        )
    return box


def _check_work(header: Header, box: Box, halo: int) -> None:
    """Refuse to show, or to decode for it, more pixels than Pillow would open."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None:
        return
    for pixels, most, what in (
        (box.width * box.height, 2 * limit, "pixels"),
        (_pixels_to_decode(header, box, halo), max(2 * limit, ALWAYS_DECODED), "to be decoded"),
    ):
        if pixels > most:
            raise UnsupportedError(
                f"{box.width} x {box.height} pixels, {pixels} {what}, are more than twice "
                f"PIL.Image.MAX_IMAGE_PIXELS ({limit:g}): raise that limit, on the command line by "
                "--max-pixels, if you trust the file, or decode a smaller region"
            )


def _pixels_to_decode(header: Header, box: Box, halo: int) -> int:
    """Pixels of the tiles that a region needs, whose sides are coded as 48 at least.

    An alpha plane can only be unpacked from its first row on.
    """
    side = header.tile_size
    width, height = (max(edge, MIN_POSITIONS * GRID) for edge in header.size)
    needed = covering(box).grow(halo, code_grid(*header.size)).scale(GRID)
    right, lower = (-(-edge // side) * side for edge in (needed.right, needed.lower))
    columns = min(right, width) - needed.left // side * side
    rows = min(lower, height) - needed.upper // side * side
    return max(columns * rows, header.width * box.lower * header.alpha)


def _check_quality_index(header: Header, model: Model) -> None:
    if header.quality_index >= model.config.quality_count:
        raise FormatError(
            f"section HEAD: quality index {header.quality_index}, but model {header.model_id} has "
            f"{model.config.quality_count} qualities"
        )


def _alpha(parsed: Container, box: Box) -> NDArray[np.uint8] | int:
    """The alpha plane of a region [H,W]; opaque where it was lost."""
    if parsed.alpha is None:
        return 255
    return decode_plane(parsed.alpha, parsed.header.size, "ALPH", box)
