"""The contract between policies and agents, over every built-in body."""

import gymnasium
import keras
import numpy as np
import pytest
from gymnasium import spaces
from sampling import sample_inputs

from kerasrl import models
from kerasrl.models.policy import merge_time
from kerasrl.spaces import space_from_config, space_to_config

BOX = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (16, 16, 3), np.uint8)
NESTED = spaces.Dict(
    {
        "vector": BOX,
        "pair": spaces.Tuple([spaces.Discrete(4, start=1), spaces.MultiBinary(2)]),
        "codes": spaces.MultiDiscrete([2, 3]),
    }
)
ACTIONS = spaces.Discrete(2)

POLICIES = {
    "default": (lambda: models.ActorCritic(seed=0), BOX, ACTIONS),
    "shared": (lambda: models.ActorCritic(shared_trunk=True), BOX, ACTIONS),
    "normc": (lambda: models.ActorCritic(kernel_initializer="normc"), BOX, ACTIONS),
    "normalized": (
        lambda: models.ActorCritic(normalize_observations=True),
        NESTED,
        ACTIONS,
    ),
    "gaussian": (lambda: models.ActorCritic(initial_log_std=-1.0), BOX, BOX),
    "predicted_std": (lambda: models.ActorCritic(log_std="predicted"), BOX, BOX),
    "image": (
        lambda: models.ActorCritic(filters=[(8, 3, 2)], hidden_units=(16, 8)),
        IMAGE,
        ACTIONS,
    ),
    "nested": (lambda: models.ActorCritic(), NESTED, ACTIONS),
    "lstm": (lambda: models.ActorCritic(cell="lstm", cell_units=8), BOX, ACTIONS),
    "gru_previous": (
        lambda: models.ActorCritic(cell="gru", cell_units=8, previous_inputs=True),
        NESTED,
        spaces.MultiDiscrete([2, 3]),
    ),
    "shared_lstm": (
        lambda: models.ActorCritic(cell="lstm", cell_units=8, shared_trunk=True),
        BOX,
        BOX,
    ),
    "keras_trunk": (
        lambda: models.ActorCritic(
            trunk=keras.Sequential([keras.layers.Dense(8, activation="relu")]),
            shared_trunk=False,
        ),
        BOX,
        ACTIONS,
    ),
}


def make(name):
    """Builds one of the policies and a batch of inputs for it."""
    make_policy, observation_space, action_space = POLICIES[name]
    policy = make_policy()
    policy.build_for(observation_space, action_space)
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_call_returns_parameters_and_values(name):
    policy = make(name)
    outputs = policy(sample_inputs(policy, 5), state=policy.get_initial_state(5))
    assert outputs["distribution"].shape == (5, policy.num_parameters)
    assert outputs["values"].shape == (5,)
    actions = policy.distribution(outputs).sample(seed=1)
    assert policy.action_space.shape == tuple(actions.shape[1:])
    assert policy.is_recurrent == ("state" in outputs)


@pytest.mark.parametrize("name", POLICIES)
def test_unroll_equals_stepping_with_resets(name):
    policy = make(name)
    num_steps, num_envs = 6, 3
    flat = sample_inputs(policy, num_steps * num_envs)
    inputs = keras.tree.map_structure(
        lambda x: x.reshape(num_steps, num_envs, *x.shape[1:]), flat
    )
    rng = np.random.default_rng(1)
    starts = rng.random((num_steps, num_envs)) < 0.3
    initial = keras.tree.map_structure(
        lambda x: rng.normal(size=x.shape).astype(np.float32),
        policy.get_initial_state(num_envs),
    )
    unrolled = policy.unroll(inputs, initial, starts)
    state = initial
    for time in range(num_steps):
        state = keras.tree.map_structure(
            lambda x, now=starts[time]: np.where(now[:, None], 0.0, x).astype("f4"),
            state,
        )
        outputs = policy(
            keras.tree.map_structure(lambda x, time=time: x[time], inputs), state=state
        )
        state = outputs.get("state", ())
        for key in ("distribution", "values"):
            np.testing.assert_allclose(
                unrolled[key][time], outputs[key], rtol=2e-5, atol=2e-6
            )
    if policy.is_recurrent:
        keras.tree.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6),
            unrolled["state"],
            state,
        )


@pytest.mark.parametrize("name", POLICIES)
def test_keras_file_round_trip(name, tmp_path):
    policy = make(name)
    policy.compile(optimizer="adam")
    policy.optimizer.build(policy.trainable_variables)
    inputs = sample_inputs(policy, 4)
    policy.update_normalization(inputs["observations"], np.ones(4, bool))
    state = policy.get_initial_state(4)
    expected = policy(inputs, state=state)
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    outputs = loaded(inputs, state=state)
    np.testing.assert_array_equal(outputs["distribution"], expected["distribution"])
    np.testing.assert_array_equal(outputs["values"], expected["values"])


