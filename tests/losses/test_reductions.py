"""Masked means and standardization."""

import numpy as np
import pytest
from keras import ops
from references import everywhere, gradient

from kerasrl.losses import masked_mean, standardize

F = "float32"


def test_without_a_mask_it_is_the_mean():
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(F)
    assert masked_mean(x) == ops.mean(x)
    np.testing.assert_allclose(masked_mean(x, x < 9), ops.mean(x), rtol=1e-6)


@pytest.mark.parametrize("kind", [bool, F, "int32"])
def test_entries_that_do_not_count_cannot_reach_it(kind):
    x, mask = np.array([1, 2, np.nan, np.inf], F), np.array([1, 1, 0, 0], kind)
    assert everywhere(masked_mean, x, mask) == 1.5
    slope = gradient(lambda x: masked_mean(x, mask), x)
    np.testing.assert_allclose(slope, [0.5, 0.5, 0, 0])


def test_a_float_mask_is_a_weight():
    assert masked_mean(np.array([1, 4], F), np.array([2, 1], F)) == 2


def test_nothing_that_counts_gives_zero():
    x, mask = np.array([np.nan, 2], F), np.zeros(2, bool)
    assert everywhere(masked_mean, x, mask) == 0
    np.testing.assert_array_equal(gradient(lambda x: masked_mean(x, mask), x), [0, 0])


def test_a_mask_of_another_shape_is_refused():
    for function in (masked_mean, standardize):
        with pytest.raises(ValueError, match="mask: \\[4, 1\\]"):
            function(np.zeros(4), np.zeros((4, 1)))


def test_standardize_is_the_sample_formula():
    x = np.random.default_rng(0).normal(3, 5, size=(6, 4)).astype(F)
    result = everywhere(standardize, x)
    np.testing.assert_allclose(
        result, (x - x.mean()) / (x.std(ddof=1) + 1e-8), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(result.std(ddof=1), 1, rtol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e9])
def test_standardize_leaves_out_masked_entries(poison):
    x = np.random.default_rng(0).normal(3, 5, size=10).astype(F)
    mask = np.arange(10) % 3 > 0
    result = everywhere(standardize, np.where(mask, x, F_(poison)), mask)
    np.testing.assert_allclose(result[mask], standardize(x[mask]), rtol=1e-5)
    assert (result[~mask] == 0).all()


@pytest.mark.parametrize("x", [[5.0], [0.1] * 7, [1e6] * 3, [0.0, 0.0]])
def test_standardize_makes_zero_of_what_does_not_vary(x):
    result = everywhere(standardize, np.array(x, F))
    np.testing.assert_allclose(result, np.zeros(len(x)), atol=1e-5)
    slope = gradient(lambda x: ops.sum(standardize(x) ** 2), np.array(x, F))
    assert np.isfinite(slope).all()


def test_standardize_with_one_or_no_entry_left():
    x = np.array([3, 4], F)
    for mask in ([True, False], [False, False]):
        np.testing.assert_array_equal(standardize(x, np.array(mask)), [0, 0])


def test_epsilon_tames_small_deviations():
    x = np.array([-1e-4, 1e-4], F)
    result = standardize(x, epsilon=1.0)
    np.testing.assert_allclose(result, x / (1 + np.std(x, ddof=1)), rtol=1e-5)


def F_(x):
    return np.float32(x)
