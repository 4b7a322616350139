"""Categorical, MultiCategorical and Bernoulli: published numbers and masks."""

import keras
import numpy as np
import pytest
from references import gradient

from kerasrl.distributions import Bernoulli, Categorical, MultiCategorical

INF = np.inf


def test_trfl_entropies():
    """trfl/discrete_policy_gradient_ops_test.py."""
    logits = np.array([[0, 1], [1, 2], [0, 2], [1, 1]], "float32")
    np.testing.assert_allclose(
        Categorical(logits).entropy(),
        [0.58220309, 0.58220309, 0.36533386, 0.69314718],
        rtol=1e-6,
    )


def test_rlax_epsilon_greedy():
    """rlax/_src/distributions_test.py, epsilon 0.2, as explicit probabilities."""
    probs = np.array([[0.45, 0.45, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]], "float32")
    distribution = Categorical(np.log(probs))
    np.testing.assert_allclose(
        distribution.log_prob(np.array([0, 1])), [-0.7985, -0.1625], atol=1e-4
    )
    np.testing.assert_allclose(distribution.entropy(), [1.01823, 0.587501], rtol=1e-5)


def test_masked_actions_are_never_taken():
    logits = np.tile([-INF, -1e4, -INF, -30.0, 0.0, -INF], [100_000, 1])
    distribution = Categorical(logits)
    taken = np.unique(distribution.sample(seed=1))
    assert set(taken) <= {1, 3, 4}
    assert 4 in taken
    np.testing.assert_allclose(Categorical(logits[:1]).log_prob(np.array([0])), [-INF])
    np.testing.assert_allclose(
        Categorical(logits[:1]).log_prob(np.array([1])), [-1e4], rtol=1e-6
    )


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_masked_actions_are_not_taken_at_the_edges_of_the_noise(uniform, monkeypatch):
    """`random()` may be exactly 0, and that near 1: neither may open the mask."""

    def noise(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        u = np.float32(uniform) * np.float32(maxval - minval) + np.float32(minval)
        return keras.ops.full(shape, u)

    monkeypatch.setattr(keras.random, "uniform", noise)
    sample = Categorical([[-INF, -INF, 0.0], [-INF, 5.0, -INF]]).sample()
    np.testing.assert_array_equal(sample, [2, 1])
    np.testing.assert_array_equal(
        MultiCategorical([[-INF, 0.0, -INF, -INF, 1.0]], [2, 3]).sample(), [[1, 2]]
    )
    switches = Bernoulli([[-INF, INF]]).sample()
    np.testing.assert_array_equal(switches, [[0, 1]])


def test_masked_actions_count_for_nothing():
    masked = Categorical([[0.3, -INF, 1.0, -INF]])
    bare = Categorical([[0.3, 1.0]])
    np.testing.assert_allclose(masked.entropy(), bare.entropy(), rtol=1e-6)
    np.testing.assert_allclose(
        masked.kl(Categorical([[1.0, -INF, 0.0, 7.0]])),
        bare.kl(Categorical([[1.0, 0.0]])) + np.log1p(np.exp(7) / (np.e + 1)),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(masked.mode(), [2])


def test_divergence_from_what_is_impossible_is_infinite():
    kl = Categorical([[0.0, 0.0]]).kl(Categorical([[0.0, -INF]]))
    assert np.asarray(kl) == INF


@pytest.mark.parametrize("only_one", [False, True])
def test_masks_pass_no_nan_to_gradients(only_one):
    logits = np.array([[-INF, 0.5 if not only_one else -INF, 1.0]], "float32")

    def everything(x):
        d, fixed = Categorical(x), Categorical(logits)
        return d.log_prob(np.array([2])) + d.entropy() + d.kl(fixed) + fixed.kl(d)

    result = gradient(everything, logits)
    assert np.isfinite(result).all()
    assert (result[np.isinf(logits)] == 0).all()
    assert only_one or np.abs(result).max() > 0.1


def test_unequal_choices_are_separate_categoricals():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 9)).astype("float32")
    others = generator.normal(size=(6, 9)).astype("float32")
    nvec = [2, 4, 3]
    edges = [0, 2, 6, 9]
    joint = MultiCategorical(logits, nvec)
    actions = np.stack([generator.integers(n, size=6) for n in nvec], -1)
    parts = [
        (Categorical(logits[:, a:b]), Categorical(others[:, a:b]))
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    np.testing.assert_allclose(
        joint.log_prob(actions),
        sum(p.log_prob(actions[:, i]) for i, (p, _) in enumerate(parts)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        joint.entropy(), sum(p.entropy() for p, _ in parts), rtol=1e-5
    )
    np.testing.assert_allclose(
        joint.kl(MultiCategorical(others, nvec)),
        sum(p.kl(q) for p, q in parts),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(
        joint.mode(), np.stack([p.mode() for p, _ in parts], -1)
    )


def test_certain_switches():
    certain = Bernoulli(np.array([[INF, -INF, 1e4, -1e4]], "float32"))
    assert np.asarray(certain.log_prob(np.array([[1, 0, 1, 0]]))) == 0
    assert np.asarray(certain.log_prob(np.array([[0, 0, 1, 0]]))) == -INF
    assert np.asarray(certain.entropy()) == 0
    logits = np.array([[INF, -INF, 0.5]], "float32")

    def everything(x):
        d, other = Bernoulli(x), Bernoulli(np.array([[1.0, 2.0, 3.0]]))
        return d.log_prob(np.array([[1, 0, 1]])) + d.entropy() + d.kl(other)

    assert np.isfinite(everything(logits)).all()
    assert np.isfinite(gradient(everything, logits)).all()


def test_switches_by_hand():
    distribution = Bernoulli(np.log([[3.0, 1.0]]))
    np.testing.assert_allclose(
        distribution.log_prob(np.array([[1, 0]])), np.log([0.75 * 0.5]), rtol=1e-6
    )
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25) + np.log(2)
    np.testing.assert_allclose(distribution.entropy(), [entropy], rtol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), [[1, 0]])
