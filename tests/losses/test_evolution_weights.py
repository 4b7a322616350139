"""Ranks and weights of directions, against literal vectors and slow definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import everywhere

from kerasrl.losses import centered_ranks, evolution_weights, random_search_weights

RETURNS = np.array([[10.0, -5.0], [3.0, 8.0], [0.0, 1.0]])
DIRECTIONS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])


def pairs():
    row = st.tuples(st.integers(-3, 3), st.integers(-3, 3))  # Many are equal.
    rows = st.lists(row, min_size=1, max_size=12)
    return rows.map(lambda x: np.array(x, np.float64))


def slow_ranks(returns):
    """The mean place of each return among all, over every order of its equals."""
    flat = returns.reshape(-1)
    ranks = [np.sum(flat < x) + (np.sum(flat == x) - 1) / 2 for x in flat]
    count = len(flat)
    return np.reshape(ranks, returns.shape) / (count - 1) - 0.5


def slow_random_search(returns, num_top):
    best = [max(pair) for pair in returns]
    kept = sorted(range(len(returns)), key=lambda k: -best[k])[:num_top]
    deviation = np.std(returns[kept])
    weights = np.zeros(len(returns))
    if deviation > 0:
        for k in kept:
            difference = returns[k, 0] - returns[k, 1]
            weights[k] = difference / (num_top * deviation)
    return weights, deviation


def test_literal_vectors_of_evolution_strategies():
    ranks = everywhere(centered_ranks, RETURNS)
    np.testing.assert_allclose(ranks, [[0.5, -0.5], [0.1, 0.3], [-0.3, -0.1]])
    weights = everywhere(evolution_weights, RETURNS)
    np.testing.assert_allclose(weights * 6, [1.0, -0.2, -0.2])
    gradient = weights @ DIRECTIONS
    np.testing.assert_allclose(gradient, [0.13333333, 0.0], atol=1e-8)


def test_equal_returns_share_their_ranks():
    ranks = np.asarray(centered_ranks([[1.0, 1.0], [2.0, 2.0]]))
    third = 1 / 3
    np.testing.assert_allclose(ranks, [[-third, -third], [third, third]], rtol=1e-6)
    assert np.asarray(ranks).dtype == "float32"
    np.testing.assert_array_equal(centered_ranks([7.0]), [0.0])


@pytest.mark.parametrize("count", [1, 2, 25])
@pytest.mark.parametrize("value", [0.0, 500.0, 0.1, -1e9])
def test_a_population_of_equal_returns_moves_nothing(count, value):
    returns = np.full((count, 2), value)
    assert not np.asarray(evolution_weights(returns)).any()
    weights, deviation = random_search_weights(returns, count)
    assert not np.asarray(weights).any() and np.isfinite(deviation)


def test_literal_vectors_of_random_search():
    returns = np.array([[10.0, 2.0], [3.0, 8.0], [0.0, 1.0], [-4.0, 6.0]])
    directions = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]])
    for num_top, sigma, gradient in [
        (2, 3.34477204, [1.19589615, -0.74743509]),
        (4, 4.26468053, [0.99655765, -1.52414699]),
    ]:
        weights, deviation = everywhere(
            lambda x, n=num_top: random_search_weights(x, n), returns
        )
        np.testing.assert_allclose(deviation, sigma, rtol=1e-8)
        np.testing.assert_allclose(weights @ directions, gradient, rtol=1e-7)


@settings(max_examples=50, deadline=None)
@given(pairs())
def test_ranks_agree_with_the_definition(returns):
    np.testing.assert_allclose(centered_ranks(returns), slow_ranks(returns), atol=1e-12)
    ranks = slow_ranks(returns)
    np.testing.assert_allclose(
        evolution_weights(returns),
        (ranks[:, 0] - ranks[:, 1]) / (2 * len(returns)),
        atol=1e-12,
    )


@settings(max_examples=50, deadline=None)
@given(pairs(), st.data())
def test_random_search_agrees_with_the_definition(returns, data):
    num_top = data.draw(st.integers(1, len(returns)))
    weights, deviation = random_search_weights(returns, num_top)
    expected = slow_random_search(returns, num_top)
    np.testing.assert_allclose(deviation, expected[1], atol=1e-12)
    np.testing.assert_allclose(weights, expected[0], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_equal_returns_does_not_matter(returns, random):
    order = list(range(len(returns)))
    random.shuffle(order)
    weights = np.asarray(evolution_weights(returns))
    shuffled = np.asarray(evolution_weights(returns[order]))
    np.testing.assert_allclose(shuffled, weights[order], atol=1e-12)
    swapped = np.asarray(evolution_weights(returns[:, ::-1]))
    np.testing.assert_allclose(swapped, -weights, atol=1e-12)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="returns"):
        evolution_weights(np.zeros(4))
    with pytest.raises(ValueError, match=r"\[n, 2\]"):
        evolution_weights(np.zeros((4, 3)))
    for num_top in (0, 5):
        with pytest.raises(ValueError, match="num_top"):
            random_search_weights(np.zeros((4, 2)), num_top)


def test_returns_that_float32_cannot_tell_apart_have_ranks_of_their_own():
    returns = np.array([[1e6, 1e6 + 1e-6], [1e6 + 2e-6, 0.0]])
    assert len(set(returns.astype(np.float32).reshape(-1))) == 2
    ranks = everywhere(centered_ranks, returns)
    np.testing.assert_allclose(ranks, np.array([[-1, 1], [3, -3]]) / 6)
    weights, _ = everywhere(lambda x: random_search_weights(x, 1), returns)
    np.testing.assert_allclose(weights, [0.0, 2.0])
    found = evolution_weights(returns)
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
