"""Pixels <-> the bytes of a .cwic file: tiles, windows, rate targets, regions.

Arrays are uint8, HxW (grey), HxWx2 (grey, alpha), HxWx3 (RGB) or HxWx4 (RGBA). Torch and the model are loaded at the
first call, not at import. What a file's bytes mean is in docs/format.md.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import container, tiling, weights
from .config import GRID
from .container import Container, Header
from .errors import FormatError, UnsupportedError
from .options import NEUTRAL, REGION_BLOCK, RateOption, check_effort, metadata, picture, quality_shift
from .png_plane import decode_plane, encode_plane
from .tiling import Box

if TYPE_CHECKING:
    import torch

    from .model import Model
    from .windows import Analysis

TILE_SIZE = 1024
"""Pixels per side of a tile: small enough to decode a region cheaply, large enough to cost nothing in rate."""


def encode(
    array: ArrayLike,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    importance: Any = None,
    effort: int = 0,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    comment: bytes | str | None = None,
) -> bytes:
    """Compress a picture.

    array: uint8 HxW or HxWx{1,2,3,4}. Give at most one of quality (a dial in [0, 1], default 0.5), bpp (bits per pixel
    of the whole file: the nearest of the model's qualities is taken) and max_bytes (the highest quality that fits).
    importance: "L" image or uint8 HxW, 128 neutral, more where bits should go; the importance map follows it.
    effort: passes of a search for better codes, 0 (none) to 100; ten save 3 to 9 % of a photograph's bytes. With bpp or
    max_bytes a search may take two or three qualities to meet the target.
    model: a name, an id or a weights file; None is the default. device: "cpu", "cuda", "cuda:1", "auto".

    ValueError or TypeError for wrong options or pixels, WeightsError for a model that cannot be had.
    """
    from . import windows
    from .model import resolve_device

    rate = RateOption(quality, bpp, max_bytes)
    check_effort(effort)
    pixels = picture(array)
    extra = metadata(icc_profile, exif, xmp, dpi, comment)
    loaded = weights.load(model, resolve_device(device))
    if effort and loaded.config.one_bit:
        raise ValueError(f"effort = {effort}: model {loaded.id} has one-bit codes, effort refines integer ones")
    shift = quality_shift(importance, pixels.size, loaded.config.quality_count)
    analysis = windows.Analysis(loaded, pixels.colour, _on_grid(shift, pixels.size))
    alpha = None if pixels.alpha is None else encode_plane(pixels.alpha)
    quality_map = None if shift is None else encode_plane((shift + NEUTRAL).astype(np.uint8))

    def at(quality_index: int, effort: int = 0) -> bytes:
        header = Header(
            *pixels.size,
            pixels.bands,
            alpha is not None,
            quality_index,
            loaded.id,
            TILE_SIZE,
            regions=shift is not None,
        )
        return container.write(header, _encode_tiles(analysis, header, effort), alpha, extra, quality_map)

    return _at_rate(at, rate, effort, loaded.config.quality_count - 1, pixels.size[0] * pixels.size[1])


def decode(
    data: bytes | bytearray | memoryview,
    *,
    device: str | torch.device | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> NDArray[np.uint8]:
    """Decompress a file to uint8 HxW or HxWx{2,3,4}, as its header's mode says.

    region: (left, upper, right, lower) in pixels; only the tiles that it needs are decoded.
    FormatError for damaged bytes, UnsupportedError beyond this version's limits, WeightsError without its model,
    ValueError for a region outside the picture.
    """
    return decode_container(container.read(data), device=device, region=region)


def decode_container(
    parsed: Container, *, device: str | torch.device | None = None, region: tuple[int, int, int, int] | None = None
) -> NDArray[np.uint8]:
    """As `decode`, from a container that was read or salvaged already; a lost tile shows what no codes decode to."""
    from . import windows
    from .model import resolve_device

    box = _region(parsed.header, region)
    _check_pixels(box)
    loaded = weights.load(parsed.header.model_id, resolve_device(device))
    _check_quality_index(parsed.header, loaded)
    codes, present = _decode_tiles(parsed, loaded, box)
    quality = parsed.header.quality_index, _quality_shift(parsed)
    colour = windows.synthesize(loaded, codes, quality, present, box)
    return _join(colour, parsed, box)


def importance_map(
    data_or_file: bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO,
) -> NDArray[np.uint8]:
    """The importance level at every code position of a file, uint8 [ceil(H/16), ceil(W/16)].

    Errors as for `decode`.
    """
    from .model import resolve_device
    from .workers import map_one_thread

    parsed = container.read(_bytes(data_or_file))
    header = parsed.header
    loaded = weights.load(header.model_id, resolve_device("cpu"))
    _check_quality_index(header, loaded)
    grid = tiling.code_grid(*header.size)
    out = np.zeros((grid.height, grid.width), np.uint8)

    def one(job: tuple[bytes | None, Box]) -> None:
        stream, tile = job
        level = loaded.entropy.decode_level(stream or b"", (tile.height, tile.width), header.quality_index)
        out[tile.slices] = level.numpy()

    map_one_thread(one, zip(parsed.tiles, tiling.tiles(*header.size, header.tile_size), strict=True))
    return out[: -(-header.height // GRID), : -(-header.width // GRID)]


def _bytes(source: Any) -> Any:
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    return source.read() if hasattr(source, "read") else source


def _at_rate(at: Callable[..., bytes], rate: RateOption, effort: int, last: int, pixels: int) -> bytes:
    """The file at the quality index that the option asks for, 0..last; at(quality_index, effort=0) makes one.

    Indices are found by files without effort, a tenth of the work. Effort makes files larger, by a tenth at the lowest
    rates: then the target is lowered by as much and met again, until the index stays.
    """
    if rate.quality is not None:
        return at(round(rate.quality * last), effort)
    target = rate.max_bytes or (rate.bpp or 0) * pixels / 8
    plain = functools.cache(at)

    def wanted(aim: float) -> int | None:
        """The index whose file without effort is nearest to so many bytes, or the largest within them."""
        sizes = {index: len(plain(index)) for index in _bracket(plain, last, aim)}
        if rate.max_bytes is not None:
            return next((index for index, size in sizes.items() if size <= aim), None)
        return min(sizes, key=lambda index: abs(sizes[index] - aim))

    index = first = wanted(target)
    if first is None:
        raise ValueError(f"max_bytes = {rate.max_bytes}: the smallest file of this picture has {len(plain(0))} bytes")
    refined: dict[int, bytes] = {}
    while effort and index is not None and index not in refined:
        refined[index] = at(index, effort)
        if rate.max_bytes is not None and len(refined[index]) <= target:
            return refined[index]
        index = wanted(target * len(plain(index)) / len(refined[index]))
    if rate.max_bytes is not None or not refined:
        return plain(first)
    return min(refined.values(), key=lambda file: abs(len(file) - target))


def _bracket(at: Callable[[int], bytes], last: int, target: float) -> list[int]:
    """The indices around `target` bytes: of a file of at most that size, and of the next quality's, which is larger.

    Bisection over the quality indices, taking sizes to grow with the index; one index alone where the range ends.
    """
    low, high = -1, last + 1  # sizes at low <= target < sizes at high
    while high - low > 1:
        middle = (low + high) // 2
        if len(at(middle)) <= target:
            low = middle
        else:
            high = middle
    return [index for index in (low, high) if 0 <= index <= last]


def _encode_tiles(analysis: Analysis, header: Header, effort: int) -> list[bytes]:
    """The streams of all tiles, in file order."""
    from .workers import map_one_thread

    boxes, quality_index = tiling.tiles(*header.size, header.tile_size), header.quality_index
    codes, level, rest = analysis.codes(quality_index)
    entropy = analysis.model.entropy
    if effort and rest is not None:
        from .refine import refine

        codes = refine(analysis, boxes, codes, level, rest, quality_index, effort)
        rest = None

    def one(tile: Box) -> bytes:
        left = None if rest is None else rest[tile.slices]
        return entropy.encode(codes[tile.slices], level[tile.slices], quality_index, left)

    return map_one_thread(one, boxes)


def _decode_tiles(parsed: Container, model: Model, region: Box) -> tuple[torch.Tensor, Box]:
    """Codes [h,w,n] of the tiles that a region of pixels needs, and where on the code grid they lie."""
    import torch

    from .workers import map_one_thread

    header = parsed.header
    needed = tiling.covering(region).grow(model.config.decoder_halos[-1], tiling.code_grid(*header.size))
    boxes = tiling.tiles(*header.size, header.tile_size)
    jobs = [(i, tile) for i, tile in enumerate(boxes) if tile.meets(needed)]
    first, last = jobs[0][1], jobs[-1][1]  # row-major: the corners of a rectangle of tiles
    area = Box(first.left, first.upper, last.right, last.lower)
    codes = torch.zeros(area.height, area.width, model.config.planes, dtype=torch.int16, device="cpu")

    def one(job: tuple[int, Box]) -> None:
        index, tile = job
        stream = parsed.tiles[index]
        if stream is None:
            return  # lost; stays without codes
        try:
            part, _ = model.entropy.decode(stream, (tile.height, tile.width), header.quality_index)
        except FormatError as error:
            raise FormatError(f"tile {index} of {len(boxes)}: {error}") from error
        codes[tile.within(area).slices] = part

    map_one_thread(one, jobs)
    return codes, area


def _region(header: Header, region: tuple[int, int, int, int] | None) -> Box:
    whole = Box(0, 0, *header.size)
    if region is None:
        return whole
    try:
        box = Box(*(int(edge) for edge in region))
    except (TypeError, ValueError) as error:
        raise ValueError(f"region is (left, upper, right, lower) in pixels, found {region!r}") from error
    if box.width <= 0 or box.height <= 0 or box != box.grow(0, whole):
        raise ValueError(
            f"region {tuple(box)} is empty or leaves the picture of {header.width} x {header.height} pixels"
        )
    return box


def _on_grid(shift: NDArray[np.int16] | None, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """A quality shift per block -> the shift at every code position, float32 [h,w].

    Linear between the centres of blocks: a step in quality would show as an edge in the picture.
    """
    if shift is None:
        return None
    grid = tiling.code_grid(*size)
    down = _interpolated(shift.astype(np.float32), grid.height)  # [h,columns]
    return np.ascontiguousarray(_interpolated(down.T, grid.width).T)  # [h,w]


def _interpolated(blocks: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """blocks [m,k], one row per REGION_BLOCK pixels -> [count,k], one row per code position."""
    at = ((np.arange(count, dtype=np.float32) + 0.5) * (GRID / REGION_BLOCK) - 0.5).clip(0, len(blocks) - 1)
    first = at.astype(np.int64)
    weight = (at - first)[:, None]
    return blocks[first] * (1 - weight) + blocks[np.minimum(first + 1, len(blocks) - 1)] * weight


def _quality_shift(parsed: Container) -> NDArray[np.float32] | None:
    """What the file adds to its quality index at every code position, float32 [h,w]."""
    if parsed.quality_map is None:
        return None
    width, height = parsed.header.size
    blocks = decode_plane(parsed.quality_map, (-(-width // REGION_BLOCK), -(-height // REGION_BLOCK)), "QMAP")
    return _on_grid(blocks.astype(np.int16) - NEUTRAL, parsed.header.size)


def _check_pixels(box: Box) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and box.width * box.height > 2 * limit:
        raise UnsupportedError(
            f"{box.width} x {box.height} pixels are more than twice PIL.Image.MAX_IMAGE_PIXELS ({limit}): "
            "raise that limit if you trust the file, or decode a region"
        )


def _check_quality_index(header: Header, model: Model) -> None:
    if header.quality_index >= model.config.quality_count:
        raise FormatError(
            f"section HEAD: quality index {header.quality_index}, but model {header.model_id} has "
            f"{model.config.quality_count} qualities"
        )


def _join(colour: NDArray[np.uint8], parsed: Container, box: Box) -> NDArray[np.uint8]:
    """Colour [H,W,3] and the file's alpha -> the array of the header's mode."""
    header = parsed.header
    if header.bands == 1:
        colour = np.rint(colour.mean(2, dtype=np.float32, keepdims=True)).astype(np.uint8)  # [H,W,1]
    if header.alpha:
        alpha = np.full((box.height, box.width), 255, np.uint8)
        if parsed.alpha is not None:
            alpha = decode_plane(parsed.alpha, header.size, "ALPH")[box.slices]
        colour = np.concatenate([colour, alpha[:, :, None]], 2)
    return colour[:, :, 0] if colour.shape[2] == 1 else colour
