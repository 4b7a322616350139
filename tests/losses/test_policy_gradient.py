"""Policy losses: published vectors, gradients, masks."""

import numpy as np
import pytest
import references
import tensorflow as tf
from keras import ops
from references import everywhere, gradient

from kerasrl.distributions import Categorical, DiagonalGaussian
from kerasrl.losses import (
    adapt_kl_coefficient,
    clipped_surrogate,
    entropy_bonus,
    estimated_kl,
    kl_penalty,
    policy_gradient,
)

F = "float32"
RLAX_LOGITS = np.array([[1, 1, 1], [2, 0, 0], [-1, -2, -3]], F)
RLAX_ADVANTAGES = np.array([[0.3, 0.2, 0.1], [-0.3, -0.2, -0.1]], F)


@pytest.mark.parametrize("row, expected", [(0, -0.17117467), (1, 0.19333333)])
def test_rlax_clipped_surrogate(row, expected):
    """rlax/_src/policy_gradients_test.py, which allows 1e-4.

    Worked out in full, the first one is -(0.3 + 0.2 + 0.1 * exp(-2)) / 3.
    """
    old = np.array([[1, 1, 1], [2, 0, 0], [-3, -2, -1]], F)
    actions = np.array([0, 1, 2])
    loss, _ = clipped_surrogate(
        Categorical(RLAX_LOGITS).log_prob(actions),
        Categorical(old).log_prob(actions),
        RLAX_ADVANTAGES[row],
        0.2,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    if row == 0:
        np.testing.assert_allclose(loss, -(0.5 + 0.1 * np.exp(-2)) / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "row, actions, weights, expected",
    [(0, [0, 1, 2], [-2, 2, 0], 0.0788835), (1, [0, 0, 0], [-3, 1, -1], 0.3272009)],
)
def test_rlax_policy_gradient(row, actions, weights, expected):
    """The same file; its weights may be negative and are not normalised."""
    loss, logs = policy_gradient(
        Categorical(RLAX_LOGITS).log_prob(np.array(actions)),
        RLAX_ADVANTAGES[row] * weights,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert logs == {}


@pytest.mark.parametrize(
    "weights, expected", [([-2, 2, 0], 0.288693), ([-3, 1, -1], 1.15422)]
)
def test_rlax_entropy_loss(weights, expected):
    weighted = Categorical(RLAX_LOGITS).entropy() * np.array(weights, F)
    loss, logs = entropy_bonus(weighted)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["entropy"], -expected, rtol=1e-5)


def test_trfl_policy_gradient():
    """trfl/discrete_policy_gradient_ops_test.py, one entry at a time."""
    logits = np.array([[0, 1], [0, 1], [1, 1], [0, 100]], F)
    log_probs = Categorical(logits).log_prob(np.array([0, 0, 1, 1]))
    losses = [
        policy_gradient(log_probs[i : i + 1], np.array([q], F))[0]
        for i, q in enumerate([0, 1, 2, 1])
    ]
    np.testing.assert_allclose(losses, [0, 1.313262, 1.386294, 0], rtol=1e-5)


def test_tf_agents_ppo():
    """tf_agents/agents/ppo/ppo_agent_test.py: N(loc=2x+y+5, scale=x+y+5)."""
    loc, scale = np.array([[9.0], [15.0]]), np.array([[8.0], [12.0]])
    distribution = DiagonalGaussian(np.concatenate([loc, np.log(scale)], -1))
    log_probs = distribution.log_prob(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(log_probs, [-3.63119257, -4.08440074], rtol=1e-6)
    old, advantages = np.array([0.9, 0.3], F), np.array([1.9, 1.0], F)
    loss, _ = clipped_surrogate(log_probs, old, advantages, 0.2)
    np.testing.assert_allclose(loss, -0.0164646133, rtol=1e-5)


def test_clipped_surrogate_agrees_with_the_definition_everywhere():
    generator = np.random.default_rng(0)
    new, old, advantages = generator.normal(size=(3, 40)).astype(F)
    loss, logs = everywhere(lambda *x: clipped_surrogate(*x, 0.2), new, old, advantages)
    expected = references.clipped_surrogate(new, old, advantages, 0.2)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    ratio = np.exp(new - old)
    outside = np.abs(ratio - 1) > 0.2
    assert 0 < outside.mean() < 1
    np.testing.assert_allclose(logs["clip_fraction"], outside.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        logs["approximate_kl"], np.mean(ratio - 1 - (new - old)), rtol=1e-5
    )


def test_approximate_kl_estimates_the_divergence():
    old, new = (Categorical([[0.0, 0.5, 1.0]] * n) for n in (1, 1))
    new = Categorical([[0.2, 0.6, 0.7]])
    wide = Categorical(np.tile(old.parameters, [200_000, 1]))
    actions = wide.sample(seed=1)
    take = np.asarray(actions)
    _, logs = clipped_surrogate(
        np.asarray(new.log_probs)[0, take],
        np.asarray(old.log_probs)[0, take],
        np.ones(len(take), F),
        0.2,
    )
    np.testing.assert_allclose(logs["approximate_kl"], old.kl(new)[0], rtol=0.02)


def test_the_gradient_at_ratio_one_is_the_policy_gradient():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20, 4)).astype(F)
    actions = generator.integers(4, size=20)
    advantages = generator.normal(size=20).astype(F)
    old = Categorical(logits).log_prob(actions)
    ppo = gradient(
        lambda x: clipped_surrogate(
            Categorical(x).log_prob(actions), old, advantages, 0.2
        )[0],
        logits,
    )
    pg = gradient(
        lambda x: policy_gradient(Categorical(x).log_prob(actions), advantages)[0],
        logits,
    )
    assert np.abs(pg).max() > 0.01
    np.testing.assert_allclose(ppo, pg, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "log_ratio, advantage, flows",
    [(0.5, 1, False), (0.5, -1, True), (-0.5, 1, True), (-0.5, -1, False)],
)
def test_clipping_stops_only_what_goes_too_far(log_ratio, advantage, flows):
    zeros = np.zeros(1, F)
    result = gradient(
        lambda x: clipped_surrogate(x, zeros, zeros + advantage, 0.2)[0],
        zeros + log_ratio,
    )
    assert (result[0] != 0) == flows


