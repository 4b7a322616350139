"""One gradient step of each algorithm on action values, from its definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from by_definition import (
    ENDS,
    GAMMA,
    LENGTH,
    assert_close,
    build,
    gradients_of,
    huber,
    net,
    sequences,
    take_step,
    transitions,
    values,
)

import kerasrl
from kerasrl import losses, testing

SMALL = {"hidden_units": (8,)}


def check(agent, batch, reference):
    """Compares a step with `reference(weights)`: a scalar and errors, of tensors."""
    target = values(agent.target.variables)
    online = values(agent.trainable_variables)
    errors = []
    loss, gradients = gradients_of(
        lambda weights: reference(weights, online, target, errors), online
    )
    metrics, td_errors, taken = take_step(agent, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-5)
    np.testing.assert_allclose(td_errors, errors, rtol=2e-4, atol=1e-5)
    assert_close(taken, gradients)
    # A step leaves the target network where it is.
    assert_close(values(agent.target.variables), target, 0.0)


# DQN ----------------------------------------------------------------------------------


def dqn_reference(batch, double, delta):
    """y = R + discount * Q_target(s', argmax_a Q(s', a)), one sample at a time."""

    def reference(weights, online, target, errors):
        total = 0.0
        for i in range(len(batch["rewards"])):
            following = batch["next_observations"][i : i + 1]
            judged = net(target, following)[0].numpy()
            selector = net(online, following)[0].numpy() if double else judged
            y = batch["rewards"][i] + batch["discounts"][i] * judged[selector.argmax()]
            value = net(weights, batch["observations"][i : i + 1])[0]
            error = value[batch["actions"][i]] - y
            errors.append(abs(float(error)))
            total += batch["weights"][i] * huber(error, delta)
        return total / len(batch["rewards"])

    return reference


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("delta", [1.0, 0.3, None])
def test_dqn(double, delta):
    batch = transitions()
    agent = build(kerasrl.DQN(policy=SMALL, double=double, huber_delta=delta))
    check(agent, batch, dqn_reference(batch, double, delta))


def test_double_and_single_targets_differ_on_this_batch():
    batch = transitions()
    agent = build(kerasrl.DQN(policy=SMALL))
    online, target = values(agent.trainable_variables), values(agent.target.variables)
    chosen = [
        net(weights, batch["next_observations"]).numpy().argmax(axis=1)
        for weights in (online, target)
    ]
    assert (chosen[0] != chosen[1])[~batch["terminated"]].sum() > 2


def test_simple_q():
    batch = transitions()
    agent = build(kerasrl.SimpleQ(policy=SMALL))
    check(agent, batch, dqn_reference(batch, double=False, delta=1.0))


def test_gradients_are_clipped_by_their_global_norm():
    batch = transitions()
    whole = take_step(build(kerasrl.DQN(policy=SMALL)), batch)
    norm = np.sqrt(sum(np.sum(g**2) for g in whole[2]))
    np.testing.assert_allclose(whole[0]["gradient_norm"], norm, rtol=1e-4)
    clipped = take_step(build(kerasrl.DQN(policy=SMALL, max_grad_norm=0.1)), batch)
    assert_close(clipped[2], [g * 0.1 / norm for g in whole[2]], 1e-3)
    np.testing.assert_allclose(clipped[0]["gradient_norm"], norm, rtol=1e-4)


# Distributions of returns -------------------------------------------------------------

ATOMS = np.linspace(-4.0, 6.0, 6)


def project(reward, discount, probabilities):
    """Algorithm 1 of https://arxiv.org/abs/1707.06887, atom by atom."""
    spacing = ATOMS[1] - ATOMS[0]
    result = np.zeros(len(ATOMS))
    for atom, probability in zip(ATOMS, probabilities, strict=True):
        moved = min(max(reward + discount * atom, ATOMS[0]), ATOMS[-1])
        place = (moved - ATOMS[0]) / spacing
        lower, upper = int(np.floor(place)), int(np.ceil(place))
        if lower == upper:
            result[lower] += probability
        else:
            result[lower] += probability * (upper - place)
            result[upper] += probability * (place - lower)
    return result


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def returns_of(weights, observation):
    """Numbers that describe the return of each action, `[A, Z]`."""
    return tf.reshape(net(weights, observation[None])[0], (3, -1))


