"""The order in which codes are visited, by the table of docs/format.md."""

import numpy as np
import pytest
from independent_tile import QUARTERS, STEPS

from pillow_cwic.entropy import order


@pytest.mark.parametrize("count", [16, 32, 256])
def test_steps_are_those_of_the_document(count):
    """At every place, the channels of a step are those whose quarter and part the table names."""
    for step, (turn, parts) in enumerate(STEPS):
        channels = order.channels(step, count)
        assert channels.dtype == np.int64
        for place in range(4):
            quarter = range(QUARTERS[turn][place], count, 4)
            assert channels[place].tolist() == [c for c in quarter if (c // 4 + place) % 4 in parts]


def test_every_code_is_visited_once():
    """Each channel has one step at a place; steps code 1, 1, 2, 2, 2, 4 and 4 of 16 channels."""
    visited = order.by_step(32)
    assert (np.sort(visited, 1) == np.arange(32)).all()
    assert [order.channels(step, 16).shape[1] for step in range(7)] == [1, 1, 2, 2, 2, 4, 4]
    assert (order.channels(0, 16) // 4).ravel().tolist() == [0, 3, 2, 1]


def test_places_are_row_major_in_their_cells():
    """Slices of a map by place hold the positions that the document counts so."""
    row, column = np.indices((5, 7))
    for place in range(order.PLACES):
        assert (((row % 2) * 2 + column % 2)[order.positions(place)] == place).all()
    assert sum(row[order.positions(place)].size for place in range(4)) == 35
