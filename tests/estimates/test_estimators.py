"""Off-policy estimators, against literal vectors and their reductions."""

import numpy as np
import pytest

from kerasrl.estimates import estimators

#: Two episodes, of three and of two steps.
RATIOS = np.array([[1.6, 1.0, 0.5], [0.4, 2.4, 1.0]])
REWARDS = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
Q_VALUES = np.array([[1.5, 0.8, 1.2], [0.6, 0.9, 0.0]])
VALUES = np.array([[1.4, 0.9, 1.0], [0.7, 0.8, 0.0]])
GAMMA = 0.9


def test_literal_vectors():
    found = estimators.importance_sampling(RATIOS, REWARDS, GAMMA)
    np.testing.assert_allclose(found, [2.096, 0.864])
    found = estimators.per_decision_importance_sampling(RATIOS, REWARDS, GAMMA)
    np.testing.assert_allclose(found, [2.896, 0.864])
    found = estimators.weighted_importance_sampling(RATIOS, REWARDS, GAMMA)
    np.testing.assert_allclose(found, 1.68181818, rtol=1e-8)
    modelled = (RATIOS, REWARDS, Q_VALUES, VALUES, GAMMA)
    np.testing.assert_allclose(estimators.doubly_robust(*modelled), [2.5584, 0.8344])
    found = estimators.weighted_doubly_robust(*modelled)
    np.testing.assert_allclose(found, 1.70654545, rtol=1e-8)
    # Without values, what is left of it is WIS for each decision.
    found = estimators.weighted_doubly_robust(
        RATIOS, REWARDS, 0 * Q_VALUES, 0 * VALUES, GAMMA
    )
    np.testing.assert_allclose(found, 1.87386364, rtol=1e-8)
    found = estimators.effective_sample_size(RATIOS)
    np.testing.assert_allclose(found, 1.98360656, rtol=1e-8)


def test_doubly_robust_as_one_sum():
    """sum gamma^t (c_t r_t - c_t Q_t + c_{t-1} V_t), written out."""
    found = estimators.doubly_robust(RATIOS, REWARDS, Q_VALUES, VALUES, GAMMA)
    for i, value in enumerate(found):
        total, before = 0.0, 1.0
        for t in range(3):
            product = before * RATIOS[i, t]
            total += GAMMA**t * (product * (REWARDS[i, t] - Q_VALUES[i, t]))
            total += GAMMA**t * before * VALUES[i, t]
            before = product
        np.testing.assert_allclose(value, total)


def test_doubly_robust_without_values_decides_step_by_step():
    none = np.zeros_like(REWARDS)
    np.testing.assert_allclose(
        estimators.doubly_robust(RATIOS, REWARDS, none, none, GAMMA),
        estimators.per_decision_importance_sampling(RATIOS, REWARDS, GAMMA),
    )


def test_the_policy_that_acted_is_worth_its_returns():
    returns = estimators.discounted_sums(REWARDS, GAMMA)
    ones = np.ones_like(RATIOS)
    # Exact: what the rewards that follow add up to.
    exact = np.stack(
        [estimators.discounted_sums(REWARDS[:, t:], GAMMA) for t in range(3)], axis=1
    )
    arguments = (ones, REWARDS, exact, exact, GAMMA)
    np.testing.assert_allclose(estimators.doubly_robust(*arguments), returns)
    found = estimators.weighted_doubly_robust(*arguments)
    np.testing.assert_allclose(found, returns.mean())
    assert estimators.effective_sample_size(ones) == 2.0


def test_many_steps_make_products_neither_nothing_nor_infinite():
    """2,000 ratios of 0.5 are 0 as a product; shares are those of the last."""
    ratios = np.full((2, 2_000), 0.5)
    ratios[1, -1] = 1.5
    rewards = np.zeros_like(ratios)
    rewards[:, 0] = 1.0, 2.0
    found = estimators.weighted_importance_sampling(ratios, rewards, 1.0)
    np.testing.assert_allclose(found, 0.25 * 1.0 + 0.75 * 2.0)
    size = estimators.effective_sample_size(ratios)
    np.testing.assert_allclose(size, 1 / (0.25**2 + 0.75**2))
    none = np.zeros_like(rewards)
    found = estimators.weighted_doubly_robust(ratios, rewards, none, none, 1.0)
    np.testing.assert_allclose(found, 1.5)
    # A density may be further from another than a float from 0.
    logs = np.array([[-1_000.0, 400.0], [-1_000.0, 400.0 + np.log(3.0)]])
    found = estimators.weighted_importance_sampling(
        logs, rewards[:, :2], 1.0, are_logs=True
    )
    np.testing.assert_allclose(found, 1.75)


def test_of_one_episode_weights_say_nothing():
    found = estimators.weighted_importance_sampling(RATIOS[:1], REWARDS[:1], GAMMA)
    np.testing.assert_allclose(found, 2.62)


def test_bootstrap_holds_the_mean():
    returns = np.random.default_rng(0).normal(5.0, 1.0, size=400)
    low, high = estimators.bootstrap(lambda chosen: returns[chosen].mean(), 400)
    # Two standard deviations of a mean of 400, on either side.
    assert low < returns.mean() < high and 0.15 < high - low < 0.25


@pytest.mark.parametrize("other", [np.ones((2, 2)), np.ones(3), np.ones((0, 3))])
def test_shapes_are_checked(other):
    with pytest.raises(ValueError, match="Received .*shape"):
        estimators.importance_sampling(other, REWARDS, GAMMA)
