"""Synthesis: codes -> pixels, window by window (paper, section 3.1: the decoder).

Invariant: where a picture is cut into windows or tiles does not show, up to float rounding.
"""

import numpy as np
from numpy.typing import NDArray

from .format.exact_tile import Mask
from .format.grid import GRID, Box, covering
from .format.quality_map import Offsets
from .model import Model
from .networks.binarizer import channels_in_use
from .networks.windows import LARGEST_WINDOW, Pixels, windows
from .runtime.blas import one_blas_thread
from .runtime.progress import Progress
from .runtime.threads import map_parallel, threads_within, usable_threads


def synthesize(
    model: Model,
    codes: NDArray[np.int16],
    quality: tuple[int, Offsets | None],
    coded_area: Box,
    region: Box,
    *,
    out: Pixels | None = None,
    exact: Mask | None = None,
    largest_window: int = LARGEST_WINDOW,
    progress: Progress | None = None,
) -> Pixels:
    """Codes [h,w,n] -> the pixels uint8 [H,W,3] of `region`, or of `out`.

    quality: the index, and its offsets where the codes lie. coded_area: where on the picture's code
    grid that is; it may be a part, as long as it holds the region and a halo around it. out: memory
    for the pixels, [H,W,3], or [H,W,1] for the means of the three. exact [h,w]: code positions of
    the region whose pixels need not be made. progress: is told of positions.
    """
    if out is None:
        out = np.empty((region.height, region.width, 3), np.uint8)
    target = out
    network = model.decoder.network

    def fill(core: Box) -> None:
        window = core.grow(network.halo, coded_area)
        x = codes[window.within(coded_area).slices]  # [h,w,n]
        x = x[:, :, : channels_in_use(x)]
        index = model.quality_input(*quality, window.within(coded_area))
        (picture,) = model.decoder({"codes": x}, index, window, core)  # [16h',16w',3]

        seen = core.scale(GRID).grow(0, region)  # the core's pixels, cut off at the region
        inside = picture[seen.within(core.scale(GRID)).slices]
        pixels = np.rint(inside.clip(0, 1) * 255)  # [H',W',3]
        if target.shape[2] == 1:
            pixels = np.rint(pixels.mean(2, keepdims=True))  # [H',W',1]
        target[seen.within(region).slices] = pixels
        if progress is not None:
            progress.add(core.width * core.height)

    area = covering(region)
    cores = windows(area, least=usable_threads(), largest=largest_window, halo=network.halo)
    if exact is not None and exact.any():
        cores = [
            needed for core in cores for needed in _needed(core, exact[core.within(area).slices])
        ]
    largest_bytes = max((network.work_bytes(core) for core in cores), default=0)
    threads = threads_within(region.width * region.height, largest_bytes)
    with one_blas_thread():
        map_parallel(fill, cores, threads)
    return out


def _needed(core: Box, exact: Mask) -> list[Box]:
    """The smallest box of a core that holds all positions to be made; none where all are exact."""
    rows, columns = (np.flatnonzero(~exact.all(axis)) for axis in (1, 0))
    if not rows.size:
        return []
    inside = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return [inside.shift(core.left, core.upper)]
