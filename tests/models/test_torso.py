"""First mistakes with networks of one's own, and with images as they come."""

import warnings

import keras
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.models import ActorCritic, QNetwork, SoftActorCritic

FRAMES = spaces.Box(0, 255, (210, 160, 3), np.uint8)


def two_heads():
    inputs = keras.Input((4,))
    features = keras.layers.Dense(8)(inputs)
    heads = [keras.layers.Dense(2)(features), keras.layers.Dense(1)(features)]
    return keras.Model(inputs, heads)


class Pair(keras.layers.Layer):
    def call(self, inputs):
        return inputs, inputs


@pytest.mark.parametrize("agent", [kerasrl.PPO, kerasrl.DQN, kerasrl.SAC])
def test_a_model_with_heads_is_refused_with_the_way_out(agent):
    with pytest.raises(
        ValueError, match=r"2 outputs, \(None, 2\), \(None, 1\)"
    ) as error:
        agent(policy=two_heads())
    assert "keras.Model(model.inputs, features)" in str(error.value)
    assert "kerasrl.models.Policy" in str(error.value)


def test_a_layer_that_returns_a_tuple_is_refused_alike():
    policy = ActorCritic(trunk=Pair())
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match="a tuple as output"),
    ):
        warnings.simplefilter("ignore")  # Keras says first that it could not build.
        policy.build_for(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


def test_the_way_out_works():
    class Own(kerasrl.models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.model = two_heads()

        def call(self, inputs, state=None, training=False):
            logits, values = self.model(inputs["observations"])
            return {"distribution": logits, "values": keras.ops.squeeze(values, -1)}

    Own().build_for(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    model = two_heads()
    trunk = keras.Model(model.inputs, model.layers[1].output)
    ActorCritic(trunk=trunk).build_for(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


@pytest.mark.parametrize("make", [ActorCritic, QNetwork, SoftActorCritic])
def test_millions_of_parameters_are_named_with_their_cause(make):
    policy = make(kernel_initializer=keras.initializers.Zeros())
    with pytest.warns(
        UserWarning, match="million parameters for the observation"
    ) as caught:
        policy.build_for(FRAMES, spaces.Discrete(2))
    (warning,) = caught
    for text in ("22528", "AtariPreprocessing", "filters="):
        assert text in str(warning.message)


def test_long_vectors_are_named_too():
    policy = ActorCritic(kernel_initializer=keras.initializers.Zeros())
    with pytest.warns(UserWarning, match="12.8 million.*hidden_units="):
        policy.build_for(spaces.Box(-1, 1, (100_000,)), spaces.Discrete(2))


def test_networks_that_were_asked_for_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zeros = {"kernel_initializer": keras.initializers.Zeros()}
        vector = spaces.Box(-1, 1, (10_000,))
        policy = ActorCritic(hidden_units=(600,), **zeros)
        policy.build_for(vector, spaces.Discrete(2))
        frames = spaces.Box(0, 255, (84, 84, 4), np.uint8)
        ActorCritic(**zeros).build_for(frames, spaces.Discrete(2))
