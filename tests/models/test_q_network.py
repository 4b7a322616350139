"""Action-value networks: their contract, and every variant of the built-in one."""

import keras
import numpy as np
import pytest
from gymnasium import spaces
from sampling import sample_inputs

from kerasrl import models
from kerasrl.actors import build_actor

BOX = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (12, 12, 2), np.uint8)
NESTED = spaces.Dict({"vector": BOX, "code": spaces.Discrete(4, start=1)})
ACTIONS = spaces.Discrete(5, start=2)
ATOMS = {"num_atoms": 7, "v_min": -2.0, "v_max": 3.0}

NETWORKS = {
    "plain": ({}, BOX),
    "nested": ({"normalize_observations": True, "activation": "tanh"}, NESTED),
    "dueling": ({"dueling": True}, BOX),
    "categorical": (ATOMS, BOX),
    "dueling_categorical": ({"dueling": True, **ATOMS}, BOX),
    "quantile": ({"num_quantiles": 4}, BOX),
    "dueling_quantile": ({"dueling": True, "num_quantiles": 4}, BOX),
    "noisy": ({"noisy": True}, BOX),
    "noisy_dueling_categorical": ({"noisy": True, "dueling": True, **ATOMS}, BOX),
    "image": ({"filters": [(4, 3, 2)], "hidden_units": (16,), "dueling": True}, IMAGE),
    "lstm": ({"cell": "lstm", "cell_units": 8, "dueling": True}, BOX),
    "gru_previous": (
        {"cell": "gru", "cell_units": 8, "previous_inputs": True, "num_quantiles": 3},
        NESTED,
    ),
    "trunk": (
        {"trunk": models.MLP((6,), "tanh"), "head_units": (8,), "activation": "elu"},
        BOX,
    ),
}
RECURRENT = ["lstm", "gru_previous"]


def make(name, seed=0):
    arguments, observation_space = NETWORKS[name]
    network = models.QNetwork(seed=seed, **arguments)
    network.build_for(observation_space, ACTIONS)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_expectations(name):
    network = make(name)
    outputs = network(sample_inputs(network, 6), state=network.get_initial_state(6))
    q_values = np.asarray(outputs["q_values"])
    assert q_values.shape == (6, 5) and q_values.dtype == np.float32
    assert "distribution" not in outputs
    assert ("state" in outputs) == network.is_recurrent == (name in RECURRENT)
    assert ("logits" in outputs) == ("categorical" in name)
    if "logits" in outputs:
        np.testing.assert_allclose(
            network.atoms, [-2 + 5 * k / 6 for k in range(7)], rtol=1e-6
        )
        logits = np.asarray(outputs["logits"], np.float64)
        assert logits.shape == (6, 5, 7)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = sum(weights[..., k] * (-2 + 5 * k / 6) for k in range(7))
        np.testing.assert_allclose(q_values, expected, atol=1e-5)
    if "quantiles" in outputs:
        quantiles = np.asarray(outputs["quantiles"])
        assert quantiles.shape == (6, 5, network.num_quantiles)
        np.testing.assert_allclose(q_values, quantiles.mean(-1), atol=1e-6)
    actions = network.mode(outputs)
    assert keras.backend.standardize_dtype(actions.dtype) == "int32"
    np.testing.assert_array_equal(actions, q_values.argmax(-1))


@pytest.mark.parametrize("name", [name for name in NETWORKS if "dueling" in name])
def test_dueling_adds_the_value_to_centred_advantages(name):
    network = make(name)
    inputs = sample_inputs(network, 6)
    outputs = network(inputs)
    returns = next(
        outputs[key] for key in ("logits", "quantiles", "q_values") if key in outputs
    )
    features = network.body(network.encoder(inputs["observations"]))
    values = np.asarray(network.value_head(features))
    advantages = np.asarray(network.advantage_head(features)).reshape(6, 5, -1)
    returns = np.asarray(returns).reshape(6, 5, -1)
    for action in range(5):
        centred = advantages[:, action] - sum(advantages[:, a] for a in range(5)) / 5
        np.testing.assert_allclose(returns[:, action], values + centred, atol=1e-5)
    # The mean over actions is the value: advantages average to nothing.
    np.testing.assert_allclose(returns.mean(1), values, atol=1e-5)
    assert not np.allclose(advantages.mean(1), 0.0, atol=1e-3)


