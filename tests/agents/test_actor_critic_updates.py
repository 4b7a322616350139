"""One gradient step of DDPG, TD3 and SAC, from its definition.

Each reference says which loss moves which weights: the policy's do not see the loss of
the critics, nor the critics' that of the policy, and nothing moves the target network.
"""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from by_definition import (
    BOX,
    DISCRETE,
    assert_close,
    build,
    critics,
    gradients_of,
    net,
    take_step,
    transitions,
    values,
)

import kerasrl
from kerasrl import testing

SMALL = {"hidden_units": (8,)}
CENTER = (np.asarray(BOX.high, np.float64) + BOX.low) / 2
RADIUS = (np.asarray(BOX.high, np.float64) - BOX.low) / 2


def normalized(actions):
    """From the bounds of `BOX` to [-1, 1], flat."""
    return ((np.asarray(actions, np.float64) - CENTER) / RADIUS).reshape(-1, 4)


def beside(observations, actions):
    """What critics look at."""
    observations = tf.constant(observations, tf.float64)
    return tf.concat([observations, actions], axis=1)


def first(values):
    return values[:, 0]


def least(values):
    return tf.reduce_min(tf.stack(values), axis=0)


def squared_errors(values, targets, weights):
    """Half the weighted mean squares, summed over critics, and mean errors."""
    total, sizes = 0.0, []
    for value in values:
        error = value - targets
        total += tf.reduce_mean(weights * 0.5 * error**2)
        sizes.append(np.abs(error.numpy()))
    return total, np.mean(sizes, axis=0)


def compare(agent, batch, policy_part, critic_part, settings=None):
    """Compares a step with losses of the policy's and of the critics' weights.

    Args:
        agent, batch: As for `take_step`.
        policy_part: Function of the weights of policy and critics, and of the target.
        critic_part: The same; returns also the errors.
        settings: Dict.

    Returns:
        Metrics.
    """
    count = len(agent.policy.policy_variables())
    online = values(agent.policy.trainable_variables)
    assert_close(
        values(agent.policy.policy_variables() + agent.policy.critic_variables()),
        online,
        0.0,
    )
    target = values(agent.target.variables)
    policy, others = online[:count], online[count:]
    policy_loss, policy_gradients = gradients_of(
        lambda weights: policy_part(weights, others, target), policy
    )
    errors = []
    critic_loss, critic_gradients = gradients_of(
        lambda weights: critic_part(policy, weights, target, errors), others
    )
    metrics, td_errors, taken = take_step(agent, batch, **(settings or {}))
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=1e-4)
    np.testing.assert_allclose(td_errors, errors[0], rtol=1e-3, atol=1e-4)
    assert_close(taken[: len(online)], policy_gradients + critic_gradients)
    # A step leaves the target network where it is.
    assert_close(values(agent.target.variables), target, 0.0)
    return metrics, taken


# DDPG and TD3 -------------------------------------------------------------------------


def deterministic_parts(batch, batch_noise=0.0):
    def critic_part(policy, weights, target, errors):
        following = batch["next_observations"]
        actions = tf.tanh(net(target[:4], following))
        judged = critics(target[4:], beside(following, actions))
        y = batch["rewards"] + batch["discounts"] * first(least(judged)).numpy()
        taken = normalized(batch["actions"])
        estimates = critics(weights, beside(batch["observations"], taken))
        loss, sizes = squared_errors(
            [first(x) for x in estimates], y, batch["weights"].astype(np.float64)
        )
        errors.append(sizes)
        return loss

    def policy_part(weights, others, target):
        actions = tf.tanh(net(weights, batch["observations"]))
        estimates = critics(others, beside(batch["observations"], actions))
        return -tf.reduce_mean(first(estimates[0]))

    return policy_part, critic_part


