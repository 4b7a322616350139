"""Mixing the values of a team, by a vector that was worked out elsewhere."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl.losses import monotonic_mix, sum_mix


def mixed(values, state):
    """By the weights of the vector."""
    first = state @ np.array([[0.3, -0.2, 0.1, 0.4], [0.1, 0.5, -0.6, 0.2]], np.float32)
    first = (first + np.array([0.05, -0.1, 0.2, 0.3], np.float32)).reshape(2, 2)
    biases = state @ np.array([[0.2, -0.1], [0.3, 0.4]], np.float32)
    second = state @ np.array([[0.5, -0.3], [0.35, 0.1]], np.float32)
    hidden = np.maximum(state @ np.array([[0.4, -0.2], [0.1, -0.3]], np.float32), 0)
    offset = hidden @ np.array([0.7, -0.5], np.float32)
    return monotonic_mix(values, first, biases, second, offset)


def test_the_known_vector():
    values = tf.constant([0.5, -1.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        team = mixed(values, np.array([1.0, -2.0], np.float32))
    assert float(team) == pytest.approx(-0.43928157, abs=1e-6)
    gradient = tape.gradient(team, values)
    assert np.allclose(gradient, [0.37985391, 0.13490776], atol=1e-6)


def test_no_member_lowers_the_value_of_the_team():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = tf.constant(rng.normal(size=2), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(values)
            team = mixed(values, rng.normal(size=2).astype(np.float32) * 5)
        assert (tape.gradient(team, values).numpy() >= 0).all()


def test_leading_axes_and_refusals():
    rng = np.random.default_rng(1)
    shapes = [(4, 3, 2), (4, 3, 2, 5), (4, 3, 5), (4, 3, 5), (4, 3)]
    parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    team = np.array(monotonic_mix(*parts))
    alone = monotonic_mix(*(part[1, 2] for part in parts))
    assert team.shape == (4, 3) and np.allclose(team[1, 2], alone, atol=1e-5)
    assert np.allclose(sum_mix(parts[0]), parts[0].sum(-1))
    with pytest.raises(ValueError, match=r"\[..., n, E\]"):
        monotonic_mix(parts[0][..., :1], *parts[1:])
