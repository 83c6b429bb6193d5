"""Layers are exact integers: what proves it at load, and what happens where a BLAS lies."""

import numpy as np
import pytest
import tiny_model
from coders import LIARS, changed, read

from pillow_cwic.entropy.integer_layer import (
    ACTIVATION,
    LOGIT,
    DepthwiseLayer,
    Layer,
    accumulator_bound,
    exact_dtype,
)
from pillow_cwic.entropy.neighbourhood import bordered, inside, squares
from pillow_cwic.entropy.tile_coder import TileCoder
from pillow_cwic.errors import WeightsError


def test_this_machines_products_are_exact():
    """NumPy's own product multiplies all bits: float32 will do."""
    assert exact_dtype() is np.float32


@pytest.mark.parametrize("liar", LIARS)
def test_a_blas_of_fewer_bits_is_found_out(liar):
    """Products of fewer bits, or sums, make the layers use float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        assert exact_dtype(LIARS[liar]) is np.float64


def test_an_honest_product_in_any_order_is_trusted():
    """Pieces of the sum, added backwards and without a BLAS, give the same integers."""

    def backwards(x, w):
        return (x[:, ::-1, None] * w[::-1]).sum(1, dtype=np.float32)

    assert exact_dtype(backwards) is np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("output", [ACTIVATION, LOGIT])
def test_a_layer_is_integer_arithmetic(dtype, output):
    """Sums, rounding half up, and clamping are those of integers, for any memory layout."""
    random = np.random.default_rng(2)
    x, weight = random.integers(-120, 121, (50, 40)), random.integers(-900, 900, (40, 7))
    bias = random.integers(-9999, 9999, (3, 7))
    args = weight.astype(np.int16), bias.astype(np.int32), [120] * 40, output
    layer = Layer("test", *args, dtype=dtype)
    total = x @ weight + bias[2]
    shifted = (total + (1 << (output.shift - 1))) >> output.shift
    expected = shifted.clip(output.low, output.high)
    assert (expected != shifted).any()
    for memory in (np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 3, 1)[:, ::3]):
        assert np.array_equal(layer(memory(x.astype(dtype)), (2,)), expected)
    assert layer.bound == accumulator_bound(weight, bias, [120] * 40, output.shift)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (4, 7)])
def test_a_depthwise_layer_is_integer_arithmetic(shape):
    """Every feature sees its own 3x3 neighbourhood, zeros outside the map."""
    random = np.random.default_rng(3)
    x = random.integers(0, 128, (*shape, 6))
    weight, bias = random.integers(-300, 300, (9, 6)), random.integers(-9999, 9999, 6)
    args = weight.astype(np.int16), bias.astype(np.int32), [127] * 9
    layer = DepthwiseLayer("test", *args, dtype=np.float32)
    padded = bordered(shape, 6, 1, np.float32)
    inside(padded, 1)[...] = x
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    total = bias + sum(
        around[dy : dy + shape[0], dx : dx + shape[1]] * weight[3 * dy + dx]
        for dy, dx in np.ndindex(3, 3)
    )
    expected = ((total + 128) >> 8).clip(0, 127)
    for memory in (padded, np.asfortranarray(padded)):
        assert np.array_equal(layer(memory, np.empty((*shape, 6), np.float32)), expected)


@pytest.mark.parametrize("radius", [1, 2])
def test_squares_are_the_neighbours_row_by_row(radius):
    """dy is the outer index, dx the middle one, the channel the inner one."""
    x = np.arange(4 * 3 * 2).reshape(4, 3, 2) + 1
    padded = bordered((4, 3), 2, radius, np.int64)
    inside(padded, radius)[...] = x
    side = 2 * radius + 1
    for memory in (padded, np.asfortranarray(padded)):
        found = squares(memory, radius)
        assert found.shape == (4, 3, side, side * 2)
        for row, column in np.ndindex(4, 3):
            expected = padded[row : row + side, column : column + side]
            assert np.array_equal(found[row, column].reshape(-1), expected.reshape(-1))


def test_the_bound_is_the_largest_sum():
    """Of all inputs at their limits with the worst signs, the largest bias, and half a unit."""
    weight, bias = np.array([[3, -1], [-2, 5]]), np.array([[7, 0], [-9, 4]])
    assert accumulator_bound(weight, bias, [10, 100], 8) == max(30 + 200 + 9, 10 + 500 + 4) + 128


def test_every_layer_stays_far_within_exact_arithmetic(tiny):
    """The proven bound is below 2^24 in every layer, with room to spare."""
    assert len(tiny.bounds) == 4 + 2 + 7 * (5 + 4)  # map, map as context, seven steps
    assert 0 < max(tiny.bounds.values()) < 0.2 * 2**24


@pytest.mark.parametrize("name", ["maps.conv2", "planes.2.depth1", "planes.3.out1"])
def test_sums_that_could_leave_exact_arithmetic_are_refused(path, name):
    """A model whose sums may exceed 2^24 does not load, and the message names the layer."""
    tensors, config = read(path)
    weight = np.full_like(tensors[f"entropy.{name}.weight"], 32000)
    tensors = tensors | {f"entropy.{name}.weight": weight}
    with pytest.raises(WeightsError, match=rf"entropy\.{name}: sums may reach \d+, beyond exact"):
        TileCoder(tensors, config)


@pytest.mark.parametrize(
    ("tensor", "array", "message"),
    [
        ("planes__0__depth2__bias", None, "no tensor {}, expected int32 [24]"),
        ("planes__6__hidden__weight", None, "no tensor {}, expected int16 [48, 24]"),
        ("logistic", np.zeros((64, 129), np.int32), "{} is int32 [64, 129], expected int32"),
        ("maps__conv1__weight", np.zeros((75, 8), np.int32), "{} is int32 [75, 8], expected int16"),
        ("planes__3__mid1__bias", np.zeros((1, 24), np.int32), "{} is int32 [1, 24], expected"),
        ("probability", np.full(257, 31, np.uint16), "{} holds 31, expected 32 to 65504"),
        ("logistic", np.full((64, 513), 2**29 + 1, np.int32), "{} holds 536870913, expected 0 to"),
        ("maps__coarsest", np.full((8, 3), -129, np.int16), "{} holds -129, expected -128 to 128"),
    ],
)
def test_tensors_that_do_not_fit_are_named(path, tensor, array, message):
    """What is missing, misshapen, of another type or out of range is refused by its name."""
    tensors, config = read(path)
    tensors = changed(tensors, **{tensor: array})
    tensors = {name: a for name, a in tensors.items() if a is not None}
    name = "entropy." + tensor.replace("__", ".")
    with pytest.raises(WeightsError) as refused:
        TileCoder(tensors, config)
    assert message.format(name) in str(refused.value)


def test_the_tiny_model_is_the_one_that_these_tests_know(path):
    """Its configuration is tiny_model.CONFIG."""
    assert read(path)[1] == tiny_model.CONFIG
