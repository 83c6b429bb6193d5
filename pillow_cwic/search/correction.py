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

from ..analysis import Analysis, Coded
from ..format.exact_tile import Mask
from ..format.grid import GRID, Box
from ..networks.importance import kept_channels
from ..networks.windows import windows
from ..runtime.blas import one_blas_thread
from ..runtime.progress import CORRECTION_WORK
from ..runtime.threads import map_parallel, threads_within, usable_threads

DROPPED = 6
"""Sixteenths that a feature lacks of its code from which on a step less is likely to be chosen."""


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
    index = coded.quality_index
    halo = model.decoder.network.halo
    area = box.grow(halo, analysis.grid)

    # Channels that no position keeps are left out of all that follows.
    count = kept_channels(coded.level[area.slices], model.config.kept_planes)
    residue = model.residue(count)
    places = (*area.slices, slice(count))
    seen = _likely_mean(coded.codes[places], left_over[places])  # [h,w,count]

    def correct_core(core: Box) -> None:
        window = core.grow(halo, area)
        own = seen[core.within(area).slices]
        quality = model.quality_input(index, analysis.offsets, window)
        (shown,) = model.decoder({"codes": seen[window.within(area).slices]}, quality, window, core)
        missing = analysis.pixels_of(core) - shown.clip(0, 1)  # [16h,16w,3]
        quality = model.quality_input(index, analysis.offsets, core)
        (features,) = residue({"pixels": missing}, quality, core, core)
        coded.binarize(core, own + features, model.config.kept_planes)

    cores = windows(box, least=usable_threads(), halo=halo)
    largest_bytes = max(model.decoder.network.work_bytes(core) for core in cores)
    pixels = box.width * box.height * GRID**2
    with one_blas_thread():
        map_parallel(correct_core, cores, threads_within(pixels, largest_bytes))


def _likely_mean(codes: NDArray[np.int16], left_over: NDArray[np.int8]) -> NDArray[np.float32]:
    """Codes [h,w,n] and their remainders -> the mean of rounded codes and those likely chosen.

    What choosing takes away comes back where the picture lacks it; of likely chosen codes alone
    little would.
    """
    codes = np.ascontiguousarray(codes)
    left_over = np.ascontiguousarray(left_over)
    sign = np.sign(codes)
    mean = codes.astype(np.float32)
    mean -= np.float32(0.5) * sign * (sign * left_over <= -DROPPED)
    return mean
