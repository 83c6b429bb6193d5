"""One integer code as a ladder of binary decisions, their probabilities from an integer table.

Zero? Which sign? More than 1 in magnitude? More than 2? ... This is the paper's binarizer at a
ladder of thresholds: `sign(y) * sum_j B(|y| - j + 1/2)`, every B a bit of its own. The ladder
stands at the predicted mean, rounded (mostly 0): a large code that was expected needs no long
climb. A code past the ladder goes on as an Exp-Golomb code with even chances. A ladder of 0 is the
paper's binarizer itself: one threshold, at zero, and one decision per code, the sign.
docs/format.md, section 5, has it in words, and its names: `f`, the foot; `e`, the mean seen from
there; the passes zero, sign, more than `j`, longer than `b`, digit `b`. Knows no networks.
"""

from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .logistic import EXCHANGE, OUTPUT_BITS, TABLE_BITS
from .range_coder import BitCoder, Probabilities

Integers = NDArray[np.integer[Any]]
Whole = TypeVar("Whole", bound=np.integer[Any])

ESCAPE_BITS = 4  # of the shortest escape; one more for each refused length
LONGEST_ESCAPE = 12  # bits: then the code ends, so that a damaged stream does, too

UNIT = 1 << OUTPUT_BITS  # one step of a code in the units of means
HALF = UNIT // 2

WHOLE = 1 << TABLE_BITS  # all chances
SEEN_MEANS = UNIT + 1  # e is -8..8 sixteenths: 8 only where sides are swapped
EVEN = 0.5

LEAST = 32  # of 65536: what the coder leaves to the unlikelier bit

WORTH = 2.0 ** (EXCHANGE * (1 - np.arange(HALF + 1) / HALF))
"""How many times likelier the other neighbour of a feature must be, by its remainder.

For features half way between two codes, 1.
"""


def table_size(ladder: int) -> int:
    """Distances from a threshold to a mean that the table holds, 0 included, in sixteenths."""
    return (ladder + 1) * UNIT + 1


def probabilities(part: Integers, whole: Integers | int) -> Probabilities:
    """P(1) = part / whole, rounded down to 1/65536 and clipped to what the coder takes."""
    share = (part << 16) // np.maximum(whole, 1)
    return share.clip(LEAST, 65536 - LEAST) / 65536


