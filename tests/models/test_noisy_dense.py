"""Noisy layers: their statistics, their switches, their random streams."""

import keras
import numpy as np
import pytest

from kerasrl.actors import build_actor
from kerasrl.models import NoiseScope, NoisyDense


def make(units=3, features=4, seed=0, **arguments):
    layer = NoisyDense(units, seed=seed, **arguments)
    layer.build((None, features))
    return layer


X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def test_begins_as_the_paper_says():
    layer = make(units=200, features=100)
    for weight in (layer.kernel_mu, layer.bias_mu):
        values = np.asarray(weight)
        assert np.abs(values).max() <= 0.1
        assert values.std() == pytest.approx(0.1 / 3**0.5, rel=0.1)
    np.testing.assert_allclose(layer.kernel_sigma, np.full((100, 200), 0.05))
    np.testing.assert_allclose(layer.bias_sigma, np.full(200, 0.05))


def test_is_exact_outside_training():
    layer = make(activation="relu")
    expected = np.maximum(X @ np.asarray(layer.kernel_mu) + layer.bias_mu, 0.0)
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)
    with NoiseScope(enabled=False):
        np.testing.assert_allclose(layer(X, training=True), expected, atol=1e-6)


def test_every_noisy_call_differs_and_repeats_with_the_seed():
    layer, same, other = make(), make(), make(seed=100)
    first, second = layer(X, training=True), layer(X, training=True)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, same(X, training=True))
    np.testing.assert_array_equal(second, same(X, training=True))
    for ours, theirs in zip(layer.weights, other.weights, strict=True):
        theirs.assign(ours)
    assert not np.allclose(first, other(X, training=True))


def test_the_scope_makes_acting_noisy_and_ends():
    layer = make()
    exact = np.asarray(layer(X))
    with NoiseScope():
        assert not np.allclose(layer(X), exact)
        with NoiseScope(enabled=False):
            np.testing.assert_array_equal(layer(X), exact)
        assert not np.allclose(layer(X), exact)
    np.testing.assert_array_equal(layer(X), exact)


def test_mean_and_variance():
    """Of many draws on equal rows, against the moments of f(e) by definition.

    E f(e) = 0 and E f(e)^2 = E |e| = sqrt(2 / pi), so that the noise of a unit,
    (sum_i x_i s_i f(e_i) + b) f(e'), has the variance m (m sum_i (x_i s_i)^2 + b^2)
    with m = sqrt(2 / pi).
    """
    layer = make()
    rng = np.random.default_rng(3)
    for weight in (layer.kernel_sigma, layer.bias_sigma):
        weight.assign(rng.uniform(0.1, 1.0, weight.shape))
    rows = np.repeat(X[:1], 200_000, axis=0)
    noise = np.asarray(layer(rows, training=True) - layer(rows), np.float64)
    m = (2 / np.pi) ** 0.5
    scaled = X[0][:, None] * np.asarray(layer.kernel_sigma)
    variance = m * (m * (scaled**2).sum(0) + np.asarray(layer.bias_sigma) ** 2)
    np.testing.assert_allclose(
        noise.mean(0), 0.0, atol=4 * (variance / 2e5).max() ** 0.5
    )
    np.testing.assert_allclose(noise.var(0), variance, rtol=0.03)


def test_noise_is_one_matrix_of_weights_for_each_row():
    layer = make()
    normal = keras.random.normal((5, 7), seed=0)  # as the first draw of seed 0
    factor = np.sign(normal) * np.sqrt(np.abs(normal))
    mu, sigma = (np.asarray(layer.kernel_mu), np.asarray(layer.kernel_sigma))
    outputs = layer(X, training=True)
    for row in range(5):
        noise_in, noise_out = factor[row, :4], factor[row, 4:]
        kernel = mu + sigma * np.outer(noise_in, noise_out)
        bias = np.asarray(layer.bias_mu) + np.asarray(layer.bias_sigma) * noise_out
        np.testing.assert_allclose(outputs[row], X[row] @ kernel + bias, atol=1e-5)


def test_streams_are_independent_even_of_an_equal_state():
    layer = make(units=400)
    draws = {}
    for stream in (0, 1):
        scope = keras.StatelessScope(state_mapping=[])
        with scope, NoiseScope(stream=stream):
            draws[stream] = np.asarray(layer(X) - (X @ layer.kernel_mu + layer.bias_mu))
    # A stateless scope forgets that the generator moved on: the same state was read.
    with NoiseScope():
        again = np.asarray(layer(X) - (X @ layer.kernel_mu + layer.bias_mu))
    np.testing.assert_array_equal(again, draws[0])
    correlation = np.corrcoef(draws[0].ravel(), draws[1].ravel())[0, 1]
    assert abs(correlation) < 0.1


def test_gradients_reach_mu_and_sigma():
    import tensorflow as tf

    layer = make()

    @tf.function(jit_compile=True)
    def gradients():
        with tf.GradientTape() as tape:
            loss = keras.ops.sum(keras.ops.square(layer(X, training=True)))
        return tape.gradient(loss, layer.trainable_variables)

    first, second = gradients(), gradients()
    assert len(first) == 4
    for a, b in zip(first, second, strict=True):
        assert np.abs(a).max() > 0
        assert not np.allclose(a, b)


def test_the_generator_is_among_the_variables_that_checkpoints_hold():
    layer, restored = make(seed=5), make(seed=6)
    layer(X, training=True)
    for ours, theirs in zip(layer.variables, restored.variables, strict=True):
        theirs.assign(ours)
    np.testing.assert_array_equal(restored(X, training=True), layer(X, training=True))


def test_acting_draws_noise_of_its_own_for_each_environment():
    layer = make()

    def act(inputs):
        with NoiseScope():
            return {"values": layer(inputs["x"])}

    actor = build_actor(act, {"x": X[:2]}, backend="numpy")
    generators = [np.random.default_rng(seed) for seed in range(5)]
    noise = [values[0] for values in actor.draw(generators, 3)]
    values = actor({"x": np.repeat(X[:1], 5, axis=0)}, noise)["values"]
    assert len(np.unique(values[:, 0])) == 5
    alone = actor.draw([np.random.default_rng(4)], 3)
    np.testing.assert_allclose(
        actor({"x": X[:1]}, [n[0] for n in alone])["values"][0], values[4], rtol=1e-5
    )


@pytest.mark.parametrize(
    "make_it, message",
    [
        (lambda: NoisyDense(3, sigma_zero=-1.0), "sigma_zero=-1.0"),
        (lambda: NoisyDense(3)(np.zeros((2, 3, 4), "f4")), "batch_size, features"),
    ],
)
def test_wrong_arguments_are_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