def test_dueling_streams_have_a_hidden_layer_each():
    network = make("dueling")
    shapes = [
        tuple(weight.shape) for weight in network.weights if len(weight.shape) > 1
    ]
    assert shapes == [(3, 64), (64, 64), (64, 5), (64, 64), (64, 1)]
    network = models.QNetwork(dueling=True, hidden_units=(8,), head_units=(4,))
    network.build_for(BOX, ACTIONS)
    shapes = [
        tuple(weight.shape) for weight in network.weights if len(weight.shape) > 1
    ]
    assert shapes == [(3, 8), (8, 4), (4, 5), (8, 4), (4, 1)]


@pytest.mark.parametrize("name", RECURRENT)
def test_unroll_equals_stepping_with_resets(name):
    network = make(name)
    num_steps, num_envs = 6, 3
    flat = sample_inputs(network, num_steps * num_envs)
    inputs = keras.tree.map_structure(
        lambda x: x.reshape(num_steps, num_envs, *x.shape[1:]), flat
    )
    rng = np.random.default_rng(1)
    starts = rng.random((num_steps, num_envs)) < 0.3
    state = initial = keras.tree.map_structure(
        lambda x: rng.normal(size=x.shape).astype(np.float32),
        network.get_initial_state(num_envs),
    )
    unrolled = network.unroll(inputs, initial, starts)
    for time in range(num_steps):
        state = keras.tree.map_structure(
            lambda x, now=starts[time]: np.where(now[:, None], 0.0, x).astype("f4"),
            state,
        )
        now = keras.tree.map_structure(lambda x, time=time: x[time], inputs)
        outputs = network(now, state=state)
        state = outputs.pop("state")
        for key, value in outputs.items():
            np.testing.assert_allclose(unrolled[key][time], value, atol=1e-5)
    keras.tree.map_structure(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
        unrolled["state"],
        state,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_keras_file_round_trip(name, tmp_path):
    network = make(name)
    inputs = sample_inputs(network, 4)
    network.update_normalization(inputs["observations"], np.ones(4, bool))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    state = network.get_initial_state(4)
    keras.tree.map_structure(
        np.testing.assert_array_equal,
        loaded(inputs, state=state),
        network(inputs, state=state),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_clones_have_the_same_structure(name):
    network = make(name)
    clone = models.QNetwork.from_config(network.get_config())
    clone.build_for(network.observation_space, network.action_space)
    assert [v.shape for v in clone.variables] == [v.shape for v in network.variables]
    # A given trunk has seeds of its own, or none.
    if name != "trunk":
        for ours, theirs in zip(network.weights, clone.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name, noisy_acting",
    [(name, False) for name in NETWORKS]
    + [(name, True) for name in NETWORKS if "noisy" in name],
)
def test_acting_without_tensorflow_gives_the_same(name, noisy_acting):
    network = make(name)

    def act(inputs):
        inputs = dict(inputs)
        state = inputs.pop("state")
        with models.NoiseScope(enabled=noisy_acting):
            outputs = network(inputs, state=state)
        return {**outputs, "actions": network.mode(outputs)}

    state = keras.tree.map_structure(np.array, network.get_initial_state(8))
    inputs = {**sample_inputs(network, 8), "state": state}
    # `build_actor` compares both engines, with the same noise, and raises. Only
    # convolutions have no NumPy form.
    actor = build_actor(act, inputs, "auto" if name == "image" else "numpy")
    generators = [np.random.default_rng(seed) for seed in range(8)]
    noise = [values[0] for values in actor.draw(generators, 1)]
    assert bool(noise) == noisy_acting
    outputs = actor(inputs, noise)
    assert outputs["q_values"].shape == (8, 5)
    if not noisy_acting:
        exact = network(
            {key: value for key, value in inputs.items() if key != "state"},
            state=state,
        )
        np.testing.assert_allclose(
            outputs["q_values"], exact["q_values"], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_atoms": 51}, "v_min < v_max"),
        ({"num_atoms": 51, "v_min": 1.0, "v_max": 1.0}, "v_min < v_max"),
        ({"v_max": 10.0}, "num_atoms=51"),
        ({**ATOMS, "num_quantiles": 5}, "drop one"),
        ({"num_quantiles": 0}, "at least 1"),
        ({"num_atoms": 0}, "at least 1"),
        ({"cell": "rnn"}, "Expected None, 'lstm' or 'gru'"),
        ({"previous_inputs": True}, "add cell"),
        ({"trunk": models.MLP(), "hidden_units": (3,)}, "drop either"),
        ({"trunk": models.MLP(), "activation": "relu"}, "head_units"),
        ({"filters": [(4, 3, 2)]}, "without an image"),
        ({"kernel_initializer": "zero"}, "orthogonal"),
    ],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.QNetwork(**arguments).build_for(BOX, ACTIONS)


@pytest.mark.parametrize("space", [BOX, spaces.Tuple([ACTIONS])])
def test_other_action_spaces_are_refused(space):
    with pytest.raises(TypeError, match=r"MultiBinary action space.*SAC"):
        models.QNetwork().build_for(BOX, space)


def test_there_is_no_distribution():
    network = make("plain")
    with pytest.raises(TypeError, match="mode"):
        network.distribution(network(network.example_inputs(1)))


ZEROS = {"q_values": np.zeros((1, 5), "f4")}


@pytest.mark.parametrize(
    "outputs, message",
    [
        (np.zeros((1, 5), "f4"), "Expected a dict"),
        ({"values": np.zeros(1, "f4")}, r"\['values'\].*Expected a dict"),
        ({"q_values": np.zeros((1, 4), "f4")}, r"\(1, 4\).*Expected \(1, 5\)"),
        ({"q_values": np.zeros((1, 5, 1), "f4")}, r"Expected \(1, 5\)"),
        ({"q_values": np.zeros((1, 5), "f2")}, "float32"),
        ({**ZEROS, "logits": np.zeros((1, 5, 3), "f4")}, r"Expected \(1, 5, 2\)"),
        ({**ZEROS, "quantiles": np.zeros((1, 3, 5), "f4")}, r"Expected \(1, 5, None"),
        (
            {
                **ZEROS,
                "logits": np.zeros((1, 5, 2), "f4"),
                "quantiles": np.zeros((1, 5, 2), "f4"),
            },
            "leave one out",
        ),
    ],
)
def test_wrong_outputs_are_refused(outputs, message):
    class Wrong(models.QFunction):
        atoms = np.array([0.0, 1.0])

        def call(self, inputs, state=None, training=False):
            return keras.tree.map_structure(keras.ops.convert_to_tensor, outputs)

    with pytest.raises(ValueError, match=message):
        Wrong().build_for(BOX, ACTIONS)


@pytest.mark.parametrize("atoms", [None, np.array([1.0, 0.0]), np.zeros((2, 1))])
def test_logits_need_atoms(atoms):
    class Wrong(models.QFunction):
        def call(self, inputs, state=None, training=False):
            logits = keras.ops.zeros((1, 5, 2))
            return {"q_values": keras.ops.zeros((1, 5)), "logits": logits}

    network = Wrong()
    network.atoms = atoms
    with pytest.raises(ValueError, match="set self.atoms"):
        network.build_for(BOX, ACTIONS)


def test_the_example_of_the_docstring_is_a_q_function():
    class MyQFunction(models.QFunction):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.hidden = keras.layers.Dense(64, activation="relu")
            self.head = keras.layers.Dense(self.num_actions)

        def call(self, inputs, state=None, training=False):
            features = self.hidden(inputs["observations"])
            return {"q_values": self.head(features)}

    network = MyQFunction()
    network.build_for(BOX, ACTIONS)
    assert len(network.trainable_variables) == 4
    assert not network.has_values
