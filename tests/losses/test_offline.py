"""Losses of offline algorithms, against literal vectors and slow definitions."""

import math

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl import losses

F = "float32"
ADVANTAGES = np.array([1.0, -2.0, 0.5], F)
LOG_PROBS = np.array([-0.5, -1.2, -0.3], F)
MASK = np.array([1, 0, 1, 1, 0, 1], bool)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def test_vector_of_marwil():
    square = everywhere(lambda a: losses.moving_square(4.0, a, 0.1), ADVANTAGES)
    np.testing.assert_allclose(square, 3.775, rtol=1e-6)
    weights = losses.exponential_weights(ADVANTAGES, 1.0, 3.775)
    expected = [1.67311141, 0.35723194, 1.29348808]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    loss, logs = everywhere(
        lambda p, v, g: losses.marwil_loss(p, v, g, 3.775, 1.0),
        *(LOG_PROBS, 0 * ADVANTAGES, ADVANTAGES),
    )
    np.testing.assert_allclose(loss, 1.42609348, rtol=1e-6)
    np.testing.assert_allclose(logs["policy_loss"], 0.55109348, rtol=1e-6)
    np.testing.assert_allclose(logs["value_loss"], 0.875, rtol=1e-6)


def test_a_rate_that_is_next_to_nothing_leaves_the_norm_at_ten():
    square = losses.moving_square(100.0, ADVANTAGES, 1e-8)
    weights = losses.exponential_weights(ADVANTAGES, 1.0, square)
    expected = [1.10517092, 0.81873075, 1.05127110]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_marwil_with_beta_0_is_behaviour_cloning():
    values, returns = normal(2, 5)
    log_probs = normal(5, seed=1)
    loss, logs = losses.marwil_loss(log_probs, values, returns, 1.0, 0.0, 0.0)
    cloning, _ = losses.weighted_imitation(log_probs)
    np.testing.assert_allclose(loss, cloning, rtol=1e-6)
    np.testing.assert_allclose(cloning, -log_probs.mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["imitation_weight"], 1.0)


def test_what_would_overflow_is_held_and_has_no_gradient_of_its_own():
    weights = losses.exponential_weights(np.array([1e30], F), 5.0, 1.0)
    np.testing.assert_allclose(weights, math.exp(20.0), rtol=1e-5)

    def policy_loss(values):
        logs = losses.marwil_loss(LOG_PROBS, values, ADVANTAGES, 1.0, 1.0)[1]
        return logs["policy_loss"]

    assert gradient(policy_loss, ADVANTAGES) is None
    slope = gradient(
        lambda p: losses.marwil_loss(p, 0 * p, ADVANTAGES, 1.0, 1.0)[0], LOG_PROBS
    )
    np.testing.assert_allclose(slope, -np.exp(ADVANTAGES) / 3, rtol=1e-5)


def test_vector_of_discrete_conservative_q_learning():
    q_values = np.array([[1, 2, 3], [0, -1, 0.5]], F)
    taken = losses.select_actions(q_values, [0, 2])
    gap = everywhere(losses.conservative_gap, q_values, taken)
    np.testing.assert_allclose(gap, [2.40760596, 0.60413061], rtol=1e-6)
    np.testing.assert_allclose(np.mean(gap), 1.50586828, rtol=1e-6)


def test_vector_of_continuous_conservative_q_learning():
    q_values = np.array([[1.0, 2.0, 0.5, 0.2]], F)
    densities = np.array([[math.log(0.5), math.log(0.5), -0.7, -0.3]], F)
    gap = everywhere(losses.conservative_gap, q_values, np.array([0.9], F), densities)
    np.testing.assert_allclose(gap, [2.32618958], rtol=1e-6)
    slope = gradient(
        lambda d: losses.conservative_gap(q_values, [0.9], d)[0], densities
    )
    assert slope is None


def test_actions_that_cannot_be_taken_are_no_part_of_the_gap():
    gap = losses.conservative_gap([[1.0, -np.inf, 3.0]], [1.0])
    np.testing.assert_allclose(gap, losses.conservative_gap([[1.0, 3.0]], [1.0]))


