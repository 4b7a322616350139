"""Actors that follow a critic: published vectors, definitions, who gets a gradient."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from references import everywhere, gradient

from kerasrl.distributions import Categorical, TanhGaussian
from kerasrl.losses import (
    deterministic_policy_gradient,
    discrete_soft_policy_loss,
    discrete_soft_values,
    soft_policy_loss,
    soft_values,
    td_loss,
    td_targets,
    temperature_loss,
)

F = "float32"


def f(*x):
    return np.array(x, F)


# -- published vectors -----------------------------------------------------------------


def actor(observations):
    """tf_agents/agents/ddpg/ddpg_agent_test.py: pi = 2x + y + 5."""
    return observations @ f(2, 1) + 5


def critic(observations, actions):
    """The same: Q = x + 3y + 2a + 4."""
    return observations @ f(1, 3) + 2 * actions + 4


FIRST, NEXT = f([1, 2], [3, 4]), f([5, 6], [7, 8])


def test_tf_agents_critics():
    """DDPG's has one critic, TD3's two equal ones."""
    targets = td_targets(f(10, 20), f(0.9, 0.9), critic(NEXT, actor(NEXT)))
    loss, _ = td_loss(critic(FIRST, f(5, 6)), targets)
    np.testing.assert_allclose(loss, 59.6, rtol=1e-6)
    np.testing.assert_allclose(loss + loss, 119.2, rtol=1e-6)


def test_tf_agents_td3_actor():
    loss, logs = deterministic_policy_gradient(critic(FIRST, actor(FIRST)))
    np.testing.assert_allclose(loss, -39.0, rtol=1e-6)
    assert logs == {}


def test_the_actor_climbs_the_critic():
    slope = gradient(
        lambda a: deterministic_policy_gradient(critic(FIRST, a))[0], actor(FIRST)
    )
    np.testing.assert_allclose(slope, [-1.0, -1.0])  # -dQ/da / N


# -- definitions -----------------------------------------------------------------------


def distributions(seed=0, batch=(6,), count=4):
    """Q and log-probabilities of all actions, some of them impossible (Q is NaN)."""
    generator = np.random.default_rng(seed)
    q_values = generator.normal(size=(*batch, count))
    logits = 2 * generator.normal(size=(*batch, count))
    impossible = generator.random(logits.shape) < 0.3
    impossible[..., 0] = False
    q_values[impossible], logits[impossible] = np.nan, -np.inf
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return q_values.astype(F), log_probs.astype(F)


def loop_soft_value(q_values, log_probs, temperature):
    return sum(
        np.exp(float(p)) * (float(q) - temperature * float(p))
        for q, p in zip(q_values, log_probs, strict=True)
        if p > -np.inf
    )


def test_soft_values_agree_with_the_definition_everywhere():
    q_values, log_probs = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(F)
    result = everywhere(soft_values, q_values, log_probs, f(0.3)[0])
    for i in np.ndindex(3, 4):
        expected = float(q_values[i]) - 0.3 * float(log_probs[i])
        np.testing.assert_allclose(result[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (6,), (2, 3)])
def test_discrete_soft_values_agree_with_the_definition(batch):
    q_values, log_probs = distributions(batch=batch)
    result = everywhere(
        lambda q, p: discrete_soft_values(q, p, 0.3), q_values, log_probs
    )
    for i in np.ndindex(batch):
        expected = loop_soft_value(q_values[i], log_probs[i], 0.3)
        np.testing.assert_allclose(result[i], expected, rtol=1e-5, atol=1e-6)


def test_the_discrete_value_is_the_mean_of_sampled_ones():
    q_values, log_probs = f([1, 2, -1]), np.log(f([0.2, 0.5, 0.3]))
    actions = np.random.default_rng(0).choice(3, size=100_000, p=[0.2, 0.5, 0.3])
    sampled = np.asarray(soft_values(q_values[0, actions], log_probs[0, actions], 0.5))
    exact = float(discrete_soft_values(q_values, log_probs, 0.5)[0])
    assert abs(sampled.mean() - exact) < 4.5 * sampled.std() / np.sqrt(100_000)


@pytest.mark.parametrize("poison", [None, np.nan, np.inf])
def test_policy_losses_agree_with_the_definition(poison):
    generator = np.random.default_rng(0)
    q, p = generator.normal(size=(2, 6)).astype(F)
    q_values, log_probs = distributions()
    mask, kept = None, np.ones(6, bool)
    if poison is not None:
        mask = kept = np.array([1, 0, 1, 1, 0, 1], bool)
        for x in (q, p, q_values, log_probs):
            x[~mask] = poison
    loss, logs = soft_policy_loss(q, p, 0.3, mask)
    expected = np.mean([0.3 * p[i] - q[i] for i in range(6) if kept[i]])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["entropy"], -p[kept].mean(), rtol=1e-5)
    loss, logs = discrete_soft_policy_loss(q_values, log_probs, 0.3, mask)
    rows = [
        (loop_soft_value(q, p, 0.3), loop_soft_value(np.zeros(4), p, 1.0))
        for q, p in zip(q_values[kept], log_probs[kept], strict=True)
    ]
    value, entropy = np.mean(rows, axis=0)
    np.testing.assert_allclose(loss, -value, rtol=1e-5)
    np.testing.assert_allclose(logs["entropy"], entropy, rtol=1e-5)
    loss, _ = deterministic_policy_gradient(q, mask)
    np.testing.assert_allclose(loss, -q[kept].mean(), rtol=1e-5)
    for function, x in (
        (lambda x: deterministic_policy_gradient(x, mask)[0], q),
        (lambda x: soft_policy_loss(x, p, 0.3, mask)[0], q),
        (lambda x: soft_policy_loss(q, x, 0.3, mask)[0], p),
        (lambda x: discrete_soft_policy_loss(q_values, x, 0.3, mask)[0], log_probs),
    ):
        slope = gradient(function, x)
        assert np.isfinite(slope).all()
        assert (slope[~kept] == 0).all() and (slope[kept] != 0).any()


def test_losses_are_the_same_in_every_mode():
    q_values, log_probs = distributions(batch=(2, 3))
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)

    def losses(q, p, temperature, m):
        return (
            *soft_policy_loss(q[..., 0], p[..., 0], temperature, m),
            *discrete_soft_policy_loss(q, p, temperature, m),
            *temperature_loss(ops.log(temperature), -p[..., 0], -1.0, m),
            *deterministic_policy_gradient(q[..., 0], m),
        )

    everywhere(losses, q_values, log_probs, f(0.3)[0], mask)


# -- gradients -------------------------------------------------------------------------


def test_the_discrete_policy_moves_towards_the_soft_optimum():
    """Where pi = softmax(Q / temperature) the loss is least and its gradient 0."""
    q_values = f([1, 2, -1, 0.5])

    def loss(logits, temperature=0.5):
        log_probs = Categorical(logits).log_probs
        return discrete_soft_policy_loss(q_values, log_probs, temperature)[0]

    optimum = q_values / 0.5 + 3
    np.testing.assert_allclose(gradient(loss, optimum), 0 * q_values, atol=1e-6)
    for seed in range(5):
        other = optimum + np.random.default_rng(seed).normal(size=4).astype(F)
        assert loss(other) > loss(optimum)
        assert np.abs(gradient(loss, other)).max() > 1e-3


def test_impossible_actions_get_no_gradient():
    q_values, _ = distributions()
    logits = np.where(np.isnan(q_values), -np.inf, q_values).astype(F)
    slope = gradient(
        lambda x: discrete_soft_policy_loss(q_values, Categorical(x).log_probs, 0.1)[0],
        logits,
    )
    assert np.isfinite(slope).all() and np.abs(slope).max() > 1e-3
    assert (slope[np.isnan(q_values)] == 0).all()


def test_the_continuous_policy_gets_a_gradient_through_actions_and_density():
    """Against finite differences, with the noise held fixed."""
    parameters = f([0.3, -0.5])

    def loss(x):
        actions, log_probs = TanhGaussian(x).sample_and_log_prob(seed=4)
        q_values = -ops.square(actions[..., 0] - 0.7)
        return soft_policy_loss(q_values, log_probs, 0.2)[0]

    x = tf.constant(parameters)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loss(x)
    slope = np.asarray(tape.gradient(y, x))
    for i in range(2):
        step = np.zeros_like(parameters)
        step[0, i] = 1e-2
        difference = (loss(parameters + step) - loss(parameters - step)) / 2e-2
        np.testing.assert_allclose(slope[0, i], difference, rtol=1e-2)


def test_who_gets_no_gradient():
    q_values, log_probs = distributions()
    q, p, t = q_values[:, 0], log_probs[:, 0], f(0.3)[0]
    assert gradient(lambda t: soft_values(q, p, t), t) is None
    assert gradient(lambda t: soft_policy_loss(q, p, t)[0], t) is None
    assert gradient(lambda t: discrete_soft_values(q_values, log_probs, t), t) is None
    for index, x in ((0, q_values), (2, t)):
        arguments = [q_values, log_probs, t]

        def function(x, index=index, arguments=arguments):
            changed = [x if i == index else a for i, a in enumerate(arguments)]
            return discrete_soft_policy_loss(*changed)[0]

        assert gradient(function, x) is None
    for loss in (soft_policy_loss, discrete_soft_policy_loss):
        given = (q, p) if loss is soft_policy_loss else (q_values, log_probs)

        def entropy(x, loss=loss, given=given):
            return loss(given[0], x, 0.3)[1]["entropy"]

        assert gradient(entropy, given[1]) is None
    assert gradient(lambda e: temperature_loss(0.1, e, 1.0)[0], p) is None


# -- temperature -----------------------------------------------------------------------


@pytest.mark.parametrize("entropies, sign", [([0.1, 0.3], 1), ([1.9, 3.0], -1)])
def test_the_temperature_rises_when_there_is_too_little_entropy(entropies, sign):
    entropies = f(*entropies)
    log_temperature = f(-0.7)[0]
    slope = gradient(lambda x: temperature_loss(x, entropies, 1.0)[0], log_temperature)
    np.testing.assert_allclose(slope, entropies.mean() - 1.0, rtol=1e-6)
    after = log_temperature - 0.1 * slope
    assert np.sign(after - log_temperature) == sign


def test_temperature_loss_agrees_with_the_paper():
    """J = mean(-log_temperature * (log_probs + target_entropy))."""
    log_probs = f(-1.5, 0.5, 2.0)
    expected = np.mean([0.7 * (p - 3.0) for p in log_probs])
    loss, logs = temperature_loss(-0.7, -log_probs, target_entropy=-3.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(logs["temperature"], np.exp(-0.7), rtol=1e-6)
    mask = np.array([True, False, False])
    bad = np.where(mask, -log_probs, np.nan)
    loss, _ = temperature_loss(-0.7, bad, -3.0, mask)
    np.testing.assert_allclose(loss, 0.7 * (-1.5 - 3.0), rtol=1e-6)


# -- wrong arguments -------------------------------------------------------------------

N, N1, NA = np.zeros(4, F), np.zeros((4, 1), F), np.zeros((4, 3), F)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: deterministic_policy_gradient(N, N1), "must all have the same shape"),
        (lambda: soft_values(N, N1, 0.1), "must all have the same shape"),
        (lambda: soft_policy_loss(N, N1, 0.1), "must all have the same shape"),
        (lambda: soft_policy_loss(N, N, 0.1, N1), "must all have the same shape"),
        (lambda: discrete_soft_values(NA, N, 0.1), "must all have the same shape"),
        (lambda: discrete_soft_policy_loss(NA, NA[:2], 0.1), "must all have the same"),
        (lambda: discrete_soft_policy_loss(NA, NA, 0.1, N1), "must all have the same"),
        (lambda: discrete_soft_values(1.0, 1.0, 0.1), "`q_values` must have at least"),
        (lambda: soft_values(N, N, -0.1), "temperature=-0.1"),
        (lambda: soft_values(N, N, N), "`temperature` must have 0"),
        (lambda: soft_policy_loss(N, N, -0.1), "temperature=-0.1"),
        (lambda: discrete_soft_values(NA, NA, -0.1), "temperature=-0.1"),
        (lambda: discrete_soft_policy_loss(NA, NA, N), "`temperature` must have 0"),
        (lambda: temperature_loss(N, N, 1.0), "`log_temperature` must have 0"),
        (lambda: temperature_loss(0.1, N, N), "`target_entropy` must have 0"),
        (lambda: temperature_loss(0.1, N, 1.0, N1), "must all have the same shape"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
