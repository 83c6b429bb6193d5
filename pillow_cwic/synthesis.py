"""Synthesis: codes -> pixels, window by window (paper, section 3.1: the decoder).

Invariant: where a picture is cut into windows or tiles does not show, up to float rounding.
"""

import numpy as np
import torch
from torch import Tensor

from .format.grid import GRID, Box, covering
from .format.quality_map import Offsets
from .model import Model
from .networks.windows import Pixels, windows
from .runtime.devices import inference


def synthesize(
    model: Model, codes: Tensor, quality: tuple[int, Offsets | None], present: Box, region: Box
) -> Pixels:
    """Codes [h,w,n] -> the pixels uint8 [H,W,3] of `region`.

    quality: the index and its offsets on the picture's whole code grid. `present` is where on that
    grid the codes lie: they may be a part of it, as long as it holds the region and a halo around
    it.
    """
    out = np.empty((region.height, region.width, 3), np.uint8)
    for core in windows(covering(region)):
        window = core.grow(model.config.decoder_halos[-1], present)
        present_codes = codes[window.within(present).slices].to(model.device)
        with inference():
            x = present_codes.float().permute(2, 0, 1)[None]  # [1,n,h,w], channels last in memory
            picture = model.decoder(x, model.quality_input(*quality, window), core.within(window))[
                0
            ]
            picture = picture.clamp_(0, 1).mul_(255).round_().to(torch.uint8)  # [3,H,W]
        seen = core.scale(GRID).grow(0, region)  # the core's pixels, cut off at the region
        inside = picture[:, *seen.within(core.scale(GRID)).slices]
        out[seen.within(region).slices] = inside.permute(1, 2, 0).cpu().numpy()
    return out
