"""Layers that do something else in training: BatchNormalization and Dropout."""

import keras
import numpy as np
import pytest
from daily import among
from gymnasium import spaces

import kerasrl
from kerasrl.checkpoint import weights
from kerasrl.models import ActorCritic, QNetwork, SoftActorCritic

BOX = spaces.Box(-1.0, 1.0, (4,))
MOMENTUM = 0.5


@keras.saving.register_keras_serializable("tests")
class Silent(keras.layers.Layer):
    """A trunk whose `call` has no argument for training, as many have none."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6)
        self.normalization = keras.layers.BatchNormalization(momentum=MOMENTUM)
        self.dropout = keras.layers.Dropout(0.5, seed=3)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.normalization.build((None, 6))

    def call(self, inputs):
        return self.dropout(self.normalization(self.dense(inputs)))


def sequential():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Dense(6),
            layers.BatchNormalization(momentum=MOMENTUM),
            layers.Dropout(0.5, seed=3),
        ]
    )


def means(policy):
    found = [w for w in policy.weights if w.path.endswith("moving_mean")]
    return [keras.ops.convert_to_numpy(w) for w in found]


def unrolled(policy, training):
    inputs = policy.example_inputs(12)
    inputs["observations"] = np.random.default_rng(0).normal(size=(12, 4))
    inputs = {k: np.reshape(v, (4, 3, *v.shape[1:])) for k, v in inputs.items()}
    starts = np.zeros((4, 3), bool)
    outputs = policy.unroll(inputs, policy.get_initial_state(3), starts, training)
    return next(outputs[name] for name in ("values", "q_values") if name in outputs)


def criticized(policy, training):
    observations = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    return policy.q_values(observations, np.zeros((12, 2), np.float32), training)


WAYS = {
    "unroll": (unrolled, ActorCritic, {}, spaces.Discrete(2)),
    "unroll_lstm": (unrolled, ActorCritic, {"cell": "lstm"}, spaces.Discrete(2)),
    "unroll_q": (unrolled, QNetwork, {"cell": "gru"}, spaces.Discrete(2)),
    "q_values": (criticized, SoftActorCritic, {}, spaces.Box(-1, 1, (2,))),
}


@pytest.mark.parametrize("make", [Silent, sequential])
@pytest.mark.parametrize("way", WAYS)
def test_layers_know_whether_they_are_in_training(way, make):
    compute, policy_class, arguments, action_space = WAYS[way]
    policy = policy_class(trunk=make(), **arguments)
    policy.build_for(BOX, action_space)
    before = means(policy)
    first, second = (np.asarray(compute(policy, False)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before, means(policy))
    # Other units are dropped each time, and statistics move.
    first, second = (np.asarray(compute(policy, True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    assert any(np.any(a != b) for a, b in zip(before, means(policy), strict=True))


@pytest.mark.parametrize("make", [Silent, sequential])
def test_acting_neither_drops_nor_moves_anything(make):
    agent = kerasrl.A2C(policy={"trunk": make(), "cell": "lstm", "cell_units": 3})
    agent.build(BOX, spaces.Box(-1, 1, (2,)))
    head = agent.policy.action_head
    head.kernel.assign(100 * head.kernel)
    for weight in agent.policy.weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(weight + 0.3)
    before = means(agent.policy)
    observations = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    actions, _ = agent.predict(observations)
    inputs = {**agent.policy.example_inputs(7), "observations": observations}
    wanted = np.asarray(agent.policy(inputs)["distribution"])[:, :2]
    assert np.ptp(wanted, axis=0).min() > 1e-2
    np.testing.assert_allclose(actions, np.clip(wanted, -1, 1), rtol=1e-4, atol=1e-5)
    assert agent.actor().backend == "numpy"
    # One draw for the actions, none for layers.
    assert len(agent.actor().noise_specs) == 1
    np.testing.assert_array_equal(before, means(agent.policy))


REPLAY = {"learning_starts": 16, "batch_size": 8, "buffer_size": 200, "seed": 0}
SEQUENCES = {"burn_in": 1, "sequence_length": 4, "period": 2, "train_every": 4}
LSTM = {"cell": "lstm", "cell_units": 4}
AGENTS = {
    "PG": lambda trunk: kerasrl.PG(policy={"trunk": trunk}, rollout_length=8, seed=0),
    "A2C": lambda trunk: kerasrl.A2C(policy={"trunk": trunk}, seed=0),
    "PPO": lambda trunk: kerasrl.PPO(policy={"trunk": trunk}, rollout_length=8, seed=0),
    "A3C": lambda trunk: kerasrl.A3C(policy={"trunk": trunk}, lag=1, seed=0),
    "IMPALA": lambda trunk: kerasrl.IMPALA(policy={"trunk": trunk}, lag=1, seed=0),
    "APPO": lambda trunk: kerasrl.APPO(
        policy={"trunk": trunk}, rollout_length=8, lag=1, seed=0
    ),
    "PPO_recurrent": lambda trunk: kerasrl.PPO(
        policy={"trunk": trunk, **LSTM}, rollout_length=8, seed=0
    ),
    "SimpleQ": lambda trunk: kerasrl.SimpleQ(policy={"trunk": trunk}, **REPLAY),
    "DQN": lambda trunk: kerasrl.DQN(policy={"trunk": trunk}, **REPLAY),
    "R2D2": lambda trunk: kerasrl.R2D2(policy={"trunk": trunk}, **REPLAY, **SEQUENCES),
    "DDPG": lambda trunk: kerasrl.DDPG(policy={"trunk": trunk}, **REPLAY),
    "ApexDQN": lambda trunk: kerasrl.ApexDQN(
        policy={"trunk": trunk}, updates_per_call=8, **REPLAY
    ),
    "ApexDDPG": lambda trunk: kerasrl.ApexDDPG(
        policy={"trunk": trunk}, updates_per_call=8, **REPLAY
    ),
    "SAC": lambda trunk: kerasrl.SAC(policy={"trunk": trunk}, **REPLAY),
    "TD3": lambda trunk: kerasrl.TD3(policy={"trunk": trunk}, **REPLAY),
}


def state(agent):
    return [keras.ops.convert_to_numpy(v) for _, v in weights.variables(agent)]


def test_a_recurrent_policy_learns_with_a_trunk_that_is_told_nothing():
    agent = kerasrl.A2C(policy={"trunk": Silent(), **LSTM}, seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps=10, num_envs=2, verbose=0)
    assert np.any(means(agent.policy)[0] != 0)


@pytest.mark.parametrize("name", among(AGENTS, ["A2C"]))
def test_training_goes_on_exactly(name, tmp_path):
    agent = AGENTS[name](Silent() if name.endswith("2C") else sequential())
    agent.compile(jit_compile=False)
    continuous = ("DDPG", "ApexDDPG", "SAC", "TD3")
    env = "Pendulum-v1" if name in continuous else "CartPole-v1"
    arguments = {"steps": 64, "num_envs": 2, "verbose": 0}
    agent.fit(env, **arguments)
    assert all(np.any(mean != 0) for mean in means(agent.policy))
    before = state(agent)
    agent.evaluate(env, episodes=1, verbose=0)
    for now, then in zip(state(agent), before, strict=True):
        np.testing.assert_array_equal(now, then)
    loaded = kerasrl.load(agent.save(tmp_path / "agent"))
    for each in (agent, loaded):
        each.fit(env, **arguments)
    for one, other in zip(state(agent), state(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
