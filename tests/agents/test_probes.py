"""Environments with known answers: each fails if one part of an agent is wrong."""

import keras
import numpy as np
import pytest
from daily import among

import kerasrl
from kerasrl import testing

AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=16, **kw),
    "A2C": lambda **kw: kerasrl.A2C(rollout_length=16, **kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=32, minibatch_size=64, **kw),
    "A3C": lambda **kw: kerasrl.A3C(rollout_length=16, lag=1, **kw),
    "IMPALA": lambda **kw: kerasrl.IMPALA(rollout_length=16, lag=2, **kw),
    "APPO": lambda **kw: kerasrl.APPO(rollout_length=16, lag=1, **kw),
}
DAILY = ["PPO"]
#: What all do with one code.
ONE = ["PPO"]


def train(agent, env, steps, learning_rate=3e-3, **arguments):
    # Too short for XLA to pay.
    agent.compile(keras.optimizers.Adam(learning_rate), jit_compile=False)
    agent.fit(env, steps=steps, verbose=0, **arguments)
    return agent.evaluate(env, episodes=16, seed=0)["return_mean"]


@pytest.mark.parametrize("name", among(AGENTS, ONE))
def test_discrete_identity(name):
    agent = AGENTS[name](gamma=0.5, seed=0)
    assert train(agent, testing.IdentityEnv, 12_000) >= 0.9 * best_identity_return()


def best_identity_return():
    env = testing.IdentityEnv()
    observation, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(observation)
        total, ended = total + reward, terminated or truncated
    return total


@pytest.mark.parametrize("name", among(AGENTS, DAILY))
def test_two_rounds_where_the_greedy_choice_is_wrong(name):
    agent = AGENTS[name](gamma=1.0, entropy_coef=0.02, seed=0)
    assert train(agent, testing.TwoRoundEnv, 8_000) == 3.0


@pytest.mark.parametrize("name", among(AGENTS, DAILY))
def test_time_limits_bootstrap(name):
    """Reward 1 for ever is worth 1 / (1 - gamma), however short the time limit."""
    gamma = 0.9
    agent = AGENTS[name](gamma=gamma, seed=0)
    train(agent, testing.ConstantRewardEnv, 20_000, learning_rate=1e-2)
    value = agent.value_function()
    value.refresh()
    inputs = {**agent.policy.example_inputs(1), "state": ()}
    estimate = value(inputs, [])["values"][0]
    assert abs(estimate - 1 / (1 - gamma)) < 0.5


def test_without_bootstrap_the_value_is_wrong():
    """Shows that the test above can fail: truncation treated as termination."""

    class Wrong(kerasrl.A2C):
        def targets(self, rollout):
            ended = rollout["terminated"] | rollout["truncated"]
            return super().targets({**rollout, "terminated": ended})

    agent = Wrong(rollout_length=16, gamma=0.9, seed=0)
    train(agent, testing.ConstantRewardEnv, 20_000, learning_rate=1e-2)
    value = agent.value_function()
    value.refresh()
    inputs = {**agent.policy.example_inputs(1), "state": ()}
    assert abs(value(inputs, [])["values"][0] - 10.0) > 2.0


@pytest.mark.slow
def test_recurrent_policy_remembers():
    """Only memory of the first observation tells which action pays at the end."""
    returns = {}
    # Without memory no number of steps would do.
    for cell, steps in ((None, 5_000), ("gru", 15_000)):
        agent = kerasrl.PPO(
            policy={"cell": cell, "cell_units": 16} if cell else None,
            rollout_length=32,
            minibatch_size=128,
            entropy_coef=0.01,
            seed=0,
        )
        returns[cell] = train(agent, testing.MemoryEnv, steps, 5e-3)
    assert returns["gru"] > 0.9 > 0.7 > returns[None]


@pytest.mark.parametrize("name", among(AGENTS, ONE))
def test_continuous_actions(name):
    agent = AGENTS[name](gamma=0.5, seed=0)
    env = testing.ContinuousIdentityEnv
    before = agent.evaluate(env, episodes=16, seed=0)["return_mean"]
    after = train(agent, env, 12_000)
    assert np.isfinite(before) and after > before


