"""The order in which the codes are visited: seven steps through 2x2 cells.

Positions fall into 2x2 cells, channels into quarters (channel % 4). In every *turn* each position
of a cell codes another quarter, so that each turn sees a quarter more of every neighbourhood. The
first two turns, which see least, are made in several steps of a few channels each. Known to the
float network and to the integer one; no tensors of weights here.
"""

import numpy as np
from numpy.typing import NDArray

PLACES = 4
"""Places in a cell, row-major."""

QUARTERS = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
"""QUARTERS[turn][place]: the quarter that a place in the cell codes in a turn."""

PARTS_OF_A_QUARTER = 4
"""The part of a channel is (channel // 4 + place) % PARTS_OF_A_QUARTER.

Parts change with the place, as the first channels cost most: few positions should code them while
nothing is known.
"""

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


def positions(place: int) -> tuple[slice, slice]:
    """The rows and columns of a map that are at a place in their cells."""
    row, column = divmod(place, 2)
    return slice(row, None, 2), slice(column, None, 2)


def channels(step: int, count: int) -> NDArray[np.int64]:
    """Which of `count` channels, a multiple of 16, each place codes in a step, [4,m], ascending."""
    turn, parts = STEPS[step]
    place = np.arange(PLACES)[:, None]
    number = np.arange(count // 4)  # a channel's number in its quarter
    coded = np.isin((number + place) % PARTS_OF_A_QUARTER, parts)  # [4,count/4]
    numbers = coded.nonzero()[1].reshape(PLACES, -1)  # [4,m]
    return np.array(QUARTERS[turn])[:, None] + 4 * numbers


def by_step(count: int) -> NDArray[np.int64]:
    """The `count` channels in the order in which each place codes them, [4,count]."""
    return np.concatenate([channels(step, count) for step in range(len(STEPS))], 1)