@pytest.mark.parametrize("num_critics", [1, 3])
def test_ddpg(num_critics):
    batch = transitions(BOX)
    agent = kerasrl.DDPG(policy={**SMALL, "num_critics": num_critics})
    compare(build(agent, BOX), batch, *deterministic_parts(batch))


def test_td3():
    batch = transitions(BOX)
    agent = build(kerasrl.TD3(policy=SMALL, target_noise=0.0, policy_delay=1), BOX)
    compare(agent, batch, *deterministic_parts(batch))


@pytest.mark.parametrize("update_policy", [True, False])
def test_td3_delays_the_policy(update_policy):
    batch = transitions(BOX)
    agent = build(kerasrl.TD3(policy=SMALL, target_noise=0.0, policy_delay=3), BOX)
    policy_part, critic_part = deterministic_parts(batch)
    settings = {"update_policy": tf.constant(update_policy)}
    if update_policy:
        online = values(agent.trainable_variables)
        loss, gradients = gradients_of(
            lambda weights: policy_part(weights, online[4:], None), online[:4]
        )
        metrics, _, taken = take_step(agent, batch, **settings)
        np.testing.assert_allclose(metrics["policy_loss"], 3.0 * loss, rtol=1e-4)
        assert_close(taken[:4], gradients)
        return

    def nothing(weights, others, target):
        return 0.0 * tf.reduce_sum(weights[0])

    _, taken = compare(agent, batch, nothing, critic_part, settings)
    for change in taken[:4]:
        np.testing.assert_array_equal(change, 0.0)


def test_td3_smooths_the_next_action_within_its_bounds():
    """With huge noise every entry is at the clip or at the bounds of the space."""
    batch = transitions(BOX)
    batch["discounts"] = np.full(12, 0.9, np.float32)
    batch["next_observations"] = np.random.default_rng(1).normal(size=(12, 4))
    batch["next_observations"] = batch["next_observations"].astype(np.float32)
    agent = build(
        kerasrl.TD3(policy=SMALL, target_noise=1e6, target_noise_clip=0.3, seed=1), BOX
    )
    seen = []
    original = agent.policy.q_values

    def record(observations, actions=None, training=False):
        if not seen:
            seen.append(actions.numpy())
        return original(observations, actions, training)

    agent.policy.q_values = record
    target = values(agent.target.variables)
    take_step(agent, batch, update_policy=tf.constant(False))
    exact = np.tanh(net(target[:4], batch["next_observations"]).numpy())
    noisy = seen[0].reshape(-1, 4)
    lower, upper = np.maximum(exact - 0.3, -1.0), np.minimum(exact + 0.3, 1.0)
    at_lower, at_upper = np.isclose(noisy, lower), np.isclose(noisy, upper)
    assert (at_lower | at_upper).all() and at_lower.any() and at_upper.any()


def test_td3_postpones_the_target_to_the_next_update_of_the_policy():
    """Due after steps 5 and 10 of 12, when the policy moves after 3, 6, 9 and 12."""
    agent = kerasrl.TD3(policy_delay=3, train_every=1, target_update_interval=5)
    due = agent.due(np.arange(12))
    assert np.flatnonzero(due["update_target"]).tolist() == [5, 11]