class Ladder:
    """Codes and their distributions <-> decisions."""

    def __init__(self, table: Integers, ladder: int) -> None:
        """table[scale,d], [SCALES,table_size]: P(x > mean + d/16) in units of 2^-TABLE_BITS.

        Half of all chances or less.
        """
        self.table = table.astype(np.int64)
        self.ladder = ladder
        if ladder == 0:
            self._sign = self._signs_by_mean()
            return
        # Tables of every decision's probability, by scale index and e, [SCALES*SEEN_MEANS] each.
        e = np.arange(-HALF, HALF + 1)
        above = self.table[:, HALF - e]  # P(w > 0)
        below = self.table[:, HALF + e]  # P(w < 0)
        self._zero = probabilities(above + below, WHOLE).reshape(-1)
        self._sign = probabilities(above, above + below).reshape(-1)
        beyond = [self.table[:, j * UNIT + HALF - e] for j in range(ladder + 1)]  # P(w > j)
        # More than j, for j = 1, 2, ... `ladder`; here e is e'.
        self._more = [probabilities(part, whole).reshape(-1) for whole, part in pairwise(beyond)]

    def walk(
        self, coder: BitCoder, mean: Integers, scale: Integers, codes: Integers | None
    ) -> Integers:
        """Code m codes (given: written, None: read) -> the codes [m].

        mean [m] in sixteenths, scale [m] indices.
        """
        if self.ladder == 0:
            return self._walk_signs(coder, mean, scale, codes)
        foot = (mean + HALF) >> OUTPUT_BITS  # f
        seen = mean - (foot << OUTPUT_BITS) + HALF  # e + 8
        key = scale * np.intp(SEEN_MEANS) + seen
        w = None if codes is None else codes - foot
        # The pass "zero".
        nonzero = np.flatnonzero(coder.code(self._zero.take(key), None if w is None else w != 0))
        key = key[nonzero]
        w = None if w is None else w[nonzero]
        # The pass "sign".
        positive = coder.code(self._sign.take(key), None if w is None else w > 0)
        mirrored = key + (UNIT - 2 * seen[nonzero])  # e' = -e
        key = np.where(positive, key, mirrored)
        size = self._size(coder, key, None if w is None else np.abs(w))
        coded = foot.copy()
        coded[nonzero] += np.where(positive, size, -size)
        return coded

    def choose(
        self, mean: Integers, scale: Integers, codes: NDArray[Whole], remainders: Integers
    ) -> NDArray[Whole]:
        """The better of the two integers around every feature.

        In bits plus EXCHANGE times the squared error. codes: the features rounded; remainders:
        what that left, -8..8 sixteenths of a step. All integers, hence the same choice on every
        machine that has the same features. Rounding stands past the ladder, where it is no bargain.
        """
        away = (codes.astype(np.int32) << OUTPUT_BITS) - mean
        distance = np.abs(away)
        towards_mean = remainders * away < 0  # where the other integer is
        on_ladder = distance <= self.ladder * UNIT + HALF
        open_to_choice = np.flatnonzero(towards_mean & on_ladder)
        row = scale[open_to_choice]
        distance = distance[open_to_choice]
        worth = WORTH[np.abs(remainders[open_to_choice])]
        other = self._masses[row, np.abs(distance - UNIT)]
        better = open_to_choice[other > self._masses[row, distance] * worth]
        chosen = codes.copy()
        chosen[better] -= np.sign(away[better])
        return chosen

    @cached_property
    def prices(self) -> NDArray[np.float32]:
        """Bits of a code by scale index and distance to the mean, [SCALES,columns - UNIT / 2].

        By the distribution itself: the coder rounds probabilities, and pays for escapes past the
        ladder, which this leaves out.
        """
        return np.asarray(TABLE_BITS - np.log2(np.maximum(self._masses, 1)), np.float32)

    @cached_property
    def _masses(self) -> NDArray[np.int64]:
        """P of a code by scale index and distance to the mean, in units of 2^-TABLE_BITS."""
        # Distances of its lower end from -8 on.
        above = np.concatenate([WHOLE - self.table[:, HALF:0:-1], self.table], 1)
        masses: NDArray[np.int64] = above[:, :-UNIT] - above[:, UNIT:]
        return masses

    def _signs_by_mean(self) -> Probabilities:
        """P(+1) by scale index and mean, -16..16 sixteenths, [SCALES*33]: one threshold."""
        tail = self.table[:, np.abs(np.arange(-UNIT, UNIT + 1))]  # of the mean's other side
        tail[:, UNIT + 1 :] = WHOLE - tail[:, UNIT + 1 :]
        return probabilities(tail, WHOLE).reshape(-1)

    def _walk_signs(
        self, coder: BitCoder, mean: Integers, scale: Integers, codes: Integers | None
    ) -> Integers:
        """Codes of the one threshold, +1 where the number is above zero, else -1."""
        key = scale * np.intp(2 * UNIT + 1) + mean.clip(-UNIT, UNIT) + UNIT
        positive = coder.code(self._sign.take(key), None if codes is None else codes > 0)
        return np.where(positive, 1, -1)

    def _size(self, coder: BitCoder, key: Integers, size: Integers | None) -> Integers:
        """Magnitudes 1.. of codes that are not zero."""
        climbed = np.ones(len(key), np.int64)
        climbing = np.arange(len(key))
        for j, probability in enumerate(self._more, 1):  # the passes "more than j"
            if not len(climbing):
                return climbed
            more = coder.code(probability.take(key), None if size is None else size > j)
            climbing = climbing.compress(more)
            key = key.compress(more)
            size = None if size is None else size.compress(more)
            climbed[climbing] = j + 1
        if len(climbing):
            beyond = None if size is None else size - self.ladder - 1
            climbed[climbing] += _escape(coder, len(climbing), beyond)
        return climbed


def _escape(coder: BitCoder, count: int, beyond: Integers | None) -> Integers:
    """Integers from 0 on with even chances: how many bits, then the bits, high ones first."""
    r = None if beyond is None else beyond + (1 << ESCAPE_BITS)
    length = np.full(count, ESCAPE_BITS)  # B
    asked = np.arange(count)
    for b in range(ESCAPE_BITS, LONGEST_ESCAPE):  # the passes "longer than b"
        longer = None if r is None else r[asked] >> (b + 1) != 0
        asked = asked[coder.code(np.full(len(asked), EVEN), longer)]
        length[asked] += 1
        if not len(asked):
            break
    number = np.ones(count, np.int64)  # its highest digit is not written
    for b in range(int(length.max()) - 1, -1, -1):  # the passes "digit b"
        asked = np.flatnonzero(length > b)
        digit = None if r is None else (r[asked] >> b) & 1 != 0
        coded = coder.code(np.full(len(asked), EVEN), digit)
        number[asked] = 2 * number[asked] + coded
    return number - (1 << ESCAPE_BITS)
