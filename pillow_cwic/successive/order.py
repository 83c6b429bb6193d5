"""The order in which the codes are visited: four quadtree steps.

Positions fall into 2x2 cells, channels into quarters (channel % 4). In every step each position of a cell codes another
quarter, so that each step sees a quarter more of every neighbourhood. Known to the float network and to the integer
one; no tensors of weights here.
"""

import torch
from torch import Tensor

STEPS = 4

CELL_OF_QUARTER = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
"""CELL_OF_QUARTER[step][quarter]: the place in the cell, row-major, that codes this quarter in this step."""


def cell(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Place 0..3 in its 2x2 cell of every position, int64 [h,w]."""
    rows, cols = torch.arange(height, device=device), torch.arange(width, device=device)
    return rows[:, None] % 2 * 2 + cols[None] % 2


def quarter(step: int) -> Tensor:
    """The quarter 0..3 that each place in the cell codes in a step, int64 [4]."""
    return torch.tensor(CELL_OF_QUARTER[step]).argsort()


def steps(channels: int) -> Tensor:
    """The step that codes each channel at each place in the cell, int64 [channels,4]."""
    table = torch.stack([quarter(step) for step in range(STEPS)])  # [step,place] -> quarter
    of_quarter = (table[:, None] == torch.arange(4)[None, :, None]).int().argmax(0)  # [quarter,place] -> step
    return of_quarter[torch.arange(channels) % 4]