def test_only_the_present_policy_gets_a_gradient():
    x = np.array([-1.0, -2.0], F)
    one = np.ones(2, F)
    assert gradient(lambda a: policy_gradient(x, a)[0], one) is None
    assert gradient(lambda a: clipped_surrogate(x, x, a, 0.2)[0], one) is None
    assert gradient(lambda old: clipped_surrogate(x, old, one, 0.2)[0], x) is None
    for name in ("clip_fraction", "approximate_kl"):

        def log(new, name=name):
            return clipped_surrogate(new, x, one, 0.2)[1][name]

        assert gradient(log, x) is None


@pytest.mark.parametrize("extreme", [-np.inf, -1e4, 100.0, 1e4, np.inf])
def test_extreme_ratios_stay_finite(extreme):
    new = np.array([-1.0, extreme], F)
    old, advantages = np.array([-1.1, -1.0], F), np.array([1.0, -1.0], F)

    def loss(x):
        return clipped_surrogate(x, old, advantages, 0.2)[0]

    value, logs = clipped_surrogate(new, old, advantages, 0.2)
    assert np.isfinite([value, *logs.values()]).all()
    assert np.isfinite(gradient(loss, new)).all()


@pytest.mark.parametrize("poison, kind", [(np.nan, bool), (-np.inf, F)])
def test_masked_entries_change_nothing(poison, kind):
    generator = np.random.default_rng(0)
    new, old, advantages = generator.normal(size=(3, 6)).astype(F)
    mask = np.array([1, 1, 0, 1, 0, 1], kind)
    keep = mask.astype(bool)
    bad = [np.where(keep, x, F_(poison)) for x in (new, old, advantages)]
    good = [x[keep] for x in (new, old, advantages)]
    losses = [
        (lambda n, o, a, m: clipped_surrogate(n, o, a, 0.2, m)),
        (lambda n, o, a, m: policy_gradient(n, a, m)),
        (lambda n, o, a, m: entropy_bonus(n, m)),
        (lambda n, o, a, m: kl_penalty(n, 0.5, m)),
    ]
    for loss in losses:
        value, logs = everywhere(loss, *bad, mask)
        expected, expected_logs = loss(*good, None)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for key, x in expected_logs.items():
            np.testing.assert_allclose(logs[key], x, rtol=1e-5)
        slope = gradient(lambda x, loss=loss: loss(x, *bad[1:], mask)[0], bad[0])
        expected = gradient(lambda x, loss=loss: loss(x, *good[1:], None)[0], good[0])
        np.testing.assert_allclose(slope[keep], expected, rtol=1e-5)
        assert (slope[~keep] == 0).all()


def F_(x):
    return np.float32(x)