@pytest.mark.parametrize("double", [False, True])
def test_categorical_dqn(double):
    batch = transitions()
    agent = build(
        kerasrl.DQN(policy=SMALL, double=double, num_atoms=6, v_min=-4.0, v_max=6.0)
    )

    def reference(weights, online, target, errors):
        total = 0.0
        for i in range(len(batch["rewards"])):
            following = batch["next_observations"][i]
            judged = returns_of(target, following).numpy()
            judged = [softmax(row) for row in judged]
            selector = judged
            if double:
                selector = [
                    softmax(row) for row in returns_of(online, following).numpy()
                ]
            best = np.argmax([row @ ATOMS for row in selector])
            wanted = project(batch["rewards"][i], batch["discounts"][i], judged[best])
            logits = returns_of(weights, batch["observations"][i])[batch["actions"][i]]
            log_probs = tf.nn.log_softmax(logits)
            total += batch["weights"][i] * -tf.reduce_sum(wanted * log_probs)
            known = wanted > 0
            logs = np.log(wanted[known]) - log_probs.numpy()[known]
            errors.append(np.sum(wanted[known] * logs))
        return total / len(batch["rewards"])

    check(agent, batch, reference)


@pytest.mark.parametrize("double", [False, True])
def test_quantile_dqn(double):
    batch = transitions()
    agent = build(
        kerasrl.DQN(policy=SMALL, double=double, num_quantiles=5, huber_delta=0.5)
    )

    def reference(weights, online, target, errors):
        total = 0.0
        for i in range(len(batch["rewards"])):
            following = batch["next_observations"][i]
            judged = returns_of(target, following).numpy()
            selector = returns_of(online, following).numpy() if double else judged
            best = selector.mean(axis=1).argmax()
            wanted = batch["rewards"][i] + batch["discounts"][i] * judged[best]
            predicted = returns_of(weights, batch["observations"][i])
            predicted = predicted[batch["actions"][i]]
            for m in range(5):
                tau = (m + 0.5) / 5
                for y in wanted:
                    error = y - predicted[m]
                    side = abs(tau - float(error < 0))
                    total += batch["weights"][i] * side * huber(error, 0.5) / 5
            errors.append(abs(wanted.mean() - predicted.numpy().mean()))
        return total / len(batch["rewards"])

    check(agent, batch, reference)


def test_point_masses_make_categorical_targets_those_of_dqn(monkeypatch):
    """The target distributions then have the targets of DQN as their means."""
    batch = transitions()
    batch["rewards"] = np.linspace(-1.0, 1.0, 12).astype(np.float32)
    agent = build(
        kerasrl.DQN(policy=SMALL, double=False, num_atoms=6, v_min=-4.0, v_max=6.0)
    )
    bias = np.full((3, 6), -200.0)
    places = [1, 4, 2]
    bias[range(3), places] = 200.0
    for variable, value in zip(
        agent.target.variables, (0.0, 0.0, 0.0, bias.ravel()), strict=True
    ):
        variable.assign(np.broadcast_to(value, variable.shape))
    seen = {}
    original = losses.categorical_td_loss

    def record(logits, targets, weights):
        seen["targets"] = targets.numpy()
        return original(logits, targets, weights)

    monkeypatch.setattr(losses, "categorical_td_loss", record)
    take_step(agent, batch)
    q_values = np.broadcast_to(ATOMS[places], (12, 3)).astype(np.float32)
    expected = losses.q_learning_targets(batch["rewards"], batch["discounts"], q_values)
    np.testing.assert_allclose(seen["targets"] @ ATOMS, expected, rtol=1e-4, atol=1e-5)


