"""Policies with critics: their contract, and both built-in ones."""

import keras
import numpy as np
import pytest
from gymnasium import spaces
from sampling import sample_inputs

from kerasrl import models
from kerasrl.actors import build_actor
from kerasrl.models.batched_dense import BatchedDense

BOX = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (12, 12, 2), np.uint8)
NESTED = spaces.Dict({"vector": BOX, "code": spaces.Discrete(4, start=1)})
ACTIONS = spaces.Box(np.float32([[-2, 0], [5, -1]]), np.float32([[3, 10], [6, 1]]))
DISCRETE = spaces.Discrete(4)
SMALL = {"hidden_units": (16, 8), "seed": 0}

Deterministic, Soft = models.DeterministicActorCritic, models.SoftActorCritic
POLICIES = {
    "ddpg": (lambda: Deterministic(num_critics=1, **SMALL), BOX, ACTIONS),
    "td3": (lambda: Deterministic(**SMALL), BOX, ACTIONS),
    "td3_image": (lambda: Deterministic(filters=[(4, 3, 2)], **SMALL), IMAGE, ACTIONS),
    "sac": (
        lambda: Soft(critic_hidden_units=(8,), initial_log_std=-1.0, **SMALL),
        BOX,
        ACTIONS,
    ),
    "sac_nested": (
        lambda: Soft(normalize_observations=True, num_critics=3, **SMALL),
        NESTED,
        ACTIONS,
    ),
    "sac_discrete": (
        lambda: Soft(kernel_initializer="orthogonal", **SMALL),
        BOX,
        DISCRETE,
    ),
    "sac_trunk": (lambda: Soft(trunk=models.MLP((6,), seed=1), **SMALL), BOX, ACTIONS),
}


def make(name):
    make_policy, observation_space, action_space = POLICIES[name]
    policy = make_policy()
    policy.build_for(observation_space, action_space)
    return policy