def test_vector_of_implicit_q_learning():
    weights = losses.exponential_weights([-1.0, 0, 1, 2], 3.0, max_weight=100.0)
    expected = [0.04978707, 1, 20.08553692, 100]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_expectiles_by_definition(expectile):
    values, targets = normal(2, 30)
    loss = everywhere(
        lambda v, t: losses.expectile_loss(v, t, expectile), values, targets
    )
    total = 0.0
    for value, target in zip(values, targets, strict=True):
        error = target - value
        total += abs(expectile - (error < 0)) * error**2
    np.testing.assert_allclose(loss, total / 30, rtol=1e-5)
    assert (
        gradient(lambda t: losses.expectile_loss(values, t, expectile), targets) is None
    )


def test_the_least_loss_is_at_the_expectile():
    targets = np.array([0.0, 1.0], F)
    slope = gradient(
        lambda v: losses.expectile_loss(v * np.ones(2, F), targets, 0.9),
        np.array([0.9], F),
    )
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_vector_of_td3_with_behaviour_cloning():
    q_values = np.array([10.0, -20, 30], F)
    actions, data = np.array([[0.1], [0.2], [0.3]], F), np.array([[0], [0.5], [0.3]], F)
    loss, logs = everywhere(
        lambda *x: losses.regularized_policy_loss(*x, 2.5), q_values, actions, data
    )
    np.testing.assert_allclose(logs["q_scale"], 0.125)
    np.testing.assert_allclose(logs["imitation_error"], 0.1 / 3, rtol=1e-5)
    np.testing.assert_allclose(loss, -0.8, rtol=1e-5)


def test_the_scale_of_values_has_no_gradient():
    q_values, actions = normal(4) + 3, normal(4, 2)
    slope = gradient(
        lambda q: losses.regularized_policy_loss(q, actions, actions, 2.5)[0], q_values
    )
    np.testing.assert_allclose(slope, -2.5 / np.abs(q_values).mean() / 4, rtol=1e-5)


def test_masked_entries_change_nothing():
    arrays = normal(3, 6)
    bad = np.where(MASK, arrays, np.float32(np.nan))
    good = arrays[:, MASK]
    found = losses.marwil_loss(*bad, 1.0, 1.0, mask=MASK)[0]
    np.testing.assert_allclose(found, losses.marwil_loss(*good, 1.0, 1.0)[0], rtol=1e-5)
    slope = gradient(
        lambda v: losses.marwil_loss(bad[0], v, bad[2], 1.0, 1.0, mask=MASK)[0], bad[1]
    )
    assert np.isfinite(slope).all() and (slope[~MASK] == 0).all()
    found = losses.expectile_loss(*bad[:2], 0.7, MASK)
    np.testing.assert_allclose(found, losses.expectile_loss(*good[:2], 0.7), rtol=1e-5)
    found = losses.moving_square(1.0, bad[0], 0.5, MASK)
    np.testing.assert_allclose(
        found, losses.moving_square(1.0, good[0], 0.5), rtol=1e-5
    )
    assert float(losses.moving_square(7.0, arrays[0], 0.5, 0 * MASK)) == 7.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.expectile_loss([0.0], [[1.0]], 0.7),
        lambda: losses.expectile_loss([0.0], [1.0], 1.7),
        lambda: losses.exponential_weights([0.0], -1.0),
        lambda: losses.exponential_weights([0.0], 1.0, max_weight=0.0),
        lambda: losses.moving_square(1.0, [0.0], 2.0),
        lambda: losses.conservative_gap([[1.0, 2.0]], [[1.0]]),
        lambda: losses.conservative_gap([[1.0, 2.0]], [1.0], [1.0]),
        lambda: losses.regularized_policy_loss([1.0], [[1.0]], [1.0], 2.5),
        lambda: losses.regularized_policy_loss([1.0], [1.0], [1.0], -2.5),
        lambda: losses.weighted_imitation([1.0], [[1.0]]),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match="Received"):
        call()