def test_generic_unroll_of_a_custom_recurrent_policy():
    @keras.saving.register_keras_serializable("tests")
    class Summing(models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.head = keras.layers.Dense(self.num_parameters)

        def get_initial_state(self, batch_size):
            return {"sum": keras.ops.ones((batch_size, 3))}

        def call(self, inputs, state=None, training=False):
            total = state["sum"] + inputs["observations"]
            return {
                "distribution": self.head(total),
                "values": keras.ops.sum(total, axis=-1),
                "state": {"sum": total},
            }

    policy = Summing()
    policy.build_for(BOX, ACTIONS)
    observations = np.ones((4, 1, 3), np.float32)
    inputs = {
        "observations": observations,
        "previous_actions": np.zeros((4, 1), np.int64),
        "previous_rewards": np.zeros((4, 1), np.float32),
    }
    starts = np.array([[False], [False], [True], [False]])
    outputs = policy.unroll(inputs, {"sum": np.zeros((1, 3), np.float32)}, starts)
    # From 0: 1, 2; then from the initial state, which is 1 here: 2, 3.
    np.testing.assert_allclose(outputs["values"][:, 0], [3.0, 6.0, 6.0, 9.0])


@pytest.mark.parametrize(
    "outputs, message",
    [
        (lambda n: np.zeros((1, 2)), "Expected a dict"),
        (lambda n: {"distribution": np.zeros((1, n + 1))}, "Expected \\(1, 2\\)"),
        (
            lambda n: {"distribution": np.zeros((1, n)), "values": np.zeros((1, 1))},
            "squeeze",
        ),
    ],
)
def test_wrong_outputs_are_refused(outputs, message):
    class Wrong(models.Policy):
        def call(self, inputs, state=None, training=False):
            return keras.tree.map_structure(
                keras.ops.convert_to_tensor, outputs(self.num_parameters)
            )

    with pytest.raises(ValueError, match=message):
        Wrong().build_for(BOX, ACTIONS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cell": "rnn"}, "Expected None, 'lstm' or 'gru'"),
        ({"previous_inputs": True}, "add cell"),
        ({"log_std": "fixed"}, "independent"),
        ({"trunk": models.MLP(), "hidden_units": (3,)}, "drop either"),
        ({"kernel_initializer": "zero"}, "orthogonal"),
    ],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.ActorCritic(**arguments).build_for(BOX, ACTIONS)


def test_other_spaces_than_built_for_are_refused():
    policy = make("default")
    with pytest.raises(ValueError, match="built for"):
        policy.build_for(spaces.Box(-1.0, 1.0, (4,)), ACTIONS)


def test_seed_decides_the_weights():
    first, second, other = (models.ActorCritic(seed=seed) for seed in (3, 3, 4))
    for policy in (first, second, other):
        policy.build_for(BOX, ACTIONS)
    for a, b, c in zip(
        first.get_weights(), second.get_weights(), other.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert not a.any() or not np.array_equal(a, c)


def test_running_normalization_merges_batches_exactly():
    data = np.arange(1.0, 13.0, dtype=np.float32)[:, None]
    layer = models.RunningNormalization()
    layer.build((None, 1))
    for batch in (data[:3], data[3:7], data[7:]):
        # A masked row must not count, whatever it contains.
        padded = np.concatenate([batch, [[1e6]]]).astype(np.float32)
        layer.update(padded, np.arange(len(padded)) < len(batch))
    np.testing.assert_allclose(layer.mean, [6.5], rtol=1e-6)
    np.testing.assert_allclose(layer.variance, [11.9166667], rtol=1e-5)
    assert float(layer.count) == 12.0
    before = layer.get_weights()
    layer(data, training=True)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_normc_columns_have_the_given_norm():
    kernel = models.Normc(0.5, seed=1)((6, 4))
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "space",
    [BOX, IMAGE, NESTED, ACTIONS, spaces.MultiDiscrete([[2, 3], [4, 5]])],
)
def test_space_config_round_trip(space):
    import json

    config = json.loads(json.dumps(space_to_config(space)))
    assert space_from_config(config) == space


def test_unsupported_space_is_named():
    with pytest.raises(TypeError, match="Text"):
        space_to_config(gymnasium.spaces.Text(3))


def test_merge_time_keeps_rows_in_order():
    merged = merge_time({"x": np.arange(6).reshape(2, 3)})
    np.testing.assert_array_equal(merged["x"], np.arange(6))


def test_deviations_of_a_gaussian_of_another_class():
    """They were emitted by the action head, whatever `initial_log_std` said."""
    for space, chosen, numbers in (
        (BOX, "TanhGaussian", slice(3, 6)),
        (spaces.Tuple([ACTIONS, BOX]), (None, "TanhGaussian"), slice(5, 8)),
    ):
        for log_std in ("independent", "predicted"):
            policy = models.ActorCritic(
                distribution=chosen, initial_log_std=-1.0, log_std=log_std
            )
            policy.build_for(BOX, space)
            outputs = policy(policy.example_inputs(1))["distribution"]
            np.testing.assert_allclose(outputs[0, numbers], -1.0, atol=1e-6)


@pytest.mark.parametrize("given", [{"initial_log_std": -1.0}, {"log_std": "predicted"}])
def test_deviations_that_a_distribution_has_not(given):
    policy = models.ActorCritic(distribution="Deterministic", **given)
    with pytest.raises(ValueError, match="no part of an action is a DiagonalGaussian"):
        policy.build_for(BOX, BOX)