def normalized(policy, num_rows, seed=0):
    """Random normalized actions; None where all are valued at once."""
    if policy.is_discrete:
        return None
    shape = (num_rows, *policy.action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", POLICIES)
def test_shapes(name):
    policy = make(name)
    inputs = sample_inputs(policy, 5)
    outputs = policy(inputs)
    assert set(outputs) == {"distribution"}
    deterministic = isinstance(policy, Deterministic)
    size = {True: 4, False: 8}[deterministic] if not policy.is_discrete else 4
    assert outputs["distribution"].shape == (5, size)
    actions = np.asarray(policy.mode(outputs))
    assert actions.shape == (5, *policy.action_space.shape)
    if policy.is_discrete:
        np.testing.assert_array_equal(
            actions, np.asarray(outputs["distribution"]).argmax(-1)
        )
    else:
        expected = np.tanh(np.asarray(outputs["distribution"])[:, :4])
        np.testing.assert_allclose(actions.reshape(5, 4), expected, atol=1e-6)
    q_values = policy.q_values(inputs["observations"], normalized(policy, 5))
    shape = (policy.num_critics, 5) + ((4,) if policy.is_discrete else ())
    assert q_values.shape == shape
    assert not policy.is_recurrent and not policy.has_values


@pytest.mark.parametrize("name", POLICIES)
def test_policy_and_critics_share_the_trainable_variables_out(name):
    policy = make(name)
    ours = [id(v) for v in policy.policy_variables()]
    theirs = [id(v) for v in policy.critic_variables()]
    assert ours and theirs
    assert not set(ours) & set(theirs)
    assert sorted(ours + theirs) == sorted(id(v) for v in policy.trainable_variables)
    # What is not the policy's changes no action, and the other way round.
    inputs = sample_inputs(policy, 4)
    actions = normalized(policy, 4)
    parameters = np.asarray(policy(inputs)["distribution"])
    q_values = np.asarray(policy.q_values(inputs["observations"], actions))
    for variable in policy.critic_variables():
        variable.assign(variable + 0.5)
    np.testing.assert_array_equal(policy(inputs)["distribution"], parameters)
    changed = np.asarray(policy.q_values(inputs["observations"], actions))
    assert not np.allclose(changed, q_values)
    for variable in policy.policy_variables():
        variable.assign(variable + 0.5)
    assert not np.allclose(policy(inputs)["distribution"], parameters)
    np.testing.assert_array_equal(
        policy.q_values(inputs["observations"], actions), changed
    )


@pytest.mark.parametrize("name", ["ddpg", "sac", "sac_nested", "sac_discrete"])
def test_critics_equal_separate_dense_networks(name):
    """A loop over critics, layers and rows, in float64."""
    policy = make(name)
    inputs = sample_inputs(policy, 5)
    actions = normalized(policy, 5)
    features = np.asarray(policy.encoder(inputs["observations"]), np.float64)
    if actions is not None:
        features = np.concatenate([features, actions.reshape(5, -1)], axis=1)
    layers = [*policy.critics.hidden_layers, policy.critics.output_layer]
    expected = np.zeros((policy.num_critics, 5, layers[-1].units))
    for critic in range(policy.num_critics):
        for row in range(5):
            x = features[row]
            for number, layer in enumerate(layers):
                x = (
                    x @ np.asarray(layer.kernel)[critic]
                    + np.asarray(layer.bias)[critic]
                )
                x = np.maximum(x, 0) if number < len(layers) - 1 else x
            expected[critic, row] = x
    q_values = policy.q_values(inputs["observations"], actions)
    if actions is not None:
        expected = expected[..., 0]
    np.testing.assert_allclose(q_values, expected, atol=1e-5)
    first = policy.first_q_values(inputs["observations"], actions)
    np.testing.assert_allclose(first, expected[0], atol=1e-5)
    for critic in range(1, policy.num_critics):
        assert not np.allclose(q_values[critic], q_values[0], atol=1e-4)


@pytest.mark.parametrize(
    "initializer",
    [
        "fan_in_uniform",
        "orthogonal",
        "normc",
        keras.initializers.GlorotUniform(seed=3),
        keras.initializers.GlorotUniform(),
    ],
)
def test_members_of_a_batched_layer_begin_differently(initializer):
    layer = BatchedDense(3, 16, kernel_initializer=initializer, seed=1)
    layer.build((None, 25))
    kernels = np.asarray(layer.kernel)
    assert kernels.shape == (3, 25, 16)
    for member in (1, 2):
        assert not np.allclose(kernels[0], kernels[member], atol=1e-3)
    if initializer == "fan_in_uniform":
        assert np.abs(kernels).max() <= 0.2
        assert kernels.std() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    if initializer == "orthogonal":
        np.testing.assert_allclose(kernels[1].T @ kernels[1], np.eye(16), atol=1e-5)
    clone = BatchedDense.from_config(layer.get_config())
    clone.build((None, 25))
    assert clone.kernel.shape == layer.kernel.shape


def test_layers_of_one_critic_begin_differently():
    policy = Soft(hidden_units=(8, 8, 8), seed=0)
    policy.build_for(BOX, ACTIONS)
    kernels = [np.asarray(layer.kernel) for layer in policy.critics.hidden_layers]
    members = [*kernels[1], *kernels[2]]
    for first in range(4):
        for second in range(first):
            assert not np.allclose(members[first], members[second], atol=1e-3)


def test_batched_layer_refuses_another_number_of_members():
    with pytest.raises(ValueError, match=r"\(2, batch_size, features\)"):
        BatchedDense(2, 3).build((4, 5, 6))


def test_first_actions():
    inputs = sample_inputs(make("td3"), 200)
    actions = np.asarray(make("td3").mode(make("td3")(inputs)))
    assert np.abs(actions).max() < 0.02
    policy = make("sac")
    log_std = np.asarray(policy(inputs)["distribution"])[:, 4:]
    np.testing.assert_allclose(log_std.mean(), -1.0, atol=0.4)
    assert np.abs(np.diff(log_std, axis=0)).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_scaling_round_trip(dtype):
    policy = make("ddpg")
    corners = np.stack([ACTIONS.low, ACTIONS.high, (ACTIONS.low + ACTIONS.high) / 2])
    corners = corners.astype(dtype)
    found = np.asarray(policy.normalize_actions(corners))
    assert found.dtype == dtype
    unit = np.ones((2, 2))
    np.testing.assert_array_equal(found, np.stack([-unit, unit, 0 * unit]))
    found = policy.scale_actions(np.stack([-unit, unit, 0 * unit]).astype(dtype))
    np.testing.assert_array_equal(found, corners)
    # Leading axes are free, and nothing is clipped.
    rng = np.random.default_rng(0)
    actions = rng.uniform(-30, 30, (4, 7, 2, 2)).astype(dtype)
    back = np.asarray(policy.scale_actions(policy.normalize_actions(actions)))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, actions, atol=64 * float(np.finfo(dtype).eps))
    low, high = ACTIONS.low.astype("f8"), ACTIONS.high.astype("f8")
    expected = 2 * (actions.astype("f8") - low) / (high - low) - 1
    np.testing.assert_allclose(
        np.asarray(policy.normalize_actions(actions), "f8"),
        expected,
        rtol=4 * float(np.finfo(dtype).eps),
        atol=16 * float(np.finfo(dtype).eps),
    )


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-3e38, 3e38, (2,)),
        spaces.Box(np.float32([1, 2]), np.float32([1, 3])),
        spaces.Box(0, 9, (2,), np.int32),
        spaces.Box(-2.0, 5.0, ()),
        spaces.Box(-2.0, 5.0, (2,), np.float64),
    ],
)
def test_scaling_of_odd_boxes(space):
    policy = Deterministic(**SMALL)
    policy.build_for(BOX, space)
    unit = np.linspace(-1, 1, 5, dtype=np.float32)
    unit = np.broadcast_to(unit.reshape(5, *[1] * len(space.shape)), (5, *space.shape))
    actions = np.asarray(policy.scale_actions(unit), np.float64)
    low, high = space.low.astype("f8"), space.high.astype("f8")
    expected = low + (unit.astype("f8") + 1) / 2 * (high - low)
    np.testing.assert_allclose(actions, expected, rtol=1e-6, atol=1e-6)
    back = policy.normalize_actions(actions.astype(np.float32))
    np.testing.assert_allclose(
        back, np.where(high > low, unit, 0.0), rtol=1e-6, atol=1e-6
    )


