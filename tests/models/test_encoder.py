"""What becomes of observations before the trunk."""

import keras
import numpy as np
import pytest
from gymnasium import spaces

from kerasrl.models import ActorCritic, Encoder
from kerasrl.models.initializers import make_initializer


def test_stacks_of_grey_frames_get_their_channels_last():
    frames = np.random.default_rng(0).integers(0, 255, (5, 2, 12, 10), dtype=np.uint8)
    encoder = Encoder(spaces.Box(0, 255, (2, 12, 10), np.uint8))
    np.testing.assert_array_equal(encoder(frames), np.moveaxis(frames, 1, -1))
    for shape in ((12, 10, 2), (5, 9, 26), (6, 7, 8), (2, 3, 4), (4, 8, 8)):
        images = np.zeros((1, *shape), np.uint8)
        assert Encoder(spaces.Box(0, 255, shape, np.uint8))(images).shape[1:] == shape
    policy = ActorCritic(filters=[(3, 3, 2)], hidden_units=(8,))
    policy.setup(spaces.Box(0, 255, (2, 12, 10), np.uint8), spaces.Discrete(2))
    policy(policy.example_inputs(2))
    assert policy.weights[0].shape == (3, 3, 2, 3)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_pixels_among_other_observations_are_divided_by_255(shape):
    space = spaces.Dict({"a": spaces.Box(0, 255, shape, np.uint8)})
    pixels = np.full((1, *shape), 255, np.uint8)
    np.testing.assert_array_equal(Encoder(space)({"a": pixels}), 1.0)


def test_bytes_that_are_no_pixels_stay_as_they_are():
    memory = np.array([[0, 7, 255]], np.uint8)
    encoder = Encoder(spaces.Box(0, 255, (3,), np.uint8))
    np.testing.assert_array_equal(encoder(memory), [[0.0, 7.0, 255.0]])


def test_nothing_to_normalize_is_refused():
    space = spaces.Box(0, 255, (6, 5), np.uint8)
    with pytest.raises(ValueError, match="no floating-point part"):
        Encoder(space, normalize=True)


def test_initializers_without_a_seed_get_one():
    unseeded = keras.initializers.GlorotUniform()
    first, second = (make_initializer(unseeded, 1.0, 3)((4, 4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, make_initializer(unseeded, 1.0, 4)((4, 4)))
    first, second = (make_initializer(unseeded, 1.0)((4, 4)) for _ in range(2))
    assert not np.array_equal(first, second)

    class Partial(keras.initializers.Initializer):
        def __init__(self, scale, seed=None):
            self.scale, self.seed = scale, seed

        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, self.scale, dtype)

        def get_config(self):
            return {"seed": None}

    partial = Partial(3.0)
    assert make_initializer(partial, 1.0, 3) is partial
    for with_a_will in (keras.initializers.GlorotUniform(5), keras.initializers.Ones()):
        assert make_initializer(with_a_will, 1.0, 3) is with_a_will


def test_trunks_of_an_initializer_of_keras_differ_and_follow_the_seed():
    def weights(seed):
        initializer = keras.initializers.GlorotUniform()
        policy = ActorCritic(kernel_initializer=initializer, seed=seed)
        policy.setup(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
        policy(policy.example_inputs(1))
        return [trunk.get_weights()[0] for trunk in policy.trunks.values()]

    (policy, value), again = weights(3), weights(3)
    assert not np.array_equal(policy, value)
    np.testing.assert_array_equal([policy, value], again)
    assert not np.array_equal(policy, weights(4)[0])
