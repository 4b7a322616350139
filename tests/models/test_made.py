"""What each output of MADE sees."""

import keras
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.distributions import Components, autoregressive_for
from kerasrl.models import MADE

SPACE = spaces.Tuple([spaces.MultiDiscrete([3, 2, 4]), spaces.Box(-1, 1, (2,))])
BOX = spaces.Box(-1, 1, (2,))


def arranged(model, space=SPACE):
    components = Components(space)
    model.arrange(components.input_sizes, components.output_sizes)
    return model, components


@pytest.mark.parametrize("hidden_units", [(), (2,), (16,), (16, 7)])
def test_an_output_sees_what_is_before_it_and_all_of_that(hidden_units):
    model, components = arranged(MADE(hidden_units, context_units=2, seed=0))
    inputs = np.zeros((1, 3 + 1 + 4 + 1), np.float32)
    context = np.ones((1, 2), np.float32)
    before = np.asarray(model(inputs, context))[0]
    owner = np.repeat(np.arange(5), components.input_sizes)
    outputs = np.repeat(np.arange(5), components.output_sizes)
    for column in range(inputs.shape[1]):
        moved = inputs.copy()
        moved[0, column] = 1.0
        changed = np.asarray(model(moved, context))[0] != before
        assert not changed[outputs <= owner[column]].any()
        assert changed[outputs > owner[column]].all()
    assert (np.asarray(model(inputs, -context))[0] != before).all()


def test_what_is_arranged_stays():
    model, _ = arranged(MADE())
    arranged(model)
    with pytest.raises(ValueError, match="Make one for each policy"):
        arranged(model, spaces.MultiBinary(3))
    with pytest.raises(ValueError, match="arrange"):
        MADE()(np.zeros((1, 2)), np.zeros((1, 64)))


@keras.saving.register_keras_serializable("made")
class Leaking(keras.layers.Layer):
    """Sees every component."""

    context_units = 4

    def arrange(self, input_sizes, output_sizes):
        self.head = keras.layers.Dense(sum(output_sizes))
        self.head.build((None, sum(input_sizes[:-1]) + self.context_units))

    def call(self, actions, context):
        return self.head(keras.ops.concatenate([actions, context], axis=-1))


def test_a_layer_that_sees_what_comes_after_is_refused():
    for autoregressor in (Leaking(), MADE((8,))):
        policy = kerasrl.models.ActorCritic(autoregressor=autoregressor)
        if isinstance(autoregressor, Leaking):
            with pytest.raises(ValueError, match="depend on component 0"):
                policy.build_for(BOX, SPACE)
        else:
            policy.build_for(BOX, SPACE)
    model = MADE()
    model.call = lambda *_: np.zeros((5, 3))
    with pytest.raises(ValueError, match=r"Expected \(5, 13\)"):
        autoregressive_for(SPACE, model)


def test_arguments_that_contradict_are_refused():
    make = kerasrl.models.ActorCritic
    with pytest.raises(TypeError, match="Expected None, 'made'"):
        make(autoregressor="MADE")
    with pytest.raises(TypeError, match="Expected None, 'made'"):
        make(autoregressor=keras.layers.Dense(2))
    for more in (
        {"distribution": "Bernoulli"},
        {"initial_log_std": -1.0},
        {"log_std": "predicted"},
    ):
        with pytest.raises(ValueError, match="leave those out"):
            make(autoregressor="made", **more)
