"""Noise that is linear in features, by definition."""

import numpy as np
import pytest
from gymnasium import spaces
from references import everywhere

import kerasrl
from kerasrl.models.held_noise import HeldNoise

BOX = spaces.Box(-2.0, 2.0, (2, 1))
MAKE = {
    "ActorCritic": kerasrl.models.ActorCritic,
    "SoftActorCritic": kerasrl.models.SoftActorCritic,
}


def made(num_features=3, size=2):
    layer = HeldNoise(size, -0.5)
    layer.build((None, num_features))
    shape = layer.log_std.shape
    layer.log_std.assign(np.random.default_rng(0).normal(size=shape))
    return layer


#: Usual features, none at all, and such as a layer without bounds has.
FEATURES = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0], [300.0, 0.0, 1e-4]], "float32")


def test_deviations_are_those_of_the_sum():
    layer = made()
    std = np.exp(np.asarray(layer.log_std, np.float64))
    variances = [
        [sum((f * s) ** 2 for f, s in zip(row, std[:, j], strict=True)) for j in (0, 1)]
        for row in FEATURES.astype(np.float64)
    ]
    np.testing.assert_allclose(
        layer(FEATURES), 0.5 * np.log(np.array(variances) + 1e-6), rtol=1e-5
    )
    everywhere(layer, FEATURES)


def test_over_draws_noise_is_standard_normal():
    """Also where there are no features: what is acted by is what is learnt from."""
    layer, count = made(), 20_000
    for row in FEATURES:
        features = np.repeat(row[None], count, 0)
        matrices = np.random.default_rng(1).normal(size=(count, *layer.matrix_shape))
        unit = np.asarray(layer.unit(features, matrices.astype("float32")))
        np.testing.assert_allclose(unit.mean(0), 0.0, atol=0.03)
        np.testing.assert_allclose(np.cov(unit.T), np.eye(2), atol=0.04)


def test_equal_features_get_equal_noise_and_opposite_ones_opposite():
    layer = made()
    matrix = np.random.default_rng(1).normal(size=(1, *layer.matrix_shape))
    matrix = np.repeat(matrix.astype("float32"), 3, 0)
    row = FEATURES[:1]
    first, again, opposite = layer.unit(np.concatenate([row, row, -row]), matrix)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(opposite, -first, atol=0.02)


def test_first_deviations_are_as_asked():
    layer = HeldNoise(2, initial_log_std=-1.0)
    np.testing.assert_allclose(layer(np.ones((1, 64))), [[-1.0, -1.0]], atol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_policies_say_the_deviations_of_their_features(name):
    policy = MAKE[name](hidden_units=(4,), noise_steps=3)
    policy.build_for(spaces.Box(-1, 1, (3,)), BOX)
    inputs = policy.sample_inputs(5, np.random.default_rng(0))
    outputs = policy(inputs, state=())
    std = np.exp(np.asarray(policy.held_noise.log_std))
    variances = np.square(outputs["noise_features"]) @ np.square(std) + 1e-6
    np.testing.assert_allclose(
        outputs["distribution"][:, 2:], 0.5 * np.log(variances), rtol=1e-4, atol=1e-5
    )
    assert policy.held_noise.matrix_shape == (5, 2)


@pytest.mark.parametrize("name", MAKE)
def test_what_it_cannot_be_held_for_is_refused(name):
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="noise_steps"):
            MAKE[name](noise_steps=wrong)
    policy = MAKE[name](noise_steps=3)
    with pytest.raises(ValueError, match="noise_steps=3 for the action space"):
        policy.build_for(BOX, spaces.Discrete(3))


@pytest.mark.parametrize(
    "more",
    [
        {"log_std": "predicted"},
        {"distribution": "Bernoulli"},
        {"autoregressor": "made"},
    ],
)
def test_arguments_that_contradict_are_refused(more):
    with pytest.raises(ValueError, match=f"together with {next(iter(more))}"):
        kerasrl.models.ActorCritic(noise_steps=3, **more)
