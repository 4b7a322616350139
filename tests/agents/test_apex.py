"""Ape-X: actors that explore differently and say how wrong they were."""

import types

import daily
import keras
import numpy as np
import pytest
import tiny
from by_definition import BOX

import kerasrl
from kerasrl import testing
from kerasrl.agents import apex, epsilon_ladder
from kerasrl.distribute.replicas import Replicas
from kerasrl.replay import ShardedReplay
from kerasrl.rollouts.episodes import EpisodeRecord
from kerasrl.training import statistics

NAMES = ["ApexDQN", "ApexDDPG"]
WORKERS = {"num_envs": 4, "num_workers": 2, "verbose": 0}
ALL = {"replay": {"priority_exponent": 1.0}}


class Watch(kerasrl.callbacks.Callback):
    """Keeps the rollouts that are learnt from."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def on_rollout_end(self, rollout):
        self.rollouts.append(rollout)


def fit(agent, name, **settings):
    watch = Watch()
    settings = {"steps": 400, "num_envs": 4, "verbose": 0, **settings}
    history = agent.fit(tiny.hostile_env(name), callbacks=[watch], **settings)
    return watch.rollouts, history.history


def errors_by_the_learner(agent, batch):
    """|TD| of single steps, by the loss, eagerly."""
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    inputs = {"observations": batch["observations"]}
    outputs = agent.policy(inputs, state=agent.policy.get_initial_state(1))
    return np.asarray(agent.loss(batch, outputs, {})[1]["td_errors"])


# T25 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_step"),
    [
        ("ApexDQN", 3),
        ("ApexDDPG", 1),
        pytest.param("ApexDQN", 1, marks=pytest.mark.slow),
        pytest.param("ApexDDPG", 3, marks=pytest.mark.slow),
    ],
)
def test_first_priorities_are_the_errors_of_a_learner_with_equal_weights(name, n_step):
    scaled = n_step == 3
    agent = tiny.make(
        name,
        n_step=n_step,
        gamma=0.9,
        learning_starts=10_000,
        updates_per_call=32,
        normalize_rewards=scaled,
        **ALL,
    )
    # One rollout: rewards are scaled by what is known by then.
    steps = 4 * agent.iteration_length(4)
    (rollout,), _ = fit(agent, name, steps=steps)
    assert rollout.terminated.any() and rollout.truncated.any()
    found = agent.first_errors(rollout)
    is_new = np.arange(len(found))[:, None] >= len(found) - n_step
    assert np.isfinite(found).sum() > 0.5 * found.size
    # What is cut off, or ends with the fragment, has nothing to bootstrap from.
    assert np.isnan(found[rollout.truncated & ~rollout.terminated]).all()
    assert np.isnan(found[is_new & ~_ends_soon(rollout, n_step)]).all()
    arguments = {}
    if scaled:
        arguments["scale_rewards"] = agent.reward_scaler.scale
    batch = agent.buffer.sample(600, rng=np.random.default_rng(0), **arguments)
    known = found[np.isfinite(found)] + 1e-6
    largest = max(1.0, known.max())
    total = known.sum() + largest * np.isnan(found).sum()
    priorities = batch["probabilities"] * total
    is_known = ~np.isclose(priorities, largest)
    assert is_known.mean() > 0.2
    expected = errors_by_the_learner(agent, batch)
    np.testing.assert_allclose(
        priorities[is_known], expected[is_known], rtol=1e-3, atol=1e-5
    )


def _ends_soon(rollout, n_step):
    """Whether a task ends within the next steps, before anything is cut off."""
    soon = np.zeros(rollout.rewards.shape, bool)
    for time, env in np.ndindex(soon.shape):
        for row in range(time, min(time + n_step, len(soon))):
            if rollout.terminated[row, env] or rollout.truncated[row, env]:
                soon[time, env] = rollout.terminated[row, env]
                break
    return soon


@pytest.mark.parametrize("name", NAMES)
def test_explores_in_each_environment_to_another_degree(name):
    agent = tiny.make(name, learning_starts=0)
    agent.build(*_spaces(name))
    entry = "epsilon" if name == "ApexDQN" else "scale"
    # async.md, 1.4.
    for count, expected in {
        1: [0.4],
        2: [0.4, 0.00065536],
        4: [0.4, 0.0471556032, 0.0055591273, 0.00065536],
        6: [0.4, 0.1109031749, 0.0307487855, 0.0085253448, 0.0023637195, 0.00065536],
    }.items():
        found = agent.exploration_inputs(count)[entry]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def _spaces(name):
    env = tiny.hostile_env(name)()
    return env.observation_space, env.action_space


def test_each_worker_has_its_own_part_of_it():
    # Were all to explore alike, the regression run would still pass.
    agent = tiny.make("ApexDQN", learning_starts=0, exploration=[1.0, 0.0, 0.0, 1.0])
    rollouts, history = fit(agent, "ApexDQN", num_workers=2)
    assert isinstance(agent.buffer, ShardedReplay)
    greedy = {env: [] for env in range(4)}
    for rollout in rollouts:
        taken, best = (rollout.extras[f"{n}_values"] for n in ("taken", "best"))
        assert taken.shape == (*best.shape, 1)
        for column in range(2):
            same = taken[:, column, 0] == best[:, column]
            greedy[rollout.first_env + column] += same.tolist()
    assert all(greedy[1]) and all(greedy[2]) and min(map(len, greedy.values())) > 20
    assert not all(greedy[0]) and not all(greedy[3])
    bands = ["exploring", "greedy", "middle"]
    assert [k[20:] for k in history if k.startswith("episode_return_mean_")] == bands
    assert np.isfinite(history["episode_return_mean_greedy"][-1])


@pytest.mark.parametrize(
    "arguments", [{"prioritized": False}, {"initial_priorities": False}]
)
def test_without_first_priorities_nothing_is_recorded(arguments):
    agent = tiny.make("ApexDQN", learning_starts=10_000, **arguments)
    rollouts, _ = fit(agent, "ApexDQN", steps=64)
    assert not rollouts[0].extras
    probabilities = agent.buffer.sample(32)["probabilities"]
    np.testing.assert_allclose(probabilities, 1 / len(agent.buffer), rtol=1e-9)


def test_first_priorities_are_recorded_once_they_are_wanted():
    agent = tiny.make("ApexDQN", learning_starts=10_000, prioritized=False)
    fit(agent, "ApexDQN", steps=64)
    agent.buffer, agent.prioritized = None, True
    rollouts, _ = fit(agent, "ApexDQN", steps=64)
    assert np.isfinite(agent.first_errors(rollouts[0])).any()


def test_most_first_priorities_are_known_however_many_environments_there_are():
    agent = tiny.make("ApexDQN", learning_starts=0)
    # 32 steps are for the gradient steps of a call, so that each would take 2.
    settings = {"steps": 16 * 24, "num_envs": 16}
    rollouts, _ = fit(agent, "ApexDQN", **settings)
    assert [len(rollout.rewards) for rollout in rollouts] == [12, 12]
    assert agent.updates == agent.env_steps / 4 == 96
    assert agent.num_updates(16) == 8
    for rollout in rollouts:
        goes_on = ~(rollout.truncated & ~rollout.terminated)
        known = np.isfinite(agent.first_errors(rollout))
        assert known[:-3].mean() > 0.5 and known.mean() > 0.4 * goes_on.mean()
    for n_step, num_envs in ((1, 64), (3, 43), (5, 128), (3, 4)):
        agent.n_step = n_step
        length = agent.iteration_length(num_envs)
        assert length >= 4 * n_step
        assert length * num_envs // 4 % agent.num_updates(num_envs) == 0
        assert length * num_envs % 4 == 0
    agent.initial_priorities = False
    assert agent.iteration_length(16) == 2


# Equalities ---------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_one_synchronous_actor_is_prioritized_dqn(num_workers):
    arguments = {
        "policy": {"dueling": True},
        "n_step": 3,
        "prioritized": True,
        "exploration": 0.2,
        "updates_per_call": 4,
        "train_every": 4,
        "batch_size": 8,
        "target_update_interval": 40,
        "tau": 1.0,
    }
    plain = tiny.make("DQN", **{**arguments, "policy": None}, dueling=True)
    distributed = tiny.make(
        "ApexDQN", **arguments, synchronous=True, initial_priorities=False
    )
    logs = []
    for agent in (plain, distributed):
        settings = {"steps": 400, "num_envs": 1, "num_workers": num_workers}
        logs.append(agent.fit("CartPole-v1", verbose=0, **settings).history)
    assert plain.updates == distributed.updates > 50
    for left, right in zip(plain.get_weights(), distributed.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert logs[0].keys() == logs[1].keys()
    np.testing.assert_array_equal(logs[0]["loss"], logs[1]["loss"])


@pytest.mark.parametrize("name", daily.among(NAMES, ["ApexDQN"]))
def test_a_fixed_lag_is_resumed_exactly(name, tmp_path):
    agent = tiny.make(name, synchronous=True, lag=2)
    settings = {"steps": 200, "num_envs": 4, "num_workers": 2}
    fit(agent, name, **settings)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    logs = [fit(each, name, **settings)[1] for each in (agent, loaded)]
    for left, right in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    for key in ("loss", "episode_return_mean_greedy", "replay_ratio"):
        np.testing.assert_array_equal(logs[0][key], logs[1][key])


# Bands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "num_envs", "expected"),
    [
        (None, 1, None),
        (None, 2, "eg"),
        (None, 3, "emg"),
        (None, 8, "eeemmggg"),
        ([0.0, 0.9, 0.5], 3, "gem"),
        ([0.0, 0.9], 4, "megm"),
        (0.1, 3, None),
        # No third of these explores more than another.
        ([0.1, 0.1, 0.1], 3, None),
        ([0.1], 3, None),
    ],
)
def test_bands_are_thirds_in_the_order_of_exploration(rates, num_envs, expected):
    agent = tiny.make("ApexDQN")
    agent.envs = types.SimpleNamespace(num_envs=num_envs)
    apex.log_bands(agent, rates)
    names = agent.statistics._names
    assert (names and "".join(name[0] for name in names)) == expected


class Change(kerasrl.callbacks.Callback):
    """Has environments change places once."""

    def __init__(self, argument, rates):
        super().__init__()
        self.argument, self.rates, self.seen = argument, rates, []

    def on_rollout_end(self, rollout):
        self.seen.append(self.agent.statistics._names)
        setattr(self.agent, self.argument, self.rates)


@pytest.mark.parametrize(
    ("name", "argument"), [("ApexDQN", "exploration"), ("ApexDDPG", "noise_scale")]
)
def test_bands_follow_exploration(name, argument):
    agent = tiny.make(name, learning_starts=10_000, **{argument: [0.9, 0.0]})
    change = Change(argument, [0.0, 0.9])
    settings = {"steps": 100, "num_envs": 2, "verbose": 0}
    history = agent.fit(tiny.hostile_env(name), callbacks=[change], **settings).history
    assert change.seen[0] == ["exploring", "greedy"]
    assert change.seen[1] == ["greedy", "exploring"]
    assert "episode_return_mean_greedy" in history
    rollouts, _ = fit(agent, name, **{**settings, "num_envs": 2})
    # Of what others acted nobody knows how much they explored.
    history = agent.fit(rollouts, verbose=0).history
    assert not [key for key in history if key.startswith("episode_return_mean_")]


class Ranks(Replicas):
    """One of two ranks."""

    num_ranks = 2

    def __init__(self, rank):
        self.rank = rank


@pytest.mark.parametrize("name", ["ApexDQN", "ApexDDPG", "R2D2"])
def test_environments_of_all_ranks_explore_differently(name):
    agent = tiny.make(name, learning_starts=0)
    entry = "scale" if name == "ApexDDPG" else "epsilon"
    found = []
    for rank in range(2):
        agent.replicas = Ranks(rank)
        found += agent.exploration_inputs(3)[entry].tolist()
    np.testing.assert_allclose(found, epsilon_ladder(6), rtol=1e-6)


def record(rank, env):
    return EpisodeRecord(
        env_index=env,
        episode_return=float(3 * rank + env),
        length=1,
        terminated=True,
        env_steps=3,
        custom_metrics={},
    )


def test_bands_are_over_the_environments_of_all_ranks():
    agent = tiny.make("ApexDQN")
    agent.envs = types.SimpleNamespace(num_envs=3)
    told = []
    for rank in range(2):
        agent.replicas = Ranks(rank)
        agent.tally = statistics.Tally(agent)
        apex.log_bands(agent, None)
        records = [record(rank, env) for env in range(3)]
        agent.tally.add(types.SimpleNamespace(num_steps=3), records)
        told.append([3, agent.tally.episodes, {}])
    agent.replicas.gather_data = lambda data: told
    agent.tally.finish_epoch({})
    logs = agent.statistics.logs()
    means = [logs[f"episode_return_mean_{band}"] for band in apex.BANDS]
    assert means == [0.5, 2.5, 4.5]
    # Each rank has a list like this, for its own.
    apex.log_bands(agent, [0.0, 0.5, 1.0])
    assert agent.statistics._names == ["greedy", "middle", "exploring"] * 2


# Refusals -----------------------------------------------------------------------------


def test_dueling_describes_the_network():
    assert kerasrl.ApexDQN().policy.dueling
    assert not kerasrl.ApexDQN(dueling=False).policy.dueling
    assert not kerasrl.ApexDQN(policy={"dueling": False}).policy.dueling
    given = kerasrl.models.QNetwork(dueling=False)
    assert kerasrl.ApexDQN(policy=given).policy is given
    for made in (given, {"dueling": False}):
        with pytest.raises(ValueError, match="a policy whose dueling is False"):
            kerasrl.ApexDQN(policy=made, dueling=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tiny.make("ApexDQN", policy={"num_quantiles": 3}),
            "initial_priorities=False",
        ),
        (lambda: tiny.make("ApexDQN", policy={"cell": "lstm"}), "R2D2"),
        (lambda: tiny.make("ApexDDPG", policy={"cell": "lstm"}), "kerasrl.DDPG"),
    ],
)
def test_refusals(make, message):
    agent = make()
    env = testing.RandomEndsEnv()
    of_dqn = isinstance(agent, kerasrl.ApexDQN)
    with pytest.raises(ValueError, match=message):
        agent.build(env.observation_space, env.action_space if of_dqn else BOX)
