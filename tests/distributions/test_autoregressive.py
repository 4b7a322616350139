"""Actions whose components depend on those before them, by definition."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from references import everywhere

from kerasrl.distributions import (
    Autoregressive,
    Bernoulli,
    Components,
    autoregressive_for,
    distribution_for,
)
from kerasrl.distributions import autoregressive as module
from kerasrl.models import MADE

#: Uneven choices in a grid, switches, a start, numbers, keys out of order, one option.
HOSTILE = spaces.Dict(
    [
        ("move", spaces.Box(-1, 1, (1, 2))),
        ("choices", spaces.MultiDiscrete([[2, 3], [1, 2]])),
        ("rest", spaces.Tuple([spaces.Discrete(3, start=5), spaces.MultiBinary(2)])),
        ("level", spaces.Box(-1, 1, ())),
    ]
)
#: At most 32 beginnings, and so many actions in all.
SMALL = {
    "choices": (spaces.MultiDiscrete([3, 2, 4]), 24),
    "switches": (spaces.MultiBinary((2, 2)), 16),
    "mixed": (spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(3)]), 12),
}
each_small = pytest.mark.parametrize("name", SMALL)


def make(space, seed=0, scale=0.8, **arguments):
    """A type whose model has weights that make components depend on each other."""
    model = MADE(**{"hidden_units": (8,), "context_units": 3, **arguments})
    found = autoregressive_for(space, model)
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape) * scale)
    return found


def contexts(*batch, seed=0):
    shape = (*batch, 3)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def all_actions(space):
    """Every action of a discrete space, a tree `[number, ...]`, written out."""
    parts = space.spaces if isinstance(space, spaces.Tuple) else [space]
    options = []
    for part in parts:
        if isinstance(part, spaces.Discrete):
            options.append([int(part.n)])
        elif isinstance(part, spaces.MultiBinary):
            options.append([2] * int(np.prod(part.shape)))
        else:
            options.append(part.nvec.ravel().tolist())
    rows = np.array(list(itertools.product(*map(range, sum(options, [])))))
    columns = np.split(rows, np.cumsum([len(each) for each in options])[:-1], axis=1)
    leaves = tuple(
        column.reshape(-1, *part.shape).astype("int32")
        for column, part in zip(columns, parts, strict=True)
    )
    return leaves if isinstance(space, spaces.Tuple) else leaves[0]


def log_prob_by_definition(found, context, action):
    """Sum over components, each by a pass of its own that sees those before alone."""
    model, components = found.options["model"], found.options["components"]
    values = [
        np.reshape(leaf, -1)
        for leaf in keras.tree.flatten(keras.tree.map_structure(np.asarray, action))
    ]
    values = np.concatenate(values).tolist()
    total, seen = 0.0, []
    for index, value in enumerate(values):
        widths = components.input_sizes[:-1]
        inputs = np.zeros((1, sum(widths)), np.float32)
        inputs[0, : len(seen)] = seen
        emitted = np.asarray(model(inputs, context[None]), np.float64)[0]
        start = sum(components.output_sizes[:index])
        emitted = emitted[start : start + components.output_sizes[index]]
        options = components.options[index]
        if options is None:
            mean, log_std = emitted
            distance = (value - mean) / np.exp(log_std)
            total += -0.5 * distance**2 - log_std - 0.5 * np.log(2 * np.pi)
        elif len(emitted) < options:
            total += -np.log1p(np.exp(-emitted[0] if value else emitted[0]))
        else:
            total += emitted[int(value)] - np.log(np.exp(emitted).sum())
        if index < len(widths):
            width = widths[index]
            seen += [value] if width == 1 else np.eye(width)[int(value)].tolist()
    return total


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
def test_actions_are_trees_like_the_space(batch):
    found = make(HOSTILE)
    distribution = found(contexts(*batch))
    independent = distribution_for(HOSTILE)(np.zeros((*batch, 19)))
    assert isinstance(distribution, Autoregressive)
    for actions in (distribution.sample(seed=1), distribution.mode()):
        keras.tree.assert_same_structure(actions, found.action_dtype)
        columns = (actions, found.action_dtype, independent.mode())
        for leaf, dtype, like in zip(*map(keras.tree.flatten, columns), strict=True):
            assert keras.backend.standardize_dtype(leaf.dtype) == dtype
            assert tuple(leaf.shape) == tuple(like.shape)
        for result in (distribution.log_prob(actions), distribution.entropy()):
            assert tuple(result.shape) == batch


def test_the_log_probability_is_the_sum_over_components():
    found = make(HOSTILE)
    context = contexts(4, seed=2)
    actions = found(context).sample(seed=3)
    received = np.asarray(found(context).log_prob(actions))
    for row in range(4):
        action = keras.tree.map_structure(lambda x, row=row: x[row], actions)
        expected = log_prob_by_definition(found, context[row], action)
        np.testing.assert_allclose(received[row], expected, rtol=1e-4)


_PARTS = st.one_of(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.integers(1, 4).map(spaces.Discrete),
    st.integers(1, 3).map(spaces.MultiBinary),
    st.lists(st.integers(1, 2), max_size=2).map(lambda s: spaces.Box(-1, 1, tuple(s))),
)


@settings(max_examples=6, deadline=None)
@given(st.lists(_PARTS, min_size=2, max_size=4), st.integers(1, 6), st.booleans())
def test_any_space_and_any_width(parts, units, deep):
    """Widths below the number of components too."""
    space = spaces.Tuple(parts)
    # Numbers are inputs of what follows: large ones would soon be infinite.
    found = make(space, hidden_units=(units,) * (1 + deep), scale=0.2)
    context = contexts(2, seed=units)
    actions = found(context).sample(seed=1)
    received = np.asarray(found(context).log_prob(actions))
    action = keras.tree.map_structure(lambda x: x[1], actions)
    expected = log_prob_by_definition(found, context[1], action)
    np.testing.assert_allclose(received[1], expected, rtol=1e-3, atol=1e-4)


def probabilities(name):
    """A distribution, all actions, and how probable each is."""
    space, count = SMALL[name]
    found, actions = make(space), all_actions(space)
    context = contexts(1, seed=5)
    many = found(np.repeat(context, count, axis=0))
    return found, context, actions, np.exp(np.asarray(many.log_prob(actions)))


@each_small
def test_probabilities_add_up_and_are_drawn(name):
    found, context, actions, expected = probabilities(name)
    np.testing.assert_allclose(expected.sum(), 1.0, rtol=1e-5)
    drawn = found(np.repeat(context, 20_000, axis=0)).sample(seed=2)
    rows, drawn = (
        np.concatenate(
            [np.reshape(leaf, (len(leaf), -1)) for leaf in keras.tree.flatten(tree)], 1
        )
        for tree in (actions, drawn)
    )
    counts = (drawn[:, None] == rows).all(-1).sum(0)
    assert counts.sum() == 20_000
    deviation = np.sqrt(expected * (1 - expected) * 20_000) + 1
    assert (np.abs(counts - 20_000 * expected) < 4.5 * deviation).all()


@each_small
def test_entropy_and_divergence_over_all_actions(name):
    found, context, actions, mine = probabilities(name)
    other = make(SMALL[name][0], seed=1)
    many = other(np.repeat(context, len(mine), axis=0))
    theirs = np.asarray(many.log_prob(actions))
    distribution = found(context)
    np.testing.assert_allclose(
        distribution.entropy(), [-(mine * np.log(mine)).sum()], rtol=1e-4
    )
    np.testing.assert_allclose(
        distribution.kl(other(context)),
        [(mine * (np.log(mine) - theirs)).sum()],
        rtol=1e-4,
    )
    np.testing.assert_allclose(distribution.kl(distribution), [0.0], atol=1e-6)


@pytest.mark.parametrize("quantity", ["entropy", "kl"])
def test_estimates_are_right_on_average_and_so_are_gradients(quantity, monkeypatch):
    found = make(SMALL["mixed"][0])
    other = make(SMALL["mixed"][0], seed=1)
    context = contexts(1, seed=5)

    def mean(context, rows):
        many = ops.repeat(context, rows, axis=0)
        distribution = found(many)
        if quantity == "entropy":
            return ops.mean(distribution.entropy())
        return ops.mean(distribution.kl(other(many)))

    def with_gradient(rows):
        x = tf.constant(context)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = mean(x, rows)
        return y, tape.gradient(y, x)

    exact = with_gradient(1)
    monkeypatch.setattr(module, "MOST_ENUMERATED", 0)
    estimate = with_gradient(40_000)
    assert not np.allclose(mean(context, 1), exact[0], 1e-6)
    np.testing.assert_allclose(estimate[0], exact[0], rtol=0.02)
    np.testing.assert_allclose(estimate[1], exact[1], rtol=0.05, atol=0.01)
    assert mean(context, 3) != mean(context, 3)


def test_ascent_of_an_estimated_entropy_reaches_the_largest(monkeypatch):
    """Of few rows, whose errors cancel over updates only if they are drawn anew."""
    found = make(spaces.MultiDiscrete([8, 8]))
    model, context = found.options["model"], tf.constant(contexts(8))
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(model.trainable_variables)
    monkeypatch.setattr(module, "MOST_ENUMERATED", 0)

    @tf.function(jit_compile=True)
    def ascend():
        with tf.GradientTape() as tape:
            loss = -ops.mean(found(context).entropy())
        optimizer.apply(tape.gradient(loss, model.trainable_variables))

    for _ in range(500):
        ascend()
    assert ascend.experimental_get_tracing_count() == 1
    monkeypatch.undo()
    # With the same draws each time, 3.2 of 4.16 after as many steps and any more.
    assert np.mean(found(context).entropy()) > 4.05


def test_the_same_in_every_mode():
    found = make(spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (1,))]))
    context = contexts(4)
    actions = keras.tree.map_structure(np.asarray, found(context).sample(seed=1))

    def function(context):
        distribution = found(context)
        return (
            distribution.log_prob(actions),
            distribution.entropy(),
        )

    everywhere(function, context, atol=1e-5)


def test_what_is_illegal_has_no_probability():
    """And the rest is as if it had never been there."""
    found, context, actions, free = probabilities("choices")
    legal = np.array([[1, 1, 0, 1, 1, 1, 0, 0, 1]], bool)
    allowed = legal[0][actions + [0, 3, 5]].all(axis=1)
    masked = found(context, legal=legal)
    many = found(np.repeat(context, len(free), 0), legal=np.repeat(legal, len(free), 0))
    received = np.exp(np.asarray(many.log_prob(actions)))
    assert allowed.sum() == 8 and (received[~allowed] == 0.0).all()
    np.testing.assert_allclose(received.sum(), 1.0, rtol=1e-5)
    # Each component's share among those that are left, given those before.
    for row in np.flatnonzero(allowed):
        expected = 1.0
        for place in range(3):
            like = (actions[:, :place] == actions[row, :place]).all(axis=1)
            options = legal[0][actions[:, place] + [0, 3, 5][place]]
            same = actions[:, place] == actions[row, place]
            expected *= free[like & same].sum() / free[like & options].sum()
        np.testing.assert_allclose(received[row], expected, rtol=1e-4)
    kept = received[allowed]
    entropy = -(kept * np.log(kept)).sum()
    np.testing.assert_allclose(masked.entropy(), [entropy], rtol=1e-4)
    np.testing.assert_allclose(masked.kl(masked), [0.0], atol=1e-6)
    drawn = found(np.repeat(context, 500, 0), legal=np.repeat(legal, 500, 0)).sample(
        seed=1
    )
    assert legal[0][np.asarray(drawn) + [0, 3, 5]].all()
    assert legal[0][np.asarray(masked.mode()) + [0, 3, 5]].all()


def test_the_mode_is_greedy():
    found, context, actions, _ = probabilities("choices")
    model, components = found.options["model"], found.options["components"]
    inputs, chosen = np.zeros((1, sum(components.input_sizes[:-1])), np.float32), []
    for index, size in enumerate(components.output_sizes):
        start = sum(components.output_sizes[:index])
        emitted = np.asarray(model(inputs, context))[0, start : start + size]
        chosen.append(int(emitted.argmax()))
        if index < 2:
            first = sum(components.input_sizes[:index])
            inputs[0, first + chosen[-1] if size > 2 else first] = (
                1.0 if size > 2 else chosen[-1]
            )
    np.testing.assert_array_equal(found(context).mode(), [chosen])


def test_what_does_not_fit_is_refused():
    found = make(HOSTILE)
    distribution = found(contexts(4))
    actions = distribution.sample(seed=1)
    with pytest.raises(ValueError, match="tree of actions like the action space"):
        distribution.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match=r"\(1, 1, 2\), expected \(4, 1, 2\)"):
        distribution.log_prob({**actions, "move": actions["move"][:1]})
    with pytest.raises(ValueError, match=r"parameters of shape \[\.\.\., 3\]"):
        found(np.zeros((4, 2)))
    with pytest.raises(TypeError, match="Received: Bernoulli"):
        distribution.kl(Bernoulli(np.zeros((4, 3))))
    for space in (spaces.Discrete(4), spaces.Box(-1, 1, (1,))):
        with pytest.raises(ValueError, match="one component"):
            autoregressive_for(space, MADE())
    with pytest.raises(TypeError, match="autoregressor='made'"):
        distribution_for(HOSTILE, Autoregressive)
    assert len(Components(HOSTILE)) == 10


def test_masks_of_a_model_that_emits_half_precision_are_finite():
    class Half(MADE):
        def call(self, actions, context):
            return ops.cast(super().call(actions, context), "float16")

    found = autoregressive_for(
        spaces.MultiDiscrete([3, 3]), Half((8,), seed=1, context_units=3)
    )
    legal = np.array([[1, 0, 1, 0, 1, 1]], bool)
    distribution = found(contexts(1), legal=legal)
    log_probs = ops.convert_to_numpy(distribution.log_prob(np.array([[1, 1]])))
    assert np.isfinite(log_probs).all() and log_probs[0] < -1e8
