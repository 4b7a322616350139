"""Environments with known answers: each fails if one part of an agent is wrong."""

import keras
import numpy as np
import pytest

import kerasrl
from kerasrl import testing

AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=16, **kw),
    "A2C": lambda **kw: kerasrl.A2C(rollout_length=16, **kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=32, minibatch_size=64, **kw),
}


def train(agent, env, steps, learning_rate=3e-3, **arguments):
    # Too short for XLA to pay.
    agent.compile(keras.optimizers.Adam(learning_rate), jit_compile=False)
    agent.fit(env, steps=steps, verbose=0, **arguments)
    return agent.evaluate(env, episodes=16, seed=0)["return_mean"]


@pytest.mark.parametrize("name", AGENTS)
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


@pytest.mark.parametrize("name", AGENTS)
def test_two_rounds_where_the_greedy_choice_is_wrong(name):
    agent = AGENTS[name](gamma=1.0, entropy_coef=0.02, seed=0)
    assert train(agent, testing.TwoRoundEnv, 8_000) == 3.0


@pytest.mark.parametrize("name", AGENTS)
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


def test_recurrent_policy_remembers():
    """Only memory of the first observation tells which action pays at the end."""
    returns = {}
    for cell in (None, "gru"):
        agent = kerasrl.PPO(
            policy={"cell": cell, "cell_units": 16} if cell else None,
            rollout_length=32,
            minibatch_size=128,
            entropy_coef=0.01,
            seed=0,
        )
        returns[cell] = train(agent, testing.MemoryEnv, 25_000, 5e-3)
    assert returns["gru"] > 0.9 > 0.7 > returns[None]


@pytest.mark.parametrize("name", AGENTS)
def test_continuous_actions(name):
    agent = AGENTS[name](gamma=0.5, seed=0)
    env = testing.ContinuousIdentityEnv
    before = agent.evaluate(env, episodes=16, seed=0)["return_mean"]
    after = train(agent, env, 12_000)
    assert np.isfinite(before) and after > before


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("cell", [None, "lstm"])
def test_nested_observations_and_hostile_ends(name, cell):
    agent = AGENTS[name](policy={"cell": cell, "cell_units": 8}, seed=0)
    history = agent.fit(testing.NestedEnv, steps=600, num_envs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
