"""Correction: a look at what a picture's codes decode to, and other codes for what is wrong there.

The encoder network answers at once, for all pictures alike, and never sees a decoded one. What is
left of the picture beside the decoded one goes through the encoder's linear transform, whose
inverse the decoder nearly is, and is added to the features. Once round this loop saves about as
much as two passes of `refinement` and takes a run of the decoder, without gradients. Decoders
notice nothing. (Closed loops are older than networks: DPCM, analysis by synthesis.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .analysis import Analysis, Coded
from .format.exact_tile import Mask
from .format.grid import GRID, Box
from .networks.binarizer import code_integers, remainders
from .networks.importance import kept_mask
from .networks.numpy_layers import Quality
from .networks.registers import Floats
from .networks.windows import windows
from .runtime.blas import one_blas_thread
from .runtime.progress import CORRECTION_WORK
from .runtime.threads import map_parallel, threads_within, usable_threads


def correct(analysis: Analysis, tiles: list[Box], coded: Coded, exact: Mask) -> None:
    """Replace the codes and remainders that `Analysis.coded` gave by better ones, in place.

    exact [h,w]: where the decoder's pixels are not shown. Tiles of nothing else stay as they are,
    and so do signs, which come without remainders. Tiles come one after the other, each beside the
    corrected codes of those before it.
    """
    for box in tiles:
        is_seen = coded.level[box.slices].any() and not exact[box.slices].all()
        if coded.remainders is not None and is_seen:
            _correct_tile(analysis, box, coded, coded.remainders)
        analysis.progress.add(CORRECTION_WORK / len(tiles))


def _correct_tile(analysis: Analysis, box: Box, coded: Coded, left_over: NDArray[np.int8]) -> None:
    model = analysis.model
    codes, level, index, _ = coded
    halo = model.decoder.network.halo
    area = box.grow(halo, analysis.grid)
    with one_blas_thread():
        chosen = model.entropy.chosen_codes(
            codes[box.slices], level[box.slices], left_over[box.slices], index
        )

    # The decoder sees the mean of rounded and chosen codes. What choosing took away then comes back
    # where the picture lacks it; with the chosen codes alone, little does.
    seen = codes[area.slices].astype(np.float32)  # [h,w,n]
    inside = seen[box.within(area).slices]
    inside += chosen
    inside *= 0.5

    def linear(pixels: Floats, core: Box, quality: Quality) -> Floats:
        (features,) = model.linear({"pixels": pixels}, quality, core, core)
        return features

    def correct_core(core: Box) -> None:
        window = core.grow(halo, area)
        own = seen[core.within(area).slices]
        quality = model.quality_input(index, analysis.offsets, window)
        (shown,) = model.decoder({"codes": seen[window.within(area).slices]}, quality, window, core)
        wanted = analysis.pixels_of(core)  # [16h,16w,3]
        quality = model.quality_input(index, analysis.offsets, core)
        features = own + linear(wanted, core, quality) - linear(shown.clip(0, 1), core, quality)
        rounded = code_integers(features)
        kept = kept_mask(level[core.slices], model.config.kept_planes)
        codes[core.slices] = rounded * kept
        left_over[core.slices] = remainders(features, rounded)

    cores = windows(box, least=usable_threads(), halo=halo)
    largest_bytes = max(model.decoder.network.work_bytes(core) for core in cores)
    pixels = box.width * box.height * GRID**2
    with one_blas_thread():
        map_parallel(correct_core, cores, threads_within(pixels, largest_bytes))