def test_td3_policy_and_target_stand_still_between_their_updates():
    """In a run: of 12 gradient steps the policy takes 4, and the target follows 4."""
    agent = kerasrl.TD3(
        policy=SMALL,
        policy_delay=3,
        tau=0.5,
        learning_starts=0,
        batch_size=4,
        updates_per_call=1,
        seed=0,
    )
    agent.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
    history = []

    class Watch(kerasrl.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            policy = agent.policy
            parts = (policy.policy_variables(), policy.critic_variables())
            history.append([values(x) for x in (*parts, agent.target.variables)])

    agent.fit(
        testing.ContinuousIdentityEnv,
        steps=12,
        num_envs=1,
        callbacks=[Watch()],
        verbose=0,
    )
    assert agent.updates == 12
    moved = np.array(
        [
            [not all(map(np.array_equal, a, b)) for a, b in zip(x, y, strict=True)]
            for x, y in zip(history, history[1:], strict=False)
        ]
    )
    due = (np.arange(2, 13) % 3) == 0
    np.testing.assert_array_equal(moved[:, 0], due)
    np.testing.assert_array_equal(moved[:, 1], True)
    np.testing.assert_array_equal(moved[:, 2], due)


def test_td3_without_its_remedies_is_ddpg():
    shared = {
        "policy": {**SMALL, "num_critics": 1},
        "learning_starts": 20,
        "batch_size": 8,
        "seed": 3,
    }
    agents = [
        kerasrl.DDPG(**shared),
        kerasrl.TD3(target_noise=0.0, policy_delay=1, **shared),
    ]
    for agent in agents:
        agent.compile(jit_compile=False)
        agent.fit("Pendulum-v1", steps=100, num_envs=2, verbose=0)
    first_weights, second = (values(a.policy.weights) for a in agents)
    assert_close(first_weights, second, 0.0)
    assert_close(*(values(a.target.variables) for a in agents), 0.0)


# SAC ----------------------------------------------------------------------------------


def sample(parameters, noise):
    """tanh of normal numbers, and the logarithm of their density."""
    mean, log_std = parameters[:, :4], tf.clip_by_value(parameters[:, 4:], -20.0, 2.0)
    u = mean + tf.exp(log_std) * noise
    log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    actions = tf.tanh(u)
    # log(1 - tanh(u)^2) = -2 log cosh(u), by a form that does not overflow.
    slope = -2.0 * (tf.abs(u) + tf.nn.softplus(-2.0 * tf.abs(u)) - math.log(2.0))
    return actions, tf.reduce_sum(log_density - slope, axis=1)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_sac_of_fixed_temperature(temperature):
    check_continuous_sac(temperature, adjust_temperature=False)


def test_sac_adjusts_its_temperature():
    metrics, taken, entropy = check_continuous_sac(0.7, adjust_temperature=True)
    # The slope of log_temperature * (entropy - target), with the target -4.
    np.testing.assert_allclose(taken[-1], entropy + 4.0, rtol=1e-3)
    expected = metrics["critic_loss"] + metrics["policy_loss"]
    expected += math.log(0.7) * (entropy + 4.0)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


def check_continuous_sac(temperature, adjust_temperature):
    batch = transitions(BOX)
    agent = kerasrl.SAC(
        policy=SMALL,
        temperature=temperature,
        adjust_temperature=adjust_temperature,
        seed=11,
    )
    build(agent, BOX, spread=0.4)
    agent.log_temperature.assign(math.log(temperature))
    # What the agent is going to draw: for the next observations first.
    twin = keras.random.SeedGenerator(11)
    twin.state.assign(agent.seed_generator.state)
    noises = [
        np.asarray(keras.random.normal((12, 4), seed=twin), np.float64)
        for _ in range(2)
    ]
    entropies = []

    def critic_part(policy, weights, target, errors):
        following = batch["next_observations"]
        # The policy itself, with a target network of the critics only.
        actions, log_probs = sample(net(policy, following), noises[0])
        judged = first(least(critics(target, beside(following, actions)))).numpy()
        soft = judged - temperature * log_probs.numpy()
        y = batch["rewards"] + np.where(batch["discounts"] > 0, 1.0, 0.0) * (
            batch["discounts"] * soft
        )
        taken = normalized(batch["actions"])
        estimates = critics(weights, beside(batch["observations"], taken))
        loss, sizes = squared_errors(
            [first(x) for x in estimates], y, batch["weights"].astype(np.float64)
        )
        errors.append(sizes)
        return loss

    def policy_part(weights, others, target):
        actions, log_probs = sample(net(weights, batch["observations"]), noises[1])
        entropies.append(-float(tf.reduce_mean(log_probs)))
        estimates = critics(others, beside(batch["observations"], actions))
        return tf.reduce_mean(temperature * log_probs - first(least(estimates)))

    metrics, taken = compare(agent, batch, policy_part, critic_part)
    np.testing.assert_allclose(metrics["entropy"], entropies[0], rtol=1e-4)
    np.testing.assert_allclose(metrics["temperature"], temperature, rtol=1e-5)
    if not adjust_temperature:
        np.testing.assert_allclose(
            agent.log_temperature, math.log(temperature), rtol=1e-6
        )
    return metrics, taken, entropies[0]


@pytest.mark.parametrize("adjust_temperature", [False, True])
def test_sac_with_discrete_actions(adjust_temperature):
    batch, temperature = transitions(DISCRETE), 0.4
    agent = kerasrl.SAC(
        policy=SMALL,
        temperature=temperature,
        adjust_temperature=adjust_temperature,
        entropy_fraction=0.6,
    )
    build(agent, DISCRETE)
    agent.log_temperature.assign(math.log(temperature))
    entropies = []

    def soft_values(logits, q_values):
        log_probs = tf.nn.log_softmax(logits)
        return tf.reduce_sum(
            tf.exp(log_probs) * (q_values - temperature * log_probs), axis=1
        )

    def critic_part(policy, weights, target, errors):
        following = batch["next_observations"]
        judged = least(critics(target, following.astype(np.float64)))
        soft = soft_values(net(policy, following), judged).numpy()
        y = batch["rewards"] + batch["discounts"] * soft
        rows = np.arange(len(y))
        estimates = [
            tf.gather_nd(x, np.stack([rows, batch["actions"]], axis=1))
            for x in critics(weights, batch["observations"].astype(np.float64))
        ]
        loss, sizes = squared_errors(estimates, y, batch["weights"].astype(np.float64))
        errors.append(sizes)
        return loss

    def policy_part(weights, others, target):
        logits = net(weights, batch["observations"])
        log_probs = tf.nn.log_softmax(logits)
        entropies.append(
            -float(tf.reduce_mean(tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=1)))
        )
        q_values = least(critics(others, batch["observations"].astype(np.float64)))
        return -tf.reduce_mean(soft_values(logits, q_values))

    metrics, taken = compare(agent, batch, policy_part, critic_part)
    np.testing.assert_allclose(metrics["entropy"], entropies[0], rtol=1e-4)
    if adjust_temperature:
        wanted = 0.6 * math.log(3)
        np.testing.assert_allclose(taken[-1], entropies[0] - wanted, rtol=1e-3)


