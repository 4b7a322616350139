"""TanhGaussian: literal numbers, integrals, accuracy next to the bounds, actors."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from references import everywhere, gradient

from kerasrl.actors.actor import build_actor
from kerasrl.distributions import DiagonalGaussian, TanhGaussian

F = "float32"
MEAN, STD = np.array([0.0, 0.5]), np.array([1.0, 0.5])


def parameters(mean, std, *batch):
    row = np.concatenate([mean, np.log(std)])
    return np.tile(row, (*batch, 1)).astype(F)


def exact_log_prob(u, mean, std):
    """log N(u) - log(1 - tanh(u)^2) in float64, with no difference near zero."""
    normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    slope = -2 * np.logaddexp(u, -u) + 2 * np.log(2)  # 1 / cosh^2
    return (normal - slope).sum(-1)


@pytest.mark.parametrize(
    "u, expected",
    [([0.3, -0.1], -1.81106497), ([2.5, 0.5], -0.40236454), ([8, 1.5], -18.82014368)],
)
def test_literal_vectors(u, expected):
    distribution = TanhGaussian(parameters(MEAN, STD, 1))
    log_prob = distribution.log_prob_before_tanh(np.array([u], F))
    np.testing.assert_allclose(log_prob, [expected], rtol=1e-6)
    if max(u) < 3:
        actions = np.tanh(np.array([u], F))
        np.testing.assert_allclose(
            distribution.log_prob(actions), [expected], atol=1e-5
        )


def test_the_density_integrates_to_one():
    """Over the actions, so that the slope of tanh counts."""
    edges = np.linspace(-1, 1, 20_001)
    actions = (0.5 * (edges[1:] + edges[:-1])).astype(F)[:, None]
    for mean, std in ((0.0, 1.0), (0.7, 0.3), (-1.0, 0.6)):
        distribution = TanhGaussian(parameters([mean], [std], len(actions)))
        density = np.exp(np.asarray(distribution.log_prob(actions), "float64"))
        np.testing.assert_allclose(density.sum() * (edges[1] - edges[0]), 1, rtol=1e-3)


def test_agrees_with_the_definition_everywhere():
    generator = np.random.default_rng(0)
    given = generator.normal(size=(5, 4, 6)).astype(F)
    u = 3 * generator.normal(size=(5, 4, 3)).astype(F)
    mean, std = given[..., :3], np.exp(given[..., 3:].astype("float64"))
    result = everywhere(
        lambda p, u: (TanhGaussian(p).log_prob_before_tanh(u), TanhGaussian(p).mode()),
        given, u, atol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(result[0], exact_log_prob(u, mean, std), rtol=1e-4)
    np.testing.assert_allclose(result[1], np.tanh(mean), rtol=1e-6)


@pytest.mark.parametrize("size, error", [(1, 2e-6), (3, 3e-5), (5, 3e-3), (7, 0.3)])
def test_accuracy_near_the_bounds_is_what_the_docstring_says(size, error):
    u = np.linspace(size - 0.5, size + 0.5, 501)
    u = np.concatenate([u, -u])[:, None]
    distribution = TanhGaussian(parameters([0.0], [1.0], len(u)))
    exact = exact_log_prob(u, 0.0, 1.0)
    found = np.asarray(distribution.log_prob(np.tanh(u).astype(F)))
    worst = np.abs(found - exact).max()
    assert error / 30 < worst < error
    np.testing.assert_allclose(
        distribution.log_prob_before_tanh(u), exact, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("u", [20.0, 100.0, 1e4])
def test_far_beyond_the_bounds_it_is_still_exact(u):
    distribution = TanhGaussian(parameters([0.0], [5.0], 2))
    u = np.array([[u], [-u]], F)
    found = distribution.log_prob_before_tanh(u)
    # At u = 100 numbers of 200 nearly cancel.
    exact = exact_log_prob(u, 0.0, 5.0)
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-4)
    slope = gradient(distribution.log_prob_before_tanh, u, atol=1e-4)
    np.testing.assert_allclose(slope, -u / 25 + 2 * np.sign(u), rtol=1e-4)


@pytest.mark.parametrize("action", [-1.0, 1.0, 1.5, -np.inf, np.inf, 0.99999994])
def test_actions_on_and_beyond_the_bounds_stay_finite(action):
    actions = np.array([[0.3, action]], F)
    given = parameters(MEAN, STD, 1)
    assert np.isfinite(TanhGaussian(given).log_prob(actions)).all()
    of_parameters = gradient(lambda p: TanhGaussian(p).log_prob(actions), given)
    assert np.isfinite(of_parameters).all() and (of_parameters != 0).all()
    of_actions = gradient(TanhGaussian(given).log_prob, actions, atol=100)
    assert np.isfinite(of_actions).all()


# -- samples ---------------------------------------------------------------------------


def test_samples_are_squashed_normal_samples():
    given = parameters(MEAN, STD, 1000)
    distribution = TanhGaussian(given, shape=(2, 1))
    samples = np.asarray(distribution.sample(seed=3))
    assert samples.shape == (1000, 2, 1)
    assert (np.abs(samples) < 1).all()
    normal = np.asarray(DiagonalGaussian(given, shape=(2, 1)).sample(seed=3))
    np.testing.assert_allclose(samples, np.tanh(normal), rtol=1e-6)
    again, log_prob = distribution.sample_and_log_prob(seed=3)
    np.testing.assert_allclose(again, samples, rtol=1e-6)
    np.testing.assert_allclose(
        log_prob, exact_log_prob(normal[..., 0], MEAN, STD), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("log_std", [-20.0, -16.0, 2.0])
def test_the_log_density_of_a_sample_is_exact_for_every_deviation(log_std):
    """At exp(-20) the sample rounds to the mean; its noise is no longer in it."""
    given = np.tile(np.array([[1.0, log_std]], F), [50, 1])
    noise = np.asarray(DiagonalGaussian([[0.0, 0.0]] * 50).sample(seed=1), "float64")
    u = 1.0 + np.exp(log_std) * noise
    _, log_prob = TanhGaussian(given).sample_and_log_prob(seed=1)
    np.testing.assert_allclose(
        log_prob, exact_log_prob(u, 1.0, np.exp(log_std)), rtol=1e-4, atol=1e-5
    )


def test_minus_the_log_density_of_samples_estimates_the_entropy():
    draws = 100_000
    distribution = TanhGaussian(parameters([0.3], [0.8], draws))
    actions, log_prob = (np.asarray(x) for x in distribution.sample_and_log_prob(1))
    edges = np.linspace(-1, 1, 20_001)
    grid = (0.5 * (edges[1:] + edges[:-1])).astype(F)[:, None]
    log_density = np.asarray(
        TanhGaussian(parameters([0.3], [0.8], len(grid))).log_prob(grid), "float64"
    )
    entropy = -(np.exp(log_density) * log_density).sum() * (edges[1] - edges[0])
    error = log_prob.std() / np.sqrt(draws)
    assert abs(-log_prob.mean() - entropy) < 4.5 * error
    np.testing.assert_allclose(
        np.histogram(actions, bins=10, range=(-1, 1))[0] / draws,
        np.exp(log_density).reshape(10, -1).sum(1) * (edges[1] - edges[0]),
        atol=5e-3,
    )


def test_gradients_flow_through_samples_and_their_log_density():
    """With u = mean + std * noise, by hand; the mean's share of log N(u) cancels."""
    given = np.array([[0.4, -0.3]], F)
    noise = float(np.asarray(DiagonalGaussian([[0.0, 0.0]]).sample(seed=2))[0, 0])
    u, std = 0.4 + np.exp(-0.3) * noise, np.exp(-0.3)

    def sampled(index):
        # An integer seed is drawn at tracing time, so XLA would draw other numbers.
        x = tf.constant(given)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = TanhGaussian(x).sample_and_log_prob(seed=2)[index]
        return tape.gradient(y, x)

    slope = 1 - np.tanh(u) ** 2
    np.testing.assert_allclose(sampled(0), [[slope, slope * std * noise]], rtol=1e-4)
    twice = 2 * np.tanh(u)
    np.testing.assert_allclose(
        sampled(1), [[twice, twice * std * noise - 1]], rtol=1e-4
    )


