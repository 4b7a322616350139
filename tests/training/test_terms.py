"""What layers add to the loss, by definition: of each training pass, once."""

import daily
import keras
import numpy as np
import pytest
import tiny
from by_definition import BOX, DISCRETE, build, sequences, take_step, transitions
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl

SMALL = {"hidden_units": (8,)}


@keras.saving.register_keras_serializable("test_terms")
class Adds(keras.layers.Layer):
    """Passes its input on, and adds the sum of its squares to the loss."""

    def __init__(self, coefficient, **kwargs):
        super().__init__(**kwargs)
        self.coefficient = coefficient

    def call(self, inputs):
        squares = keras.ops.sum(keras.ops.square(inputs))
        self.add_loss(self.coefficient * squares)
        return inputs

    def get_config(self):
        return {**super().get_config(), "coefficient": self.coefficient}


def trunk(coefficient, num_layers):
    """Half of the layers add by `add_loss`, half by Keras's activity regularizer."""
    layers = [
        Adds(coefficient)
        if number % 2
        else keras.layers.Activation(
            "linear", activity_regularizer=keras.regularizers.L2(coefficient)
        )
        for number in range(num_layers)
    ]
    return keras.Sequential(layers)


def terms_of(observations, coefficient, num_layers):
    """What one pass adds. Keras divides what activity regularizers say by the rows."""
    squares = np.sum(np.asarray(observations, np.float64) ** 2)
    rows = np.prod(observations.shape[:-1])
    count = num_layers // 2
    return coefficient * squares * (count + (num_layers - count) / rows)


def q_policy(made):
    return {"trunk": made}


def with_critics(made):
    return {"trunk": made, **SMALL}


#: The agent, the action space, and how many networks that it trains have the trunk.
CASES = {
    "SimpleQ": (kerasrl.SimpleQ, q_policy, DISCRETE, 1),
    "DQN": (kerasrl.DQN, q_policy, DISCRETE, 1),
    "Rainbow": (kerasrl.DQN.rainbow, q_policy, DISCRETE, 1),
    "DDPG": (kerasrl.DDPG, with_critics, BOX, 2),
    "TD3": (
        lambda **arguments: kerasrl.TD3(policy_delay=1, **arguments),
        with_critics,
        BOX,
        2,
    ),
    "SAC": (kerasrl.SAC, with_critics, BOX, 2),
    "SAC_discrete": (kerasrl.SAC, with_critics, DISCRETE, 2),
}


def loss_of(name, coefficient, num_layers):
    make, policy, space, _ = CASES[name]
    agent = make(policy=policy(trunk(coefficient, num_layers)), seed=1)
    return take_step(build(agent, space), transitions(space))[0]["loss"]


@settings(max_examples=14, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.floats(0.5, 100.0), st.integers(1, 3))
def test_terms_are_those_of_each_training_pass(name, coefficient, num_layers):
    observations = transitions(CASES[name][2])["observations"]
    expected = CASES[name][3] * terms_of(observations, coefficient, num_layers)
    plain = loss_of(name, 0.0, num_layers)
    added = loss_of(name, coefficient, num_layers) - plain
    # Terms of next observations, which reach 1e4, would be 1e8 and more.
    np.testing.assert_allclose(added, expected, rtol=1e-3, atol=1e-5 * abs(plain))


@pytest.mark.parametrize("burn_in", [0, 2])
def test_r2d2_adds_terms_of_the_rows_that_it_learns_from(burn_in):
    batch = sequences()
    found = []
    for coefficient in (0.0, 3.0):
        agent = kerasrl.R2D2(
            policy={"trunk": trunk(coefficient, 2), "cell_units": 4},
            burn_in=burn_in,
            seed=1,
        )
        found.append(take_step(build(agent), batch)[0]["loss"])
    expected = terms_of(batch["observations"][:, burn_in:], 3.0, 2)
    np.testing.assert_allclose(found[1] - found[0], expected, rtol=1e-3)


@pytest.mark.parametrize("name", daily.among(tiny.ON_POLICY, ["PPO", "A2C_recurrent"]))
def test_on_policy_terms(name):
    """Of what was acted on, in one step on all of it."""
    losses, observations = [], []

    class Look(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            observations.append(np.array(rollout.observations, np.float64))

    one_step = {"num_epochs": 1, "minibatch_size": 32} if "PPO" in name else {}
    for coefficient in (0.0, 3.0):
        policy = {
            "trunk": trunk(coefficient, 2),
            "shared_trunk": True,
            "normalize_observations": False,
        }
        agent = tiny.make(name, policy=policy, **one_step)
        agent.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        length = agent.rollout_length
        history = agent.fit(
            tiny.env_of(name),
            steps=2 * length,
            num_envs=2,
            verbose=0,
            callbacks=[Look()],
        )
        losses.append(history.history["loss"][0])
    np.testing.assert_array_equal(*observations)
    expected = terms_of(observations[0], 3.0, 2)
    np.testing.assert_allclose(losses[1] - losses[0], expected, rtol=1e-4)


def test_regularizers_of_weights_count_once():
    """However often a network is run for one loss."""
    losses = []
    for coefficient in (0.0, 3.0):
        made = keras.Sequential(
            [
                keras.layers.Dense(
                    5, kernel_regularizer=keras.regularizers.L2(coefficient)
                )
            ]
        )
        agent = build(kerasrl.SAC(policy=with_critics(made), seed=1), BOX)
        kernels = [w for w in agent.get_weights() if w.shape == (4, 5)]
        losses.append(take_step(agent, transitions(BOX))[0]["loss"])
    assert len(kernels) == 2  # That of the policy, and that of the critics.
    expected = 3.0 * sum(np.sum(k.astype(np.float64) ** 2) for k in kernels)
    np.testing.assert_allclose(losses[1] - losses[0], expected, rtol=1e-3)