def test_target_entropy_can_be_chosen():
    agent = kerasrl.SAC(policy=SMALL, target_entropy=0.9, temperature=1.0, seed=0)
    build(agent, DISCRETE)
    agent.log_temperature.assign(0.0)
    metrics, _, taken = take_step(agent, transitions(DISCRETE))
    np.testing.assert_allclose(taken[-1], metrics["entropy"] - 0.9, rtol=1e-4)


def test_the_temperature_rises_until_the_policy_is_random_enough():
    """In a bandit where nothing pays, only the temperature makes it random."""
    results = {}
    for target_entropy in (0.2, 0.6):
        agent = kerasrl.SAC(
            policy=SMALL,
            target_entropy=target_entropy,
            gamma=0.0,
            learning_starts=20,
            batch_size=16,
            gradient_steps=1,
            updates_per_call=20,
            seed=0,
        )
        agent.compile(keras.optimizers.Adam(2e-2), jit_compile=False)
        history = agent.fit(
            lambda: testing.TwoRoundEnv(second=((0.0, 1.0), (0.0, 1.0))),
            steps=2_000,
            num_envs=4,
            verbose=0,
        )
        results[target_entropy] = history.history["entropy"][-1]
    for target_entropy, entropy in results.items():
        assert abs(entropy - target_entropy) < 0.15, results
