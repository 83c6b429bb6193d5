"""Encoding: a picture and options -> the bytes of a .cwic file, tile by tile.

The model is loaded at the first call, not at import. What the bytes mean is in docs/format.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .analysis import Analysis
from .continuation import continue_smoothly
from .exact_layer import exact_tile
from .format import container
from .format.container import Header
from .format.grid import Box, tiles
from .format.png_plane import encode_plane
from .format.quality_map import block_offsets, offsets_on_grid, pack_quality_map
from .image_modes import check_exact_mode, grey_mask, stored_image
from .options import EncodeOptions, Picture, check_picture
from .rate_search import file_at_rate
from .runtime.blas import one_blas_thread
from .runtime.devices import import_torch, resolve_device
from .runtime.machine import memory_errors
from .runtime.progress import CODING_WORK, FEATURES_WORK, HEADS_WORK, PASS_WORK, Progress
from .runtime.threads import map_parallel
from .weights import models

TILE_SIZE = 1024
"""Pixels per side of a tile: small enough to decode a region cheaply, large enough to cost nothing
in rate."""


def encode(
    pixels: ArrayLike | Image.Image, options: EncodeOptions, *, tile_size: int = TILE_SIZE
) -> bytes:
    """Compress one picture, as `pillow_cwic.encode` describes it; tile_size in pixels.

    The options' colour profile is that of an image's values, in whatever mode it is.
    """
    if isinstance(pixels, Image.Image):
        stored = stored_image(pixels, options.metadata.icc_profile)
        metadata = replace(options.metadata, icc_profile=stored.icc_profile)
        options = replace(options, metadata=metadata)
        if options.lossless:
            check_exact_mode(pixels)
        pixels = np.asarray(stored.image)  # uint8 [H,W] or [H,W,C]
    picture = check_picture(pixels)
    width, height = picture.size
    with memory_errors(f"encode {width} x {height} pixels", "encode parts of it"):
        encode_picture = _encode_lossless if options.lossless else _encode_lossy
        return encode_picture(picture, options, tile_size)


def _encode_lossy(picture: Picture, options: EncodeOptions, tile_size: int) -> bytes:
    """The file of a picture's codes."""
    if not options.exact_alpha:
        picture = with_visible_colours(picture)
    mask = None if options.importance is None else grey_mask(options.importance, picture.size)
    model = models.load(options.model, resolve_device(options.device))
    if options.effort and model.config.one_bit:
        raise ValueError(
            f"effort = {options.effort}: model {model.id} has one-bit codes, "
            "effort refines integer ones"
        )

    # The planes beside the codes, which no quality changes.
    offsets = None
    if mask is not None:
        offsets = block_offsets(mask, picture.size, model.config.quality_count)
    alpha = None if picture.alpha is None else encode_plane(picture.alpha)
    quality_map = None if offsets is None else pack_quality_map(offsets)

    on_grid = None if offsets is None else offsets_on_grid(offsets, picture.size)
    progress = Progress(options.progress)
    progress.expect(_expected_work(options, model.config.quality_count))
    analysis = Analysis(model, picture.colour, on_grid, progress=progress)

    def encode_at(quality_index: int, effort: int) -> bytes:
        header = Header(
            *picture.size,
            picture.bands,
            alpha is not None,
            quality_index,
            model.id,
            tile_size,
            has_quality_map=quality_map is not None,
        )
        streams = _encode_tiles(analysis, header, effort)
        return container.write(header, streams, alpha, options.metadata, quality_map)

    pixel_count = picture.size[0] * picture.size[1]
    data = file_at_rate(encode_at, options, model.config.quality_count, pixel_count)
    progress.finish()
    return data


def _expected_work(options: EncodeOptions, quality_count: int) -> float:
    """Roughly, in the units of `progress`: a search tries a quality for each bit of their count."""
    is_search = options.quality is None
    tries = quality_count.bit_length() if is_search else int(not options.effort)
    refinements = (2 if is_search else 1) if options.effort else 0
    work = FEATURES_WORK + (tries + refinements) * (HEADS_WORK + CODING_WORK)
    return work + refinements * options.effort * PASS_WORK


def with_visible_colours(picture: Picture) -> Picture:
    """The picture with what nobody sees, colours below alpha = 0, continuing those around."""
    if picture.alpha is None or picture.alpha.all():
        return picture
    hidden = picture.alpha == 0  # [H,W]
    if hidden.all():
        return replace(picture, colour=np.zeros_like(picture.colour))
    return replace(picture, colour=continue_smoothly(picture.colour, hidden))


def _encode_lossless(picture: Picture, options: EncodeOptions, tile_size: int) -> bytes:
    """The file whose blocks are all exact; the model is named, as files do, but not loaded."""
    alpha = None if picture.alpha is None else encode_plane(picture.alpha)
    header = Header(
        *picture.size,
        picture.bands,
        alpha is not None,
        quality_index=0,
        model_id=models.find(options.model).id,
        tile_size=tile_size,
        has_exact_blocks=True,
        lossless=True,
    )
    boxes = tiles(*picture.size, tile_size)

    def encode_tile(box: Box) -> bytes:
        return exact_tile(picture, box, np.ones((box.height, box.width), np.bool_), b"")

    progress = Progress(options.progress)
    progress.expect(1)
    streams = map_parallel(progress.counting(encode_tile, 1 / len(boxes)), boxes)
    data = container.write(header, streams, alpha, options.metadata)
    progress.finish()
    return data


def _encode_tiles(analysis: Analysis, header: Header, effort: int) -> list[bytes]:
    """The streams of all tiles, in file order."""
    boxes = tiles(*header.size, header.tile_size)
    coded = analysis.coded(header.quality_index)
    if effort and coded.remainders is not None:
        import_torch("effort")
        from .refinement import refine

        coded = refine(analysis, boxes, coded, effort)
    entropy = analysis.model.entropy

    def encode_tile(box: Box) -> bytes:
        return entropy.encode(*coded.tile(box))

    counting = analysis.progress.counting(encode_tile, CODING_WORK / len(boxes))
    with one_blas_thread():
        return map_parallel(counting, boxes)
