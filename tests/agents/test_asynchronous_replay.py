"""Learning from replay while workers act by themselves."""

import types

import daily
import numpy as np
import pytest
import tiny

import kerasrl
from kerasrl import testing
from kerasrl.replay import ShardedReplay
from kerasrl.training import dummy

WORKERS = {
    "num_envs": 4,
    "num_workers": 2,
    "worker_mode": "asynchronous",
    "verbose": 0,
}


def fit(name, steps=400, epochs=1, **arguments):
    agent = tiny.make(name, **arguments)
    history = agent.fit(tiny.env_of(name), steps=steps, epochs=epochs, **WORKERS)
    return agent, history.history


@pytest.mark.parametrize("name", daily.among([*tiny.OFF_POLICY], ["Rainbow", "R2D2"]))
def test_every_algorithm_learns_from_them(name):
    agent, history = fit(name, normalize_rewards=True)
    assert agent.env_steps >= 400 and agent.updates > 0
    assert isinstance(agent.buffer, ShardedReplay)
    assert agent.buffer.num_envs == 4 and len(agent.buffer.shards) == 2
    assert abs(agent.buffer.capacity - 500) <= 4
    assert all(len(shard) > 0 for shard in agent.buffer.shards)
    assert agent.reward_scaler.count == agent.env_steps
    assert np.isfinite(history["loss"][-1])
    assert history["policy_lag_max"][-1] >= 0.0
    stale = "stale_priority_updates"
    assert history[stale] == [0.0] if agent.prioritized else stale not in history


def test_the_replay_ratio_is_as_set():
    # T14: whoever is faster waits.
    settings = {"train_every": 2, "gradient_steps": 3, "updates_per_call": 6}
    agent, history = fit("DQN", steps=240, epochs=3, learning_starts=100, **settings)
    assert np.isnan(history["replay_ratio"][0])
    assert agent.batch_size == 8
    # What makes no whole call waits for the next.
    learnt, steps = agent.updates, agent.env_steps - 100
    assert -12 <= steps * 3 / 2 - learnt <= agent.num_updates(4) + 12
    np.testing.assert_allclose(np.mean(history["replay_ratio"][1:]), 12.0, rtol=0.1)


def test_statistics_of_observations_are_of_all_workers():
    agent = tiny.make("DQN", policy={"normalize_observations": True})
    agent.fit("CartPole-v1", steps=200, **WORKERS)
    counts = [
        float(np.max(v)) for v in agent.policy.variables if "count" in v.path.lower()
    ]
    assert agent.env_steps in [round(count) for count in counts]
    agent.n_step = 2
    assert [shard.n_step for shard in agent.buffer.shards] == [2, 2]


def test_a_checkpoint_has_all_parts(tmp_path):
    agent, _ = fit("Rainbow")
    path = agent.save(tmp_path / "agent.kerasrl")
    loaded = kerasrl.load(path)
    expected, found = agent.buffer.get_arrays(), loaded.buffer.get_arrays()
    assert set(expected) == set(found) and "shards.1.rewards" in found
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    left, right = (each.sample(3) for each in (agent, loaded))
    np.testing.assert_array_equal(left["indices"], right["indices"])
    np.testing.assert_array_equal(left["weights"], right["weights"])
    # As far as a `fit` with other workers comes.
    for num_workers, num_envs, message in (
        (1, 4, 'num_workers=2 and worker_mode="asynchronous"'),
        (4, 4, "num_workers=2"),
        (2, 8, "num_envs=4"),
    ):
        loaded.envs = _workers(num_workers)
        with pytest.raises(ValueError, match=message):
            loaded.start_learning(num_envs)
    loaded.envs = _workers(2)
    loaded.start_learning(4)
    assert len(loaded.buffer) > 0
    loaded.buffer = None
    loaded.envs = None
    loaded.start_learning(4)
    loaded.buffer.add(rollout_of(loaded))
    loaded.envs = _workers(2)
    with pytest.raises(ValueError, match="another worker_mode"):
        loaded.start_learning(4)


def test_what_is_advised_can_be_done():
    agent = tiny.make("ApexDQN", learning_starts=10_000)
    agent.build(*spaces())
    agent.envs = _workers(2)
    agent.start_learning(4)
    shard = agent.buffer.shards[0]
    shard.add(dummy.example_rollout(agent, 8, num_envs=2))
    agent.envs, agent.synchronous = None, True
    with pytest.raises(
        ValueError, match=r"agent\.synchronous = False and pass num_wor"
    ):
        agent.start_learning(4)


def spaces():
    env = testing.RandomEndsEnv()
    return env.observation_space, env.action_space


def test_a_buffer_of_one_part_is_restored(tmp_path):
    agent = tiny.make("DQN")
    agent.build(*spaces())
    agent.buffer = ShardedReplay([agent.make_buffer(4)])
    agent.buffer.add(rollout_of(agent))
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    assert isinstance(loaded.buffer, ShardedReplay) and len(loaded.buffer) == 32
    state = {**agent.get_state(), "buffer": {"shards": []}}
    with pytest.raises(ValueError, match=r"shards = \[\]. Expected: a list"):
        loaded.set_state(state, agent.get_arrays())


@pytest.mark.parametrize("size", [8, 12])
def test_a_buffer_too_small_for_its_parts_is_refused_as_a_whole(size):
    agent = tiny.make("DQN", buffer_size=size, n_step=3)
    agent.build(*spaces())
    agent.envs = _workers(4)
    message = f"buffer_size={size} for 4 asynchronous workers.* at least 16 in all: 4"
    with pytest.raises(ValueError, match=message):
        agent.start_learning(4)
    agent.n_step, agent.buffer_size = 2, 12
    message = message.replace(f"={size}", "=12")
    agent.start_learning(4)
    with pytest.raises(ValueError, match=message):
        agent.n_step = 3


def rollout_of(agent):
    return dummy.example_rollout(agent, 8, num_envs=4)


def _workers(number):
    pool = types.SimpleNamespace(num_workers=number)
    return types.SimpleNamespace(worker_mode="asynchronous", pool=pool, num_envs=4)


def test_goals_of_each_worker_are_achieved_ones():
    agent = tiny.make("SimpleQ", hindsight="future", gamma=0.9)
    agent.fit(testing.BitFlippingEnv, steps=400, **WORKERS)
    assert isinstance(agent.buffer, ShardedReplay) and agent.updates > 0
    # The environments are gone.
    assert all(shard.compute_reward is None for shard in agent.buffer.shards)
