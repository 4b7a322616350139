"""What every distribution promises, for every action space."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from references import everywhere, gradient

from kerasrl.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    distribution_for,
)

SPACES = {
    "discrete": (spaces.Discrete(4), Categorical, 4),
    "discrete from 5": (spaces.Discrete(3, start=5), Categorical, 3),
    "equal choices": (spaces.MultiDiscrete([3, 3]), MultiCategorical, 6),
    "unequal choices": (spaces.MultiDiscrete([2, 4, 1]), MultiCategorical, 7),
    "choices in a grid": (spaces.MultiDiscrete([[2, 3], [4, 2]]), MultiCategorical, 11),
    "switches": (spaces.MultiBinary(3), Bernoulli, 3),
    "switches in a grid": (spaces.MultiBinary((2, 2)), Bernoulli, 4),
    "box": (spaces.Box(-1, 1, (2,)), DiagonalGaussian, 4),
    "box in a grid": (spaces.Box(-1, 1, (2, 3)), DiagonalGaussian, 12),
    "box without axes": (spaces.Box(-1, 1, ()), DiagonalGaussian, 2),
}
CONTINUOUS = [name for name in SPACES if "box" in name]
DISCRETE = [name for name in SPACES if "box" not in name]
each_space = pytest.mark.parametrize("name", SPACES)


def make(name, *batch, seed=0):
    distribution_type = distribution_for(SPACES[name][0])
    shape = (*batch, distribution_type.parameters_size)
    parameters = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return distribution_type, parameters


def all_actions(space):
    """Every action of a discrete space, as a policy emits it: counted from 0."""
    if isinstance(space, spaces.Discrete):
        return np.arange(space.n)
    counts = (
        np.full(space.shape, 2)
        if isinstance(space, spaces.MultiBinary)
        else np.asarray(space.nvec)
    )
    actions = np.indices(counts.ravel()).reshape(counts.size, -1).T
    return actions.reshape(-1, *counts.shape)


@each_space
def test_the_space_decides(name):
    space, expected, size = SPACES[name]
    distribution_type, parameters = make(name, 5)
    assert distribution_type.parameters_size == size
    assert distribution_type.action_shape == space.shape
    assert isinstance(distribution_type(parameters), expected)
    assert expected.__name__ in repr(distribution_type)


@each_space
@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
def test_shapes_and_dtypes(name, batch):
    distribution_type, parameters = make(name, *batch)
    distribution = distribution_type(parameters)
    for actions in (distribution.sample(seed=1), distribution.mode()):
        assert tuple(actions.shape) == (*batch, *distribution_type.action_shape)
        assert keras.backend.standardize_dtype(actions.dtype) == (
            distribution_type.action_dtype
        )
        for x in (
            distribution.log_prob(actions),
            distribution.entropy(),
            distribution.kl(distribution_type(parameters + 1)),
        ):
            assert tuple(x.shape) == batch
            assert x.dtype == "float32"


@each_space
def test_samples_belong_to_the_space(name):
    space = SPACES[name][0]
    distribution_type, parameters = make(name, 100)
    actions = np.asarray(distribution_type(parameters).sample(seed=1))
    if name in CONTINUOUS:
        assert np.isfinite(actions).all()
        return
    start = getattr(space, "start", 0)
    for action in actions:
        assert space.contains((action + start).astype(space.dtype))


@each_space
def test_the_same_in_every_mode(name):
    distribution_type, parameters = make(name, 4)
    _, others = make(name, 4, seed=1)
    actions = np.asarray(distribution_type(parameters).sample(seed=1))

    def function(parameters, others, actions):
        distribution = distribution_type(parameters)
        return (
            distribution.mode(),
            distribution.log_prob(actions),
            distribution.entropy(),
            distribution.kl(distribution_type(others)),
        )

    everywhere(function, parameters, others, actions, atol=1e-5)


@each_space
@pytest.mark.parametrize("shape", [(400, None), (None, None)])
def test_compiled_samples_have_the_right_probabilities(name, shape):
    """XLA draws other numbers from the same seed, but from the same distribution."""
    distribution_type, parameters = make(name)

    @tf.function(
        jit_compile=True, autograph=False, input_signature=[tf.TensorSpec(shape)]
    )
    def sample(parameters):
        distribution = distribution_type(parameters)
        samples = distribution.sample(seed=3)
        return samples, distribution.log_prob(samples), distribution.entropy()

    samples, log_probs, entropy = sample(np.tile(parameters, [400, 1]))
    assert tuple(samples.shape) == (400, *distribution_type.action_shape)
    error = np.std(log_probs) / np.sqrt(400)
    assert abs(np.mean(log_probs) + entropy[0]) < 4.5 * error + 1e-5


@each_space
def test_half_precision_is_widened(name):
    distribution_type, parameters = make(name, 4)
    half = distribution_type(parameters.astype("float16"))
    assert half.entropy().dtype == "float32"
    np.testing.assert_allclose(
        half.entropy(), distribution_type(parameters).entropy(), rtol=0.02, atol=0.02
    )


@each_space
def test_seeds_decide_the_sample(name):
    distribution = make(name, 200)[0](make(name, 200)[1])
    first, again, other = (np.asarray(distribution.sample(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    generator = keras.random.SeedGenerator(1)
    one, two = (np.asarray(distribution.sample(generator)) for _ in range(2))
    assert (one != two).any()
    assert (
        np.asarray(distribution.sample()) != np.asarray(distribution.sample())
    ).any()


@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_of_all_actions(name):
    """They sum to one, and their sums are the entropy and the divergence."""
    actions = all_actions(SPACES[name][0])
    count = len(actions)
    distribution_type, parameters = make(name)
    _, others = make(name, seed=1)
    p, q = (distribution_type(np.tile(x, [count, 1])) for x in (parameters, others))
    log_p = np.asarray(p.log_prob(actions), "float64")
    log_q = np.asarray(q.log_prob(actions), "float64")
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)
    entropy = -(np.exp(log_p) * log_p).sum()
    np.testing.assert_allclose(p.entropy(), np.full(count, entropy), rtol=1e-5)
    kl = (np.exp(log_p) * (log_p - log_q)).sum()
    np.testing.assert_allclose(p.kl(q), np.full(count, kl), rtol=1e-4)
    np.testing.assert_array_equal(p.mode()[0], actions[np.argmax(log_p)])


@pytest.mark.parametrize("name", DISCRETE)
def test_frequencies_are_the_probabilities(name):
    actions = all_actions(SPACES[name][0])
    distribution_type, parameters = make(name)
    probabilities = np.exp(
        distribution_type(np.tile(parameters, [len(actions), 1])).log_prob(actions)
    )
    draws = 100_000
    samples = np.asarray(
        distribution_type(np.tile(parameters, [draws, 1])).sample(seed=5)
    )
    axes = tuple(range(1, samples.ndim))
    observed = np.array([(samples == a).all(axis=axes).mean() for a in actions])
    error = np.sqrt(probabilities * (1 - probabilities) / draws)
    np.testing.assert_array_less(np.abs(observed - probabilities), 4.5 * error + 1e-9)


@each_space
def test_entropy_and_divergence_by_monte_carlo(name):
    distribution_type, parameters = make(name)
    parameters, others = 0.5 * parameters, 0.5 * make(name, seed=1)[1]
    draws = 100_000
    p, q = (distribution_type(np.tile(x, [draws, 1])) for x in (parameters, others))
    samples = np.asarray(p.sample(seed=2))
    log_p = np.asarray(p.log_prob(samples), "float64")
    log_ratio = log_p - np.asarray(q.log_prob(samples), "float64")
    for estimate, exact in ((-log_p, p.entropy()[0]), (log_ratio, p.kl(q)[0])):
        error = estimate.std() / np.sqrt(draws)
        assert abs(estimate.mean() - exact) < 4.5 * error + 1e-5


@each_space
def test_a_distribution_does_not_diverge_from_itself(name):
    distribution_type, parameters = make(name, 6)
    distribution = distribution_type(parameters)
    kl = distribution.kl(distribution_type(parameters))
    np.testing.assert_allclose(kl, np.zeros(6), atol=1e-6)
    assert (
        np.asarray(distribution.kl(distribution_type(parameters + 1))) > -1e-6
    ).all()
    _, others = make(name, 6, seed=1)
    if distribution_type.parameters_size > 1:
        assert (np.asarray(distribution.kl(distribution_type(others))) > 0).all()


@each_space
def test_extreme_parameters_stay_finite(name):
    distribution_type, parameters = make(name, 6)
    for extreme in (1e4 * np.sign(parameters), np.full_like(parameters, 1e4)):
        extreme = extreme.astype("float32")
        distribution = distribution_type(extreme)
        actions = np.asarray(distribution.sample(seed=1))

        def everything(x, actions=actions, extreme=extreme):
            d = distribution_type(x)
            return (
                d.log_prob(actions) + d.entropy() + d.kl(distribution_type(-extreme))
                if name not in CONTINUOUS
                else d.log_prob(actions) + d.entropy()
            )

        assert np.isfinite(actions).all()
        assert np.isfinite(everything(extreme)).all()
        # Numbers of 1e4 have a resolution of 1e-3.
        assert np.isfinite(gradient(everything, extreme, atol=1e-3)).all()


@each_space
def test_actions_of_another_shape_are_refused(name):
    distribution_type, parameters = make(name, 4)
    distribution = distribution_type(parameters)
    actions = np.asarray(distribution.mode())
    for wrong in (actions[..., None], actions[:1], actions[0]):
        with pytest.raises(ValueError, match="Nothing is broadcast"):
            distribution.log_prob(wrong)


@each_space
def test_parameters_of_another_size_are_refused(name):
    distribution_type, parameters = make(name, 4)
    with pytest.raises(ValueError, match=r"parameters of shape \[\.\.\., "):
        distribution_type(parameters[:, :-1])
    with pytest.raises(ValueError, match="must all have the same shape"):
        distribution_type(parameters).kl(distribution_type(parameters[:2]))


def test_divergence_between_classes_is_refused():
    with pytest.raises(TypeError, match="Received: Bernoulli"):
        Categorical(np.zeros((2, 3))).kl(Bernoulli(np.zeros((2, 3))))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Text(3)}),
        spaces.Text(3),
        4,
    ],
)
def test_other_spaces_are_refused(space):
    with pytest.raises(TypeError, match="Discrete, MultiDiscrete, MultiBinary and Box"):
        distribution_for(space)


def test_each_class_refuses_the_spaces_of_others():
    for distribution in (Categorical, MultiCategorical, Bernoulli, DiagonalGaussian):
        for space, wanted, size in SPACES.values():
            if wanted is distribution:
                assert distribution.parameters_size(space) == size
            else:
                with pytest.raises(TypeError, match="distribution_for"):
                    distribution.parameters_size(space)


def test_a_space_without_entries_is_refused():
    with pytest.raises(ValueError, match="no entries"):
        distribution_for(spaces.Box(-1, 1, (0,)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Categorical(1.0), "scalar"),
        (lambda: DiagonalGaussian(np.zeros((2, 3))), "even number"),
        (lambda: DiagonalGaussian(np.zeros((2, 4)), shape=(3,)), "shape=\\(3,\\)"),
        (lambda: Bernoulli(np.zeros((2, 4)), shape=(3,)), "shape=\\(3,\\)"),
        (lambda: MultiCategorical(np.zeros((2, 4)), [2, 3]), "nvec=\\[2, 3\\]"),
        (lambda: MultiCategorical(np.zeros((2, 4)), []), "nvec=\\[\\]"),
        (lambda: MultiCategorical(np.zeros((2, 4)), [4, 0]), "nvec=\\[4, 0\\]"),
        (lambda: MultiCategorical(np.zeros((2, 4)), 4), "nvec=4"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_base_class_is_a_contract():
    base = Distribution(np.zeros((2, 3)))
    for call in (base.sample, base.mode, base.entropy):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        base.log_prob(0)
    with pytest.raises(NotImplementedError):
        base.kl(base)
    with pytest.raises(NotImplementedError):
        Distribution.parameters_size(spaces.Discrete(2))