def test_integer_actions_become_floats():
    policy = Deterministic(**SMALL)
    policy.build_for(BOX, spaces.Box(0, 9, (1,), np.int32))
    found = np.asarray(policy.normalize_actions(np.array([[0], [9]])))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[-1], [1]])


@pytest.mark.parametrize("name", POLICIES)
def test_keras_file_and_clone(name, tmp_path):
    policy = make(name)
    inputs, actions = sample_inputs(policy, 4), normalized(policy, 4)
    policy.update_normalization(inputs["observations"], np.ones(4, bool))
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    np.testing.assert_array_equal(
        loaded(inputs)["distribution"], policy(inputs)["distribution"]
    )
    np.testing.assert_array_equal(
        loaded.q_values(inputs["observations"], actions),
        policy.q_values(inputs["observations"], actions),
    )
    clone = type(policy).from_config(policy.get_config())
    clone.build_for(policy.observation_space, policy.action_space)
    assert [v.shape for v in clone.variables] == [v.shape for v in policy.variables]
    assert clone.get_config() == policy.get_config()


@pytest.mark.parametrize(
    "name, kind",
    [(name, kind) for name in POLICIES for kind in ("deterministic", "values")]
    + [(name, "stochastic") for name in POLICIES if "sac" in name],
)
def test_acting_without_tensorflow_gives_the_same(name, kind):
    policy = make(name)

    def act(inputs):
        outputs = policy(inputs)
        if kind == "stochastic":
            actions = policy.distribution(outputs).sample()
        else:
            actions = policy.mode(outputs)
        if kind == "values":
            actions = None if policy.is_discrete else actions
            q_values = policy.q_values(inputs["observations"], actions)
            return {"values": keras.ops.min(q_values, axis=0)}
        return {
            "actions": actions if policy.is_discrete else policy.scale_actions(actions)
        }

    inputs = sample_inputs(policy, 8)
    # `build_actor` compares both engines, with the same noise, and raises. Only
    # convolutions have no NumPy form.
    actor = build_actor(act, inputs, "auto" if "image" in name else "numpy")
    generators = [np.random.default_rng(seed) for seed in range(8)]
    noise = [values[0] for values in actor.draw(generators, 1)]
    assert bool(noise) == (kind == "stochastic")
    outputs = actor(inputs, noise)
    if kind != "stochastic":
        expected = act(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))
        keras.tree.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
            outputs,
            expected,
        )
    elif not policy.is_discrete:
        assert (outputs["actions"] >= ACTIONS.low - 1e-5).all()
        assert (outputs["actions"] <= ACTIONS.high + 1e-5).all()


def test_images_have_convolutions_for_policy_and_critics():
    policy = make("td3_image")
    kernels = [v.shape for v in policy.trainable_variables if len(v.shape) == 4]
    assert kernels == [(3, 3, 2, 4)] * 2
    critic = {id(v) for v in policy.critic_variables()}
    assert sum(id(v) in critic for v in policy.trainable_variables) == 2 + 6