@pytest.mark.parametrize("scale", [1e4, np.inf])
def test_extreme_parameters_stay_finite(scale):
    signs = np.array([[1, -1, 1, -1], [-1, 1, -1, 1]], F)
    given = np.concatenate([signs[:, :2] * 1e4, signs[:, 2:] * scale], -1).astype(F)
    x = tf.constant(given)
    with tf.GradientTape() as tape:
        tape.watch(x)
        actions, log_prob = TanhGaussian(x).sample_and_log_prob(seed=1)
        total = tf.reduce_sum(actions) + tf.reduce_sum(log_prob)
    assert np.isfinite(actions).all() and np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(total, x)).all()


def test_deviations_are_held_in_range():
    held = TanhGaussian(np.array([[0.0, 9.0], [0.0, -99.0]], F)).log_std
    np.testing.assert_array_equal(held, [[2.0], [-20.0]])


# -- divergence and entropy ------------------------------------------------------------


def test_the_divergence_is_that_of_the_normal_distributions():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 4)).astype(F)
    np.testing.assert_allclose(
        TanhGaussian(a).kl(TanhGaussian(b)),
        DiagonalGaussian(a).kl(DiagonalGaussian(b)),
        rtol=1e-6,
    )
    draws = 100_000
    p, q = (TanhGaussian(np.tile(x[:1], [draws, 1])) for x in (0.3 * a, 0.3 * b))
    actions, log_p = p.sample_and_log_prob(seed=1)
    ratio = np.asarray(log_p) - np.asarray(q.log_prob(actions))
    error = ratio.std() / np.sqrt(draws)
    assert abs(ratio.mean() - np.asarray(p.kl(q))[0]) < 4.5 * error + 1e-5


