"""Codes as decisions: what they cost, that they come back, and which of two the coder chooses."""

import numpy as np
import pytest
import tiny_model
from coders import Cost

from pillow_cwic.entropy.ladder import Ladder, table_size
from pillow_cwic.entropy.logistic import EXCHANGE, SCALES, TABLE_BITS
from pillow_cwic.entropy.range_coder import RangeReader, RangeWriter
from pillow_cwic.training.integer_weights import logistic_table

LADDER = tiny_model.CONFIG.ladder
SIZES = np.exp(np.linspace(-3, 5, SCALES))  # of the scales


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    """The tiny model's ladder."""
    return Ladder(logistic_table(LADDER), LADDER)


def tail(x: np.ndarray) -> np.ndarray:
    """P(a standard logistic number > x)."""
    return 0.5 - 0.5 * np.tanh(x / 2)


def bits(code: np.ndarray, mean: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Bits of codes under a logistic distribution; mean in steps. Accurate in tails, too."""
    away = np.abs(code - mean)
    likelihood = tail((away - 0.5) / size) - tail((away + 0.5) / size)
    return -np.log2(np.maximum(likelihood, 2.0**-50))


def test_the_table_is_the_logistic_distribution():
    """Every row falls from 1/2 and agrees with 1 / (1 + exp(d / 16s)) to its last digit but one."""
    table = logistic_table(LADDER)
    assert table.shape == (SCALES, table_size(LADDER))
    assert (table[:, 0] == 1 << (TABLE_BITS - 1)).all()
    assert (np.diff(table, axis=1) <= 0).all()
    d = np.array([1, 16, 200, 512])
    with np.errstate(over="ignore"):
        exact = 2**TABLE_BITS / (1 + np.exp(d / 16 / SIZES[:, None]))
    assert np.abs(table[:, d] - exact).max() <= 1


@pytest.mark.parametrize("scale", [10, 32, 50])
@pytest.mark.parametrize("mean", [-1637, -37, -8, 0, 5, 8, 100, 1003])
def test_decisions_cost_what_the_distribution_says(ladder, scale, mean):
    """A code's decisions cost -log2 of its logistic probability, on both sides of the mean."""
    tried = 0
    for code in range(mean // 16 - 12, mean // 16 + 13):
        expected = float(bits(np.array(code), np.array(mean / 16), SIZES[scale]))
        if expected < 12:
            cost = Cost()
            ladder.walk(cost, np.array([mean]), np.array([scale]), np.array([code]))
            assert cost.bits == pytest.approx(expected, rel=0.01, abs=0.02)
            price = ladder.prices[scale, abs(16 * code - mean)]
            assert price == pytest.approx(expected, rel=0.01, abs=0.02)
            tried += 1
    assert tried >= 3


@pytest.mark.parametrize("dtype", [np.int16, np.int64])
def test_every_code_comes_back_whatever_was_predicted(ladder, dtype):
    """Codes of all sizes, escapes among them, survive the coder at random means and scales."""
    random = np.random.default_rng(3)
    far = [4095, -4095, 31, 32, 33, 2047, -2048]
    codes = np.concatenate([np.arange(-80, 81), far, random.integers(-9, 10, 500)]).astype(dtype)
    mean = random.integers(-1920, 1921, len(codes)).astype(dtype)
    scale = random.integers(0, SCALES, len(codes)).astype(dtype)
    writer = RangeWriter()
    assert np.array_equal(ladder.walk(writer, mean, scale, codes), codes)
    reader = RangeReader(writer.to_bytes())
    assert np.array_equal(ladder.walk(reader, mean, scale, None), codes)
    reader.finish()


def test_a_chosen_code_is_the_better_of_a_features_two_neighbours():
    """By bits plus EXCHANGE times the squared error, computed from the logistic function itself."""
    random = np.random.default_rng(0)
    steps = Ladder(logistic_table(3), 3)
    mean = random.integers(-80, 80, 4000)
    scale = random.integers(0, SCALES, 4000)
    features = mean + np.rint(random.normal(0, 24, 4000)).astype(int)  # in sixteenths
    rounded = np.rint(features / 16).astype(int)
    chosen = steps.choose(mean, scale, rounded, features - 16 * rounded)

    def cost(codes: np.ndarray) -> np.ndarray:
        error = (codes - features / 16) ** 2
        return bits(codes, mean / 16, SIZES[scale]) + EXCHANGE * error

    around = np.stack([cost(np.floor(features / 16)), cost(np.ceil(features / 16))])
    past = np.abs(16 * rounded - mean) > 3 * 16 + 8  # the ladder's end: there rounding stands
    likely = np.maximum(around.max(0), cost(rounded)) < TABLE_BITS - 6
    assert (np.abs(chosen - features / 16) < 1).all()
    assert past.any()
    assert np.array_equal(chosen[past], rounded[past])
    assert likely.mean() > 0.5
    assert (cost(chosen) <= around.min(0) + 0.05)[likely & ~past].all()
    assert (chosen != rounded).mean() > 0.05


@pytest.mark.parametrize("scale", [0, 10, 32, 63])
@pytest.mark.parametrize("mean", [-1920, -16, -5, 0, 1, 15, 16, 17, 300])
def test_one_decision_costs_what_training_counts(scale, mean):
    """With one threshold a code is one bit, whether a number is above 0.

    Means count as at most 1 in magnitude, and the coder's least chance is 32 of 65536.
    """
    signs = Ladder(logistic_table(0), 0)
    for code in (-1, 1):
        cost = Cost()
        given = np.array([code])
        assert signs.walk(cost, np.array([mean]), np.array([scale]), given).tolist() == [code]
        expected = np.log2(1 + np.exp(-code * np.clip(mean / 16, -1, 1) / SIZES[scale]))
        assert cost.count == 1
        assert cost.bits == pytest.approx(min(expected, 11), rel=0.01, abs=0.001)