@pytest.mark.parametrize(
    "make_policy, action_space, error, message",
    [
        (Soft, spaces.Box(-np.inf, 1.0, (2,)), ValueError, "RescaleAction"),
        (Deterministic, spaces.Box(-1.0, np.inf, (2,)), ValueError, "ClipAction"),
        (Deterministic, DISCRETE, TypeError, r"Box action space.*Discrete\(4\).*SAC"),
        (Soft, spaces.Dict({"a": DISCRETE}), TypeError, r"Dict.*PPO"),
        (lambda: Soft(initial_log_std=1.0), DISCRETE, ValueError, "Leave it out"),
        (lambda: Soft(num_critics=0), ACTIONS, ValueError, "positive integer"),
        (lambda: Soft(filters=[(4, 3, 2)]), ACTIONS, ValueError, "without an image"),
        (
            lambda: Soft(trunk=models.MLP(), filters=[(4, 3, 2)]),
            ACTIONS,
            ValueError,
            "drop either",
        ),
        (lambda: Soft(trunk=3), ACTIONS, TypeError, "Keras layer"),
        (lambda: Soft(kernel_initializer="zero"), ACTIONS, ValueError, "fan_in"),
    ],
)
def test_what_cannot_be_is_refused(make_policy, action_space, error, message):
    with pytest.raises(error, match=message):
        make_policy().build_for(BOX, action_space)


def test_actions_are_for_boxes_only():
    policy = make("sac_discrete")
    observations = np.zeros((1, 3), np.float32)
    with pytest.raises(TypeError, match="valued at once"):
        policy.q_values(observations, np.zeros((1, 4)))
    with pytest.raises(TypeError, match="no bounds"):
        policy.scale_actions(np.zeros(1))
    with pytest.raises(TypeError, match="Give actions"):
        make("sac").q_values(observations)
    with pytest.raises(TypeError, match=r"mode\(outputs\)"):
        make("td3").distribution({})


class Own(models.ActionValuePolicy):
    """The example of the docstring of `ActionValuePolicy`."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.actor = keras.layers.Dense(self.num_parameters)
        self.critic = keras.layers.Dense(1)

    def call(self, inputs, state=None, training=False):
        return {"distribution": self.actor(inputs["observations"])}

    def q_values(self, observations, actions=None, training=False):
        inputs = keras.ops.concatenate([observations, actions], axis=-1)
        return keras.ops.transpose(self.critic(inputs))

    def critic_variables(self):
        return self.critic.trainable_variables


def test_the_example_of_the_docstring_is_a_policy():
    policy = Own()
    policy.build_for(BOX, BOX)
    assert len(policy.policy_variables()) == len(policy.critic_variables()) == 2
    actions = policy.distribution(policy(policy.example_inputs(2))).sample(seed=1)
    assert policy.q_values(np.zeros((2, 3), "f4"), actions).shape == (1, 2)


@pytest.mark.parametrize(
    "method, wrong, message",
    [
        ("call", lambda self, *a, **k: keras.ops.zeros((1, 6)), "Expected a dict"),
        (
            "call",
            lambda self, *a, **k: {"distribution": keras.ops.zeros((1, 3))},
            r"Expected \(1, 6\)",
        ),
        (
            "q_values",
            lambda self, *a, **k: keras.ops.zeros((1, 1, 1)),
            r"\(1, 1, 1\).*Expected float32 of shape \(num_critics, 1\)",
        ),
        (
            "q_values",
            lambda self, *a, **k: keras.ops.zeros((1, 1), "float16"),
            "float16",
        ),
        ("critic_variables", lambda self: [], "returned 0"),
        (
            "critic_variables",
            lambda self: self.trainable_variables,
            "the others are the policy's",
        ),
        (
            "critic_variables",
            lambda self: [keras.Variable(0.0)],
            "0 of them among",
        ),
    ],
)
def test_wrong_subclasses_are_refused(method, wrong, message):
    policy = type("Wrong", (Own,), {method: wrong})()
    with pytest.raises(ValueError, match=message):
        policy.build_for(BOX, BOX)


@pytest.mark.parametrize("method", ["q_values", "critic_variables"])
def test_missing_methods_are_named(method):
    policy = models.ActionValuePolicy()
    arguments = [None] if method == "q_values" else []
    with pytest.raises(NotImplementedError, match=f"must define {method}"):
        getattr(policy, method)(*arguments)
