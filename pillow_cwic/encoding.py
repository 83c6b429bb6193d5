"""Encoding: a picture and options -> the bytes of a .cwic file, tile by tile.

The model is loaded at the first call, not at import. What the bytes mean is in docs/format.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .analysis import Analysis, Coded
from .exact.choice import Chosen, ExactChoice
from .exact.continuation import continue_smoothly
from .exact.layer import tile_picture
from .format import container
from .format.container import Header
from .format.exact_tile import ExactTile, pack_tile
from .format.grid import Box, tiles
from .format.png_plane import encode_plane
from .format.quality_map import block_offsets, offsets_on_grid, pack_quality_map
from .image_modes import check_exact_mode, grey_mask, stored_image
from .options import EncodeOptions, Picture, check_picture
from .runtime.blas import one_blas_thread
from .runtime.devices import resolve_device
from .runtime.machine import memory_errors
from .runtime.progress import (
    CODING_WORK,
    CORRECTION_WORK,
    FEATURES_WORK,
    HEADS_WORK,
    PASS_WORK,
    Progress,
)
from .runtime.threads import map_parallel
from .search.correction import correct
from .search.rate import file_at_rate
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
    """The file of a picture's codes, beside the blocks that are cheaper exactly."""
    original = picture
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

    boxes = tiles(*picture.size, tile_size)
    choice = ExactChoice(analysis, picture, boxes if options.exact else [])
    header = Header(
        *picture.size,
        picture.bands,
        alpha is not None,
        quality_index=0,
        model_id=model.id,
        tile_size=tile_size,
    )

    def encode_at(quality_index: int, effort: int) -> bytes:
        chosen = choice.at(quality_index)
        correct(chosen.analysis, boxes, chosen.coded, chosen.exact)
        if effort:
            chosen = chosen._replace(coded=_refined(chosen, boxes, effort))
        is_exact = bool(chosen.exact.all())
        lossless = is_exact and picture is original
        made = replace(
            header,
            quality_index=0 if lossless else quality_index,
            has_exact_blocks=bool(chosen.exact.any()),
            lossless=lossless,
            has_quality_map=quality_map is not None and not is_exact,
        )

        def encode_tile(box: Box) -> bytes:
            if made.has_exact_blocks:
                return choice.payload(chosen, box)
            return model.entropy.encode(*chosen.coded.tile(box))

        counting = progress.counting(encode_tile, CODING_WORK / len(boxes))
        with one_blas_thread():
            payloads = map_parallel(counting, boxes)
        qualities = quality_map if made.has_quality_map else None
        return container.write(made, payloads, alpha, options.metadata, qualities)

    pixel_count = picture.size[0] * picture.size[1]
    data = file_at_rate(encode_at, options, model.config.quality_count, pixel_count)
    progress.finish()
    return data


def _expected_work(options: EncodeOptions, quality_count: int) -> float:
    """Roughly, in the units of `progress`: a search tries a quality for each bit of their count."""
    is_search = options.quality is None
    tries = quality_count.bit_length() if is_search else int(not options.effort)
    refinements = (2 if is_search else 1) if options.effort else 0
    work = FEATURES_WORK + (tries + refinements) * (HEADS_WORK + CORRECTION_WORK + CODING_WORK)
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
        exact = np.ones((box.height, box.width), np.bool_)
        return pack_tile(ExactTile(exact, tile_picture(picture, box, exact), b""))

    progress = Progress(options.progress)
    progress.expect(1)
    streams = map_parallel(progress.counting(encode_tile, 1 / len(boxes)), boxes)
    data = container.write(header, streams, alpha, options.metadata)
    progress.finish()
    return data


def _refined(chosen: Chosen, boxes: list[Box], effort: int) -> Coded:
    """The codes, after so many passes of refinement."""
    if chosen.coded.remainders is None or chosen.exact.all():
        return chosen.coded
    from .search.refinement import refine

    return refine(chosen.analysis, boxes, chosen.coded, effort, exact=chosen.exact)