def test_masked_logits_give_no_nan_gradient():
    logits = np.array([[0.5, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]], F)
    actions, one = np.array([0, 2]), np.ones(2, F)
    old = Categorical(logits).log_prob(actions)

    def loss(x):
        distribution = Categorical(x)
        log_probs = distribution.log_prob(actions)
        return (
            clipped_surrogate(log_probs, old, one, 0.2)[0]
            + policy_gradient(log_probs, one)[0]
            + entropy_bonus(distribution.entropy())[0]
            + kl_penalty(Categorical(logits).kl(distribution), 0.5)[0]
        )

    result = gradient(loss, logits)
    assert np.isfinite(result).all()
    assert np.abs(result).max() > 0.1
    assert (result[np.isinf(logits)] == 0).all()


def test_kl_penalty():
    loss, logs = everywhere(lambda kl: kl_penalty(kl, 0.5), np.array([0.01, 0.03], F))
    np.testing.assert_allclose([loss, logs["kl"]], [0.01, 0.02], rtol=1e-6)
    slope = gradient(lambda c: kl_penalty(np.ones(2, F), c)[0], F_(0.5))
    assert slope is None


def test_the_kl_coefficient_follows_rllib():
    """Up by half above twice the target, halved below half of it, else the same.

    (TF-Agents' sequence 1, 1.5, 1.0 divides by 1.5 instead.)
    """
    sequence = [1.0]
    for kl in (0.05, 0.004, 0.015, 0.021, 0.02, 0.005, float("nan")):
        sequence.append(adapt_kl_coefficient(sequence[-1], kl, target=0.01))
    expected = [1.0, 1.5, 0.75, 0.75, 1.125, 1.125, 1.125, 1.125]
    np.testing.assert_allclose(sequence, expected)
    assert all(type(x) is float for x in sequence)
    numpy = adapt_kl_coefficient(np.float32(1), np.float32(0.05), np.float32(0.01))
    assert type(numpy) is float


@pytest.mark.parametrize("kl, expected", [(0.05, 1.5), (0.004, 0.5), (0.01, 1.0)])
def test_the_kl_coefficient_may_be_a_tensor(kl, expected):
    def adapt(coefficient, kl):
        return adapt_kl_coefficient(coefficient, kl, 0.01)

    assert everywhere(adapt, F_(1.0), F_(kl)) == expected
    assert ops.is_tensor(adapt(tf.constant(1.0), kl))


N, N1 = np.zeros(4, F), np.zeros((4, 1), F)


@pytest.mark.parametrize(
    "call",
    [
        lambda: policy_gradient(N, N1),
        lambda: policy_gradient(N, N, mask=N1),
        lambda: clipped_surrogate(N1, N, N, 0.2),
        lambda: clipped_surrogate(N, N1, N, 0.2),
        lambda: clipped_surrogate(N, N, N1, 0.2),
        lambda: clipped_surrogate(N, N, N, 0.2, mask=N1),
        lambda: entropy_bonus(N, mask=N1),
        lambda: kl_penalty(N, 1.0, mask=N1),
    ],
)
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(ValueError, match="must all have the same shape"):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: clipped_surrogate(N, N, N, 0.0), "clip_ratio=0.0"),
        (lambda: clipped_surrogate(N, N, N, -0.1), "clip_ratio=-0.1"),
        (lambda: kl_penalty(N, -1.0), "coefficient=-1.0"),
        (lambda: adapt_kl_coefficient(-1.0, 0.1, 0.1), "coefficient=-1.0"),
        (lambda: adapt_kl_coefficient(1.0, 0.1, 0.0), "target=0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_estimated_kl_is_right_on_average():
    """Its mean over all actions, weighted as the old policy takes them."""
    old, new = np.array([0.5, -1.0, 0.2], F), np.array([0.1, 0.3, -0.4], F)
    actions = np.arange(3)
    old_log_probs = np.asarray(Categorical(np.tile(old, (3, 1))).log_prob(actions))
    weights = np.exp(old_log_probs)

    def mean(logits):
        repeated = ops.tile(logits[None], (3, 1))
        log_probs = Categorical(repeated).log_prob(actions)
        return ops.sum(weights * estimated_kl(log_probs, old_log_probs))

    def exact(logits):
        return Categorical(old).kl(Categorical(logits))

    np.testing.assert_allclose(mean(new), exact(new), rtol=1e-5)
    np.testing.assert_allclose(
        *(gradient(function, new) for function in (mean, exact)), rtol=1e-4, atol=1e-6
    )
    everywhere(estimated_kl, np.array([-1.0, -2.0], F), np.array([-1.5, -2.0], F))
    with pytest.raises(ValueError, match="shape"):
        estimated_kl(np.zeros(2), np.zeros((2, 1)))