def test_divergence_from_another_class_is_refused():
    given = np.zeros((2, 4), F)
    with pytest.raises(TypeError, match="Received: DiagonalGaussian"):
        TanhGaussian(given).kl(DiagonalGaussian(given))
    with pytest.raises(TypeError, match="Received: TanhGaussian"):
        DiagonalGaussian(given).kl(TanhGaussian(given))


def test_the_entropy_says_what_to_do_instead():
    with pytest.raises(NotImplementedError, match="sample_and_log_prob"):
        TanhGaussian(np.zeros((2, 4), F)).entropy()


# -- shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
@pytest.mark.parametrize("shape", [None, (6,), (2, 3)])
def test_shapes_and_dtypes(batch, shape):
    distribution = TanhGaussian(np.zeros((*batch, 12), "float16"), shape)
    drawn, log_prob = distribution.sample_and_log_prob(seed=1)
    for actions in (drawn, distribution.sample(seed=1), distribution.mode()):
        assert tuple(actions.shape) == (*batch, *(shape or (6,)))
        assert actions.dtype == F
    for x in (
        log_prob,
        distribution.log_prob(drawn),
        distribution.log_prob_before_tanh(drawn),
        distribution.kl(distribution),
    ):
        assert tuple(x.shape) == batch
        assert x.dtype == F


def test_wrong_arguments_are_refused():
    distribution = TanhGaussian(np.zeros((4, 2), F))
    for method in (distribution.log_prob, distribution.log_prob_before_tanh):
        with pytest.raises(ValueError, match="TanhGaussian.log_prob needs one action"):
            method(np.zeros(4, F))
    with pytest.raises(ValueError, match="even number"):
        TanhGaussian(np.zeros((2, 3), F))
    with pytest.raises(ValueError, match="shape=\\(3,\\)"):
        TanhGaussian(np.zeros((2, 4), F), shape=(3,))
    assert TanhGaussian.parameters_size(spaces.Box(-1, 1, (2, 3))) == 12
    with pytest.raises(TypeError, match="TanhGaussian is a distribution for Box"):
        TanhGaussian.parameters_size(spaces.Discrete(3))


# -- graphs and actors -----------------------------------------------------------------


def test_compiled_samples_have_their_log_density():
    @tf.function(jit_compile=True, autograph=False)
    def sample(given):
        distribution = TanhGaussian(given)
        actions, log_prob = distribution.sample_and_log_prob(seed=3)
        return actions, log_prob, distribution.log_prob(actions)

    actions, log_prob, again = sample(parameters([0.0], [0.5], 1000))
    np.testing.assert_allclose(log_prob, again, atol=1e-3)
    assert np.std(actions) > 0.3


def test_actors_without_tensorflow_draw_the_same():
    def act(inputs):
        distribution = TanhGaussian(inputs["parameters"])
        sampled, sampled_log_prob = distribution.sample_and_log_prob()
        actions = distribution.sample()
        return {
            "actions": actions,
            "mode": distribution.mode(),
            "log_prob": distribution.log_prob(0.9 * actions),
            "before_tanh": distribution.log_prob_before_tanh(actions),
            "sampled": sampled,
            "sampled_log_prob": sampled_log_prob,
            "kl": distribution.kl(TanhGaussian(inputs["parameters"] * 0.5)),
        }

    given = np.random.default_rng(0).normal(size=(8, 6)).astype(F)
    inputs = {"parameters": given}
    fast, slow = (build_actor(act, inputs, backend=b) for b in ("numpy", "tensorflow"))
    generators = [np.random.default_rng(b) for b in range(8)]
    noise = [n[0] for n in fast.draw(generators, 1)]
    found, wanted = fast(inputs, noise), slow(inputs, noise)
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_allclose(found[key], array, rtol=1e-5, atol=1e-5)
    assert (np.abs(found["sampled"] - found["actions"]) > 1e-3).any()
