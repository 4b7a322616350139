"""Actions that cannot be taken, marked by the recipes in use, make nothing infinite."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import kerasrl
from kerasrl import losses
from kerasrl.distributions import Bernoulli, Categorical, MultiCategorical

LEAST = float(np.finfo(np.float32).min)
MARKS = (LEAST, -1e9, -np.inf)
PROPERTY = settings(max_examples=20, deadline=None)


@st.composite
def marked(draw, shape, keep_first=False):
    """Numbers of the size of returns, some replaced by a mark; and which."""
    seed = draw(st.integers(0, 1000))
    mark = draw(st.sampled_from(MARKS))
    generator = np.random.default_rng(seed)
    values = generator.normal(0, 3, shape).astype(np.float32)
    impossible = generator.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.7]))
    if keep_first:
        impossible[..., 0] = False
    return np.where(impossible, np.float32(mark), values), impossible


def gradient(function, x):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


def is_finite(*trees):
    return all(
        np.isfinite(np.asarray(x)).all()
        for tree in trees
        for x in keras.tree.flatten(tree)
    )


@given(marked((6,)), marked((6,)), st.sampled_from([None, 1.0]))
@PROPERTY
def test_td_loss_leaves_impossible_actions_out(values, targets, delta):
    (values, without), (targets, also) = values, targets
    out = without | also
    weights = np.linspace(0.1, 1, 6, dtype="float32")

    def loss(values):
        return losses.td_loss(values, targets, weights, delta)[0]

    errors = np.where(out, 0, np.where(out, 0, values) - np.where(out, 0, targets))
    expected = np.mean(weights * np.asarray(losses.huber(errors, delta)))
    np.testing.assert_allclose(loss(values), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.td_errors(values, targets), np.abs(errors))
    slopes = gradient(loss, values)
    assert is_finite(slopes) and not np.asarray(slopes)[out].any()
    logs = losses.td_loss(values, targets, weights, delta)[1]
    assert is_finite(logs, losses.mean_value(values))


@given(marked((3, 4), keep_first=True), marked((3, 4), keep_first=True))
@PROPERTY
def test_q_learning_does_not_choose_them(q_values, selector):
    (q_values, impossible), (selector, _) = q_values, selector
    no = np.zeros(3, np.float32)
    targets = losses.q_learning_targets(no, no + 0.9, q_values)
    best = np.where(impossible, -np.inf, q_values).max(-1)
    np.testing.assert_allclose(targets, 0.9 * best, rtol=1e-5)
    double = losses.q_learning_targets(no, no, q_values, selector)
    np.testing.assert_array_equal(double, no)


@given(marked((5, 3)), marked((5, 4)))
@PROPERTY
def test_quantile_loss_leaves_impossible_actions_out(quantiles, targets):
    (quantiles, without), (targets, also) = quantiles, targets
    out = without.any(-1) | also.any(-1)

    def loss(quantiles):
        return losses.quantile_huber_loss(quantiles, targets)[0]

    slopes = np.asarray(gradient(loss, quantiles))
    errors = losses.quantile_td_errors(quantiles, targets)
    assert is_finite(loss(quantiles), slopes, errors) and not slopes[out].any()


@given(marked((5, 4), keep_first=True), st.integers(0, 99))
@PROPERTY
def test_categorical_loss_stays_finite(logits, seed):
    """Atoms that the target holds and the network masks, too."""
    logits, _ = logits
    generator = np.random.default_rng(seed)
    targets = generator.dirichlet(np.ones(4), 5).astype(np.float32)

    def loss(logits):
        return losses.categorical_td_loss(logits, targets)[0]

    errors = losses.categorical_td_errors(logits, targets)
    assert is_finite(loss(logits), gradient(loss, logits), errors)


@given(marked((5, 4), keep_first=True), marked((5, 4), keep_first=True))
@PROPERTY
def test_discrete_soft_actor_critic_stays_finite(logits, q_values):
    (logits, masked), (q_values, impossible) = logits, q_values
    temperature = np.float32(3.0)

    def loss(logits):
        log_probs = Categorical(logits).log_probs
        return losses.discrete_soft_policy_loss(q_values, log_probs, temperature)[0]

    log_probs = Categorical(logits).log_probs
    values = np.asarray(losses.discrete_soft_values(q_values, log_probs, temperature))
    assert is_finite(loss(logits), gradient(loss, logits), values)
    out = masked | impossible
    probs, terms = np.exp(log_probs), np.where(out, 0, log_probs)
    probs = np.where(out, 0, probs).astype(np.float64)
    terms = np.where(out, 0, q_values) - 3.0 * terms
    expected = (probs * terms).sum(-1) / probs.sum(-1)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@given(marked((6, 2)), st.sampled_from([None, 0.0, 1e-3]), st.integers(1, 4))
@PROPERTY
def test_sequence_targets_and_priorities_stay_finite(values, epsilon, n):
    values, _ = values
    ends = np.arange(12).reshape(6, 2) % 5 == 4
    no, yes = np.zeros_like(ends), np.ones_like(ends)
    rewards = np.ones((6, 2), np.float32)
    targets, usable = losses.transformed_n_step_targets(
        values, rewards, ends, no, yes, gamma=0.997, n=n, epsilon=epsilon
    )
    loss, _ = losses.td_loss(values, targets, None, None, usable)
    errors = losses.td_errors(values, targets, usable)
    assert is_finite(loss, errors, losses.sequence_priorities(errors, usable))


DISTRIBUTIONS = {
    "categorical": lambda x: Categorical(x),
    "multi": lambda x: MultiCategorical(x[:, :5], [2, 3]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(marked((4, 5), keep_first=True), st.integers(0, 99))
@PROPERTY
def test_distributions_of_masked_logits(name, logits, seed):
    logits, impossible = logits
    logits[:, 2], impossible[:, 2] = 0.5, False  # The second choice's first option.
    make = DISTRIBUTIONS[name]
    distribution = make(logits)
    actions = distribution.sample(seed)
    other = make(np.where(impossible, logits, logits * 0.5))

    def total(logits):
        distribution = make(logits)
        return ops.sum(
            distribution.log_prob(actions)
            + distribution.entropy()
            + distribution.kl(other)
        )

    assert is_finite(total(logits), gradient(total, logits))
    assert is_finite(distribution.log_prob(distribution.mode()))
    columns = np.asarray(actions) + (np.array([0, 2]) if name == "multi" else 0)
    columns = columns.reshape(4, -1)
    assert not np.take_along_axis(impossible, columns, 1).any()


@given(marked((4, 3)))
@PROPERTY
def test_switches_of_infinite_logits(logits):
    logits, off = logits
    distribution = Bernoulli(logits)
    actions = np.asarray(distribution.sample(0))
    assert not actions[off].any()

    def total(logits):
        distribution = Bernoulli(logits)
        other = Bernoulli(np.where(off, logits, 0.0))
        return ops.sum(
            distribution.log_prob(actions)
            + distribution.entropy()
            + distribution.kl(other)
        )

    assert is_finite(total(logits), gradient(total, logits))


# -- agents ----------------------------------------------------------------------------


def masked(x, observations, mark):
    """Forbids the first action where the pole leans to the right."""
    forbidden = ops.stack(
        [observations[:, 2] > 0, ops.zeros_like(observations[:, 2], "bool")], -1
    )
    return ops.where(forbidden, mark, x)


class MaskedQ(kerasrl.models.QFunction):
    def __init__(self, mark, kind="q_values", cell=False):
        super().__init__()
        self.mark, self.kind, self.cell = mark, kind, cell
        if kind == "logits":
            self.atoms = np.linspace(-1, 1, 3, dtype="float32")

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(2 if self.kind == "q_values" else 6)

    def get_initial_state(self, batch_size):
        return (ops.zeros((batch_size, 1)),) if self.cell else ()

    def call(self, inputs, state=None, training=False):
        observations = inputs["observations"]
        head = self.head(observations)
        outputs = {"state": tuple(state) if self.cell else ()}
        if self.kind != "q_values":
            head = ops.reshape(head, (-1, 2, 3))
            outputs[self.kind] = head
            probs = (
                ops.softmax(head) * self.atoms if self.kind == "logits" else head / 3
            )
            head = ops.sum(probs, -1)
        outputs["q_values"] = masked(head, observations, self.mark)
        if self.kind == "quantiles":
            rows = masked(ops.zeros_like(outputs["q_values"]), observations, self.mark)
            outputs["quantiles"] = outputs["quantiles"] + rows[..., None]
        return outputs


SETTINGS = {"learning_starts": 8, "batch_size": 16, "buffer_size": 256}
AGENTS = {
    "dqn": lambda mark: kerasrl.DQN(
        policy=MaskedQ(mark), prioritized=True, dueling=False, seed=0, **SETTINGS
    ),
    "quantiles": lambda mark: kerasrl.DQN(
        policy=MaskedQ(mark, "quantiles"), dueling=False, seed=0, **SETTINGS
    ),
    "simple_q": lambda mark: kerasrl.SimpleQ(policy=MaskedQ(mark), seed=0, **SETTINGS),
    "r2d2": lambda mark: kerasrl.R2D2(
        policy=MaskedQ(mark, cell=True),
        sequence_length=4,
        burn_in=0,
        period=4,
        seed=0,
        **SETTINGS,
    ),
}


@pytest.mark.parametrize("mark", [LEAST, -np.inf])
@pytest.mark.parametrize("name", AGENTS)
def test_agents_learn_beside_a_mask(name, mark):
    """Exploration takes actions that the network forbids."""
    agent = AGENTS[name](mark)
    agent.compile(run_eagerly=True)
    history = agent.fit("CartPole-v1", steps=40, verbose=0)
    for key in ("loss", "td_error", "q_value"):
        values = [x for x in history.history.get(key, []) if x is not None]
        assert values and is_finite(values[-1]), (key, values)
    assert is_finite([np.asarray(v) for v in agent.policy.trainable_variables])
