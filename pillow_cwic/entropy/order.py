"""The order in which the codes are visited: seven steps through 2x2 cells.

Positions fall into 2x2 cells, channels into quarters (channel % 4). In every *turn* each position
of a cell codes another quarter, so that each turn sees a quarter more of every neighbourhood. The
first two turns, which see least, are made in several steps of a few channels each. Known to the
float network and to the integer one; no tensors of weights here.
"""

import torch
from torch import Tensor

QUARTERS = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
"""QUARTERS[turn][place]: the quarter that a place in the cell, row-major, codes in a turn."""

PARTS_OF_A_QUARTER = 4
"""Parts of a quarter: (channel // 4 + place) % PARTS.

They change with the place, as the first channels cost most: few
positions should code them while nothing is known."""

STEPS = (
    (0, (0,)),
    (0, (1,)),
    (0, (2, 3)),
    (1, (0, 1)),
    (1, (2, 3)),
    (2, (0, 1, 2, 3)),
    (3, (0, 1, 2, 3)),
)
"""Turn and parts of every step.

What is known of a neighbourhood before it: 0, 1/16, 1/8, 1/4, 3/8, 1/2, 3/4.
"""


def cell(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Place 0..3 in its 2x2 cell of every position, int64 [h,w]."""
    rows, cols = torch.arange(height, device=device), torch.arange(width, device=device)
    return rows[:, None] % 2 * 2 + cols[None] % 2


def channels(step: int, count: int) -> Tensor:
    """Which of `count` channels, a multiple of 16, each place in the cell codes in a step, int64 [4,m], ascending."""
    turn, parts = STEPS[step]
    place, number = (
        torch.arange(4)[:, None],
        torch.arange(count // 4),
    )  # a channel's number in its quarter
    coded = torch.isin((number + place) % PARTS_OF_A_QUARTER, torch.tensor(parts))  # [4,count/4]
    return torch.tensor(QUARTERS[turn])[:, None] + 4 * coded.nonzero()[:, 1].view(4, -1)


def by_step(count: int) -> Tensor:
    """The `count` channels in the order in which each place in the cell codes them, int64 [4,count]."""
    return torch.cat([channels(step, count) for step in range(len(STEPS))], 1)