# Noise --------------------------------------------------------------------------------


def test_each_network_has_noise_of_its_own():
    """The next action is chosen and judged with different noise in every step."""
    agent = kerasrl.DQN(policy=SMALL, noisy=True, seed=1)
    build(agent)
    batch = transitions()
    seen = []
    original = losses.q_learning_targets

    def record(rewards, discounts, next_q_values, selector=None):
        seen.append((next_q_values.numpy(), selector.numpy()))
        return original(rewards, discounts, next_q_values, selector)

    losses.q_learning_targets = record
    try:
        for _ in range(2):
            # The same weights everywhere: only noise can tell the networks apart.
            for source, copy in zip(
                agent.target.sources, agent.target.variables, strict=True
            ):
                copy.assign(source)
            agent.policy.optimizer.learning_rate = 0.0
            take_step(agent, batch)
    finally:
        losses.q_learning_targets = original
    every = [values for pair in seen for values in pair]
    for i, first in enumerate(every):
        for second in every[:i]:
            assert not np.allclose(first, second)


# R2D2 ---------------------------------------------------------------------------------

BURN_IN, EPSILON = 3, 1e-2


def lstm_q_values(weights, batch, row, state=None, start=0):
    """Q of each row of a sequence, and the state before it, step by step."""
    body, cell, head = weights[:2], weights[2:5], weights[5:]
    if state is None:
        state = [np.asarray(x[row], np.float64) for x in batch["state"]["shared"]]
    results, states = [], []
    for time in range(start, LENGTH):
        if batch["episode_starts"][row, time]:
            state = [np.zeros(4), np.zeros(4)]
        states.append(state)
        x = batch["observations"][row, time].astype(np.float64)
        features = tf.nn.relu(tf.linalg.matvec(body[0], x, transpose_a=True) + body[1])
        z = tf.linalg.matvec(cell[0], features, transpose_a=True) + cell[2]
        z += tf.linalg.matvec(cell[1], state[0], transpose_a=True)
        i, f, c, o = tf.split(z, 4)
        memory = tf.sigmoid(f) * state[1] + tf.sigmoid(i) * tf.tanh(c)
        output = tf.sigmoid(o) * tf.tanh(memory)
        state = [output, memory]
        results.append(tf.linalg.matvec(head[0], output, transpose_a=True) + head[1])
    return results, states


def rescale(x):
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + EPSILON * x


def unrescale(x):
    root = np.sqrt(1 + 4 * EPSILON * (abs(x) + 1 + EPSILON))
    return np.sign(x) * (((root - 1) / (2 * EPSILON)) ** 2 - 1)


def r2d2_target(batch, row, time, n, next_value):
    """What Q of a row should be, or None if it has no target."""

    def usable(time):
        if time >= LENGTH or not batch["valid"][row, time]:
            return False
        return time + 1 < LENGTH or batch["terminated"][row, time]

    if not usable(time):
        return None
    total, k = 0.0, 0
    while True:
        total += GAMMA**k * batch["rewards"][row, time + k]
        if batch["terminated"][row, time + k]:
            return total
        k += 1
        ended = batch["truncated"][row, time + k - 1]
        if ended or k == n or not usable(time + k):
            return total + GAMMA**k * next_value(time + k)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("rescaling", [EPSILON, None])
