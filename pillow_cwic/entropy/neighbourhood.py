"""Neighbourhoods on a map of code positions, as flat indices: a 3x3 or 5x5 layer becomes a matrix product.

Maps are [h*w, c], row-major. Positions outside the map read as zero.
"""

import torch
from torch import Tensor


def inner(height: int, width: int, radius: int) -> Tensor:
    """Positions of a height x width map inside the same map with a border of `radius`, flat [h*w]."""
    rows, cols = torch.arange(height) + radius, torch.arange(width) + radius
    return (rows[:, None] * (width + 2 * radius) + cols).reshape(-1)


def patches(x: Tensor, shape: tuple[int, int], radius: int, at: Tensor | None = None) -> Tensor:
    """x [h*w,c] -> neighbourhoods of the positions `at` (default all), [m,(2 radius+1)^2*c]."""
    height, width = shape
    inside = inner(height, width, radius)
    padded = x.new_zeros((height + 2 * radius) * (width + 2 * radius), x.shape[1]).index_copy_(
        0, inside, x
    )
    return squares(padded, inside if at is None else inside[at], radius, width + 2 * radius)


def squares(padded: Tensor, centre: Tensor, radius: int, width: int) -> Tensor:
    """padded [p,c], a map `width` wide, centre [m] -> square neighbourhoods [m,(2 radius+1)^2*c], row by row.

    A row of a neighbourhood is contiguous in memory: one copy instead of 2 radius + 1.
    """
    side, channels = 2 * radius + 1, padded.shape[1]
    runs = padded.as_strided((padded.shape[0] - side + 1, side * channels), (channels, 1))
    return gather(runs, centre - radius, torch.arange(-radius, radius + 1) * width)


def gather(rows: Tensor, centre: Tensor, step: Tensor) -> Tensor:
    """rows [p,c], centre [m], step [k] -> the k rows at centre + step, side by side, [m,k*c]."""
    index = (centre[:, None] + step).reshape(-1)
    return rows.index_select(0, index).view(len(centre), len(step) * rows.shape[1])
