"""Neighbourhoods on a map of code positions, as flat indices: a 3x3 or 5x5 layer becomes a matrix product.

Maps are [h*w, c], row-major. Positions outside the map read as zero.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def steps(radius: int, width: int, keep: Callable[[int, int], bool] = lambda dy, dx: True) -> Tensor:
    """Flat index steps to the (2 radius + 1)^2 neighbours in a map `width` wide, row-major, where keep(dy, dx)."""
    reach = range(-radius, radius + 1)
    return torch.tensor([dy * width + dx for dy in reach for dx in reach if keep(dy, dx)])


def inner(height: int, width: int, radius: int) -> Tensor:
    """Positions of a height x width map inside the same map with a border of `radius`, flat [h*w]."""
    rows, cols = torch.arange(height) + radius, torch.arange(width) + radius
    return (rows[:, None] * (width + 2 * radius) + cols).reshape(-1)


def patches(x: Tensor, shape: tuple[int, int], radius: int, at: Tensor | None = None) -> Tensor:
    """x [h*w,c] -> neighbourhoods of the positions `at` (default all), [m,(2 radius+1)^2*c]."""
    height, width = shape
    inside = inner(height, width, radius).to(x.device)
    padded = x.new_zeros((height + 2 * radius) * (width + 2 * radius), x.shape[1]).index_copy_(0, inside, x)
    centre = inside if at is None else inside[at]
    return gather(padded, centre, steps(radius, width + 2 * radius).to(x.device))


def gather(padded: Tensor, centre: Tensor, step: Tensor) -> Tensor:
    """padded [p,c], centre [m], step [k] -> the k neighbours of every centre, [m,k*c]."""
    index = (centre[:, None] + step).reshape(-1)
    return padded.index_select(0, index).view(len(centre), len(step) * padded.shape[1])