@pytest.mark.parametrize("burn_in", [0, BURN_IN])
def test_r2d2(double, rescaling, burn_in):
    batch, n, eta = sequences(), 3, 0.7
    agent = build(
        kerasrl.R2D2(
            policy={**SMALL, "cell_units": 4},
            burn_in=burn_in,
            sequence_length=LENGTH - burn_in - 1,
            double=double,
            rescaling=rescaling,
            n_step=n,
            gamma=GAMMA,
            priority_mixture=eta,
        )
    )
    squash, stretch = (rescale, unrescale) if rescaling else (lambda x: x, lambda x: x)

    def reference(weights, online, target, priorities):
        total, count = 0.0, 0
        for row in range(len(ENDS)):
            judged = lstm_q_values(target, batch, row)[0]
            selector, states = lstm_q_values(online, batch, row)
            # Burnt in with the weights as they are, through which nothing is learnt.
            predicted, _ = lstm_q_values(
                weights, batch, row, states[burn_in], start=burn_in
            )

            def next_value(time, judged=judged, selector=selector):
                chooser = (selector if double else judged)[time].numpy()
                return stretch(judged[time].numpy()[chooser.argmax()])

            errors = []
            for time in range(burn_in, LENGTH):
                y = r2d2_target(batch, row, time, n, next_value)
                if y is None:
                    continue
                value = predicted[time - burn_in][batch["actions"][row, time]]
                error = value - squash(y)
                errors.append(abs(float(error)))
                total += batch["weights"][row] * 0.5 * error**2
                count += 1
            priorities.append(eta * max(errors) + (1 - eta) * np.mean(errors))
        return total / count

    check(agent, batch, reference)


def test_burn_in_needs_a_recurrent_policy():
    with pytest.raises(ValueError, match="kerasrl.DQN"):
        build(kerasrl.R2D2(policy={**SMALL, "cell": None}))


# Reductions ---------------------------------------------------------------------------


def train(agent, env=testing.TwoRoundEnv, steps=120, **optimizer):
    agent.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    agent.fit(env, steps=steps, num_envs=2, verbose=0)
    return agent


SHORT = {
    "policy": SMALL,
    "learning_starts": 20,
    "batch_size": 8,
    "target_update_interval": 12,
    "exploration": 0.3,
    "seed": 3,
}


def test_dqn_without_improvements_is_simple_q():
    simple = train(kerasrl.SimpleQ(**SHORT))
    plain = train(kerasrl.DQN(double=False, n_step=1, **SHORT))
    assert_close(values(plain.policy.weights), values(simple.policy.weights), 0.0)
    assert_close(values(plain.target.variables), values(simple.target.variables), 0.0)
    batch = plain.sample(20)
    assert (batch["steps"] == 1).all()
    assert set(np.unique(batch["rewards"])) <= {0.0, 1.0, 3.0}


def test_priorities_to_the_power_of_zero_are_uniform():
    agent = kerasrl.DQN(prioritized=True, replay={"priority_exponent": 0.0}, **SHORT)
    train(agent)
    batch = agent.sample(500)
    np.testing.assert_array_equal(batch["weights"], 1.0)
    _, counts = np.unique(batch["indices"], return_counts=True)
    assert len(counts) == len(agent.buffer)
    expected = counts.sum() / len(counts)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    freedom = len(counts) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_errors_become_priorities():
    """The agent learns from what it was wrong about: the shares follow the errors."""
    agent = kerasrl.DQN(
        prioritized=True, replay={"priority_exponent": 1.0, "epsilon": 1e-6}, **SHORT
    )
    train(agent)
    batch = agent.sample(1)
    indices = batch["indices"]
    errors = np.ones(indices.shape)
    favourite = indices[0, 0]
    errors[indices == favourite] = 100.0
    agent.buffer.update_priorities(indices, errors)
    drawn = agent.sample(50)
    is_favourite = drawn["indices"] == favourite
    assert is_favourite.mean() > 10 / len(agent.buffer)
    # The weights make up for it: beside others, the favourite counts least.
    mixed = is_favourite.any(axis=1) & ~is_favourite.all(axis=1)
    weights = drawn["weights"][mixed]
    lightest = np.where(is_favourite[mixed], weights, np.inf).min(axis=1)
    assert mixed.any()
    np.testing.assert_array_equal(lightest, weights.min(axis=1))
    assert (lightest < 0.5).all()