@pytest.mark.parametrize(
    "name, cell",
    [
        ("PG", None),
        ("A2C", "lstm"),
        pytest.param("PPO", "lstm", marks=pytest.mark.slow),
    ],
)
def test_nested_observations_and_hostile_ends(name, cell):
    policy = {"cell": cell, "cell_units": 8} if cell else None
    agent = AGENTS[name](policy=policy, seed=0)
    history = agent.fit(testing.NestedEnv, steps=600, num_envs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()


# Off-policy ---------------------------------------------------------------------------

_REPLAY = {"learning_starts": 100, "batch_size": 32, "seed": 0}
_VALUES = {
    "train_every": 2,
    "updates_per_call": 20,
    "tau": 0.1,
    "target_update_interval": 1,
    "exploration": 0.2,
}
_SMALL = {"hidden_units": (16,)}
_ATOMS = {"num_atoms": 21, "v_min": -1.0, "v_max": 12.0}
OFF_POLICY = {
    "SimpleQ": lambda **kw: kerasrl.SimpleQ(policy=_SMALL, **_VALUES, **_REPLAY, **kw),
    "DQN": lambda **kw: kerasrl.DQN(
        policy=_SMALL, dueling=True, prioritized=True, **_VALUES, **_REPLAY, **kw
    ),
    "C51": lambda **kw: kerasrl.DQN(
        policy=_SMALL, n_step=2, **_ATOMS, **_VALUES, **_REPLAY, **kw
    ),
    "QR-DQN": lambda **kw: kerasrl.DQN(
        policy=_SMALL, num_quantiles=5, n_step=3, **_VALUES, **_REPLAY, **kw
    ),
    "R2D2": lambda **kw: kerasrl.R2D2(
        policy={**_SMALL, "cell_units": 8},
        burn_in=2,
        sequence_length=6,
        period=4,
        n_step=2,
        **{**_VALUES, "train_every": 16},
        **_REPLAY,
        **kw,
    ),
    "SAC": lambda **kw: kerasrl.SAC(
        policy=_SMALL,
        updates_per_call=20,
        train_every=2,
        tau=0.1,
        temperature=0.02,
        adjust_temperature=False,
        **_REPLAY,
        **kw,
    ),
}


# Every day each learns in one of two environments.
@pytest.mark.parametrize("name", among(OFF_POLICY, {*OFF_POLICY} - {"DQN", "R2D2"}))
def test_two_rounds_by_values(name):
    """The tempting first choice is wrong, and values say by how much."""
    agent = OFF_POLICY[name](gamma=0.9)
    assert train(agent, testing.TwoRoundEnv, 3_000, 1e-2, num_envs=4) == 3.0


@pytest.mark.parametrize("name", among(OFF_POLICY, {"DQN", "R2D2"}))
def test_time_limits_bootstrap_from_replay(name):
    """Reward 1 for ever is worth 1 / (1 - gamma), however short the time limit."""
    gamma = 0.8
    agent = OFF_POLICY[name](gamma=gamma)
    train(agent, lambda: testing.ConstantRewardEnv(3), 3_000, 1e-2, num_envs=4)
    inputs = agent.policy.example_inputs(1)
    if name == "SAC":
        value = np.min(agent.policy.q_values(inputs["observations"]), axis=0).max()
        tolerance = 0.5  # The entropy of its choices is worth something too.
    else:
        outputs = agent.policy(inputs, state=agent.policy.get_initial_state(1))
        value = np.max(outputs["q_values"])
        tolerance = 0.4
    if agent.__class__ is kerasrl.R2D2:
        value = kerasrl.losses.unrescale(value)
    assert abs(value - 1 / (1 - gamma)) < tolerance


def test_values_without_bootstrap_are_wrong():
    """Shows that the test above can fail: truncation treated as termination."""

    class Wrong(kerasrl.SimpleQ):
        def sample(self, num_batches):
            batches = super().sample(num_batches)
            batches["discounts"][batches["truncated"]] = 0.0
            return batches

    agent = Wrong(policy=_SMALL, gamma=0.8, **_VALUES, **_REPLAY)
    train(agent, lambda: testing.ConstantRewardEnv(3), 3_000, 1e-2, num_envs=4)
    value = np.max(agent.policy(agent.policy.example_inputs(1))["q_values"])
    assert value < 3.5


def test_r2d2_remembers():
    agent = OFF_POLICY["R2D2"](gamma=0.9)
    # The cue is two steps back when the action counts.
    assert train(agent, lambda: testing.MemoryEnv(1), 8_000, 1e-2, num_envs=4) > 0.9


@pytest.mark.parametrize(
    "agent_class",
    [
        kerasrl.TD3,
        *(pytest.param(x, marks=pytest.mark.slow) for x in (kerasrl.DDPG, kerasrl.SAC)),
    ],
)
def test_continuous_identity_from_replay(agent_class):
    agent = agent_class(
        policy={"hidden_units": (32,)},
        gamma=0.3,
        train_every=2,
        updates_per_call=20,
        tau=0.05,
        **_REPLAY,
    )
    result = train(agent, testing.ContinuousIdentityEnv, 2_400, 1e-2, num_envs=4)
    # Blind play gets at best -10 / 3.
    assert result > -0.7
