"""One integer code as a ladder of binary decisions, each with a probability from an integer table.

Zero? Which sign? More than 1 in magnitude? More than 2? ... This is the paper's binarizer at a
ladder of thresholds: `sign(y) * sum_j B(|y| - j + 1/2)`, every B a bit of its own. The ladder
stands at the predicted mean, rounded (mostly 0): a large code that was expected needs no long
climb. A code past the ladder goes on as an Exp-Golomb code with even chances. A ladder of 0 is the
paper's binarizer itself: one threshold, at zero, and one decision per code, the sign.
docs/format.md, section 5, has it in words. Knows no networks and no torch.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .logistic import EXCHANGE, OUTPUT_BITS, TABLE_BITS
from .range_coder import BitCoder, Bits

Integers = NDArray[np.int64]

ESCAPE_BITS = 4  # of the shortest escape; one more for each refused length
LONGEST_ESCAPE = 12  # bits: then the code ends, so that a damaged stream does, too

UNIT = 1 << OUTPUT_BITS  # one step of a code in the units of means


WORTH = 2.0 ** (EXCHANGE * (1 - np.arange(UNIT // 2 + 1) / (UNIT // 2)))
"""How many times likelier the other neighbour of a feature must be, by the sixteenths that rounding left: for features
half way between two codes, 1."""


def table_size(ladder: int) -> int:
    """Distances from a threshold to a mean that the table holds, 0 included, in sixteenths."""
    return (ladder + 1) * UNIT + 1


class Ladder:
    """Codes and their distributions <-> decisions."""

    def __init__(self, table: Integers, ladder: int) -> None:
        """table[scale,d], [SCALES,table_size]: P(x > mean + d/16) in units of 2^-TABLE_BITS, half of it or less."""
        self.table, self.ladder, self.columns = table.reshape(-1), ladder, table.shape[1]

    def walk(
        self, coder: BitCoder, mean: Integers, scale: Integers, codes: Integers | None
    ) -> Integers:
        """Code m codes (given: written, None: read): means in sixteenths [m], scale indices [m] -> the codes [m]."""
        row, half = scale * self.columns, UNIT // 2
        if self.ladder == 0:
            return self._signs(coder, row, mean, codes)
        foot = (mean + half) // UNIT  # where the ladder stands
        mean = mean - foot * UNIT  # -8..7 sixteenths
        codes = None if codes is None else codes - foot
        above, below = (
            self._above(row, half - mean),
            self._above(row, half + mean),
        )  # P(code > 0), P(code < 0)
        one = np.full_like(above, 1 << TABLE_BITS)
        nonzero = _decide(coder, above + below, one, None if codes is None else codes != 0)
        at = np.flatnonzero(nonzero)
        positive = _decide(
            coder, above[at], (above + below)[at], None if codes is None else codes[at] > 0
        )
        sign = np.where(positive, 1, -1)
        size = np.abs(codes[at]) if codes is not None else None
        found = np.zeros(len(mean), np.int64)
        found[at] = sign * self._size(coder, row[at], mean[at] * sign, size)
        return found + foot

    def choose(self, mean: Integers, scale: Integers, codes: Integers, rest: Integers) -> Integers:
        """The better of the two integers around every feature, in bits plus EXCHANGE times the squared error.

        codes: the features rounded; rest: what that left, -8..8 sixteenths of a step. All integers,
        hence the same choice on every machine that has the same features. Rounding stands past the
        ladder, where it is no bargain.
        """
        row, half = scale * self.columns, UNIT // 2
        away = codes * UNIT - mean
        at = np.flatnonzero((rest * away < 0) & (np.abs(away) <= self.ladder * UNIT + half))
        row, side, rest = row[at], np.sign(away[at]), np.abs(rest[at])

        def likelihood(distance: Integers) -> Integers:
            """P of a code at a distance from the mean, measured on the mean's upper side.

            -8 sixteenths or more.
            """
            upper, lower = distance + half, distance - half
            below = self._above(row, np.abs(lower))
            return np.where(lower < 0, (1 << TABLE_BITS) - below, below) - self._above(row, upper)

        distance = np.abs(away[at])
        other = np.abs(distance - UNIT)
        better = likelihood(other) > likelihood(distance) * WORTH[rest]
        chosen = codes.copy()
        chosen[at[better]] -= side[better]
        return chosen

    @cached_property
    def prices(self) -> NDArray[np.float32]:
        """Bits of a code by scale index and distance to the mean in sixteenths, [SCALES,columns - UNIT / 2].

        By the distribution itself: the coder rounds probabilities, and pays for escapes past the
        ladder, which this leaves out.
        """
        half, table = UNIT // 2, self.table.reshape(-1, self.columns)
        above = np.concatenate(
            [2**TABLE_BITS - table[:, half:0:-1], table], 1
        )  # distances from -8 on
        p = above[:, : -2 * half] - above[:, 2 * half :]  # [SCALES,columns-8]: P in units of 2^-30
        return np.asarray(TABLE_BITS - np.log2(np.maximum(p, 1)), np.float32)

    def _signs(
        self, coder: BitCoder, row: Integers, mean: Integers, codes: Integers | None
    ) -> Integers:
        """Codes of the one threshold, -1 or +1: is the number above zero? Means count as at most 1 in magnitude."""
        whole = np.full_like(mean, 1 << TABLE_BITS)
        tail = self._above(
            row, np.minimum(np.abs(mean), UNIT)
        )  # of the side that the mean is not on
        positive = _decide(
            coder,
            np.where(mean > 0, whole - tail, tail),
            whole,
            None if codes is None else codes > 0,
        )
        return np.where(positive, 1, -1)

    def _size(
        self, coder: BitCoder, row: Integers, mean: Integers, size: Integers | None
    ) -> Integers:
        """Magnitudes 1.. of codes that are not zero, their means turned to the code's side."""
        found = np.ones(len(row), np.int64)
        at = np.arange(len(row))
        reached = self._above(row, UNIT // 2 - mean)
        for j in range(1, self.ladder + 1):
            if not len(at):
                return found
            beyond = self._above(row[at], j * UNIT + UNIT // 2 - mean[at])
            more = _decide(coder, beyond, reached, None if size is None else size[at] > j)
            at, reached = at[more], beyond[more]
            found[at] += 1
        if len(at):
            found[at] += _escape(
                coder, len(at), None if size is None else size[at] - self.ladder - 1
            )
        return found

    def _above(self, row: Integers, distance: Integers) -> Integers:
        """P(x > mean + distance/16) in units of 2^-30, distance from 0 up: the ladder stands at the rounded mean."""
        tail: Integers = self.table[row + distance]
        return tail


def _decide(
    coder: BitCoder, part: Integers, whole: Integers, bits: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Code bits whose P(1) is part / whole, rounded down to 1/65536 and clipped to 32..65504 of them."""
    p = np.clip((part << 16) // np.maximum(whole, 1), 32, 65504)
    coded = coder(p / 65536, None if bits is None else bits.astype(np.int32))
    return coded.astype(np.bool_)


def _escape(coder: BitCoder, count: int, rest: Integers | None) -> Integers:
    """Integers from 0 on with even chances: how many bits, then the bits, high ones first."""
    even = np.full(count, 0.5)
    shifted = None if rest is None else rest + (1 << ESCAPE_BITS)
    length = np.full(count, ESCAPE_BITS)
    at = np.arange(count)
    for bits in range(ESCAPE_BITS, LONGEST_ESCAPE):
        longer = (
            coder(
                even[at],
                None if shifted is None else (shifted[at] >> (bits + 1) > 0).astype(np.int32),
            )
            != 0
        )
        at = at[longer]
        length[at] += 1
        if not len(at):
            break
    found = np.ones(count, np.int64)
    for place in range(LONGEST_ESCAPE - 1, -1, -1):
        at = np.flatnonzero(length > place)
        if len(at):
            given: Bits | None = (
                None if shifted is None else (shifted[at] >> place & 1).astype(np.int32)
            )
            found[at] = found[at] * 2 + coder(even[at], given)
    return found - (1 << ESCAPE_BITS)
