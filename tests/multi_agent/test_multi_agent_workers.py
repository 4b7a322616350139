"""Several agents in worker processes: the same rollouts, snapshots, lost workers.

Workers import this module for its environments: neither Keras nor `tiny` at the top.
"""

import contextlib
import os
import signal
import time

import numpy as np
import optree
import pytest
from test_trajectories import Hostile

import kerasrl
from kerasrl.multi_agent import make_multi_agent


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def tiny_agent(name, **arguments):
    import tiny

    return tiny.make(name, **arguments)


def rollouts_of(name, num_workers, num_envs, rounds=40, **arguments):
    """What a policy is given to learn from, and does not learn from."""
    member = tiny_agent(name, **arguments)
    agent = kerasrl.MultiAgent({"main": member}, reward="sum", seed=7)
    found = []
    member.learn_from = lambda rollout: found.append(rollout) or {}
    run = agent.iterate(
        Hostile, steps=10**6, num_envs=num_envs, num_workers=num_workers, verbose=0
    )
    episodes = []
    agent.episode_ended = episodes.append
    with contextlib.closing(run):
        for _ in zip(range(rounds), run, strict=False):
            pass
        counts = agent.env_steps, agent.agent_steps, agent.episodes
        scores = agent.statistics.logs()
    returns = [(e.env_index, e.index, e.length, e.returns) for e in episodes]
    return found, counts, scores, returns


@pytest.mark.parametrize(
    ("name", "num_envs"), [("PPO", 3), ("DQN", 5), slow("PPO_recurrent", 4)]
)
def test_workers_record_what_one_process_does(name, num_envs):
    arguments = {"rollout_length": 11} if name.startswith("PPO") else {}
    here, there = (rollouts_of(name, count, num_envs, **arguments) for count in (0, 2))
    assert here[1:] == there[1:] and len(here[0]) == len(there[0]) > 4
    assert here[1][2] > 10
    for left, right in zip(here[0], there[0], strict=True):
        assert optree.tree_structure(left) == optree.tree_structure(right)
        assert left.valid.any() and not left.valid.all() or name == "DQN"
        # The same steps. Probabilities are those of batches of another size.
        for field in ("observations", "actions", "rewards", "terminated", "valid"):
            a, b = getattr(left, field), getattr(right, field)
            assert np.array_equal(a, b), field
        pairs = zip(*map(optree.tree_leaves, (left, right)), strict=True)
        assert all(np.allclose(a, b, atol=1e-5) for a, b in pairs)


def league(seed=5):
    from kerasrl.multi_agent import MultiAgent, Opponents, RandomPolicy, either_side

    policies = {
        "main": tiny_agent("PPO"),
        "past": Opponents("main", "prioritized"),
        "random": RandomPolicy(),
    }
    return MultiAgent(policies, either_side, seed=seed)


def train(agent, steps, num_workers=2):
    from kerasrl.multi_agent import SelfPlay

    agent.fit(
        "tic_tac_toe",
        steps=steps,
        num_envs=4,
        num_workers=num_workers,
        callbacks=[SelfPlay("past", every=2)],
        verbose=0,
    )


def same(left, right):
    arrays = zip(left.get_weights(), right.get_weights(), strict=True)
    snapshots = zip(left.get_arrays()["past"], right.get_arrays()["past"], strict=True)
    return left.get_state() == right.get_state() and all(
        np.array_equal(*pair) for pair in [*arrays, *snapshots]
    )


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_self_play_repeats_and_goes_on_exactly(num_workers, tmp_path):
    first, second = league(), league()
    for agent in (first, second):
        train(agent, 400, num_workers)
    assert same(first, second)
    assert len(first.agents["past"].snapshots) > 2
    loaded = kerasrl.load(first.save(tmp_path / "league.kerasrl"))
    for agent in (first, loaded):
        train(agent, 200, num_workers)
    assert same(first, loaded)


def test_self_play_in_workers_is_that_of_one_process():
    alone, spread = league(), league()
    train(alone, 400, 0)
    train(spread, 400)
    # Batches of other sizes round otherwise, and the rest is the same.
    for left, right in zip(alone.get_weights(), spread.get_weights(), strict=True):
        assert np.allclose(left, right, atol=1e-4)
    counts = [(a.agent_steps, a.agents["past"].games) for a in (alone, spread)]
    assert counts[0] == counts[1]


def test_workers_know_no_tensorflow():
    agent = league()
    with contextlib.closing(
        agent.iterate("tic_tac_toe", 10_000, num_envs=4, num_workers=2, verbose=0)
    ) as run:
        next(run)
        found = agent.workers.foreach_worker(_heavy)
    assert found == [[], []]


def _heavy(worker):
    import sys

    return sorted({"tensorflow", "keras"} & set(sys.modules))


def test_a_worker_that_is_lost_is_replaced():
    agent = kerasrl.MultiAgent({"main": tiny_agent("PPO", rollout_length=16)}, seed=0)
    seen = []
    learn = agent.agents["main"].learn_from
    agent.agents["main"].learn_from = lambda r: seen.append(r) or learn(r)
    places, learn_all = [], agent.learn_from
    agent.learn_from = lambda r: places.extend(r.places["main"]) or learn_all(r)
    pair = make_multi_agent("CartPole-v1", 2)
    run = agent.iterate(pair, steps=2_000, num_envs=4, num_workers=2, verbose=0)
    with pytest.warns(RuntimeWarning, match="Another process takes its place. It beg"):
        for number, logs in enumerate(run):
            assert np.isfinite(logs["loss_main"])
            if number == 3:
                os.kill(agent.workers.pids[1], signal.SIGKILL)
    assert number > 6 and all(rollout.valid.any() for rollout in seen)
    # Environments of the other go on.
    assert not seen[4].episode_starts[0].all() and seen[4].episode_starts[0].any()
    places = np.concatenate([each[each[..., 0] >= 0] for each in places])
    assert len(np.unique(places, axis=0)) == len(places)


class SlowToRead:
    """A mapping whose module takes its time, as `import keras` does."""

    def __init__(self):
        self.name = "rule"

    def __setstate__(self, state):
        time.sleep(0.8)
        vars(self).update(state)

    def __call__(self, agent, episode):
        return self.name


def test_only_environments_must_answer_in_time():
    from kerasrl.multi_agent import RandomPolicy
    from kerasrl.multi_agent.hosts import HostedEnvironments
    from kerasrl.multi_agent.rules import Mapped

    making = dict.fromkeys(["worker_mode", "cluster", "env_config"])
    making |= {"num_workers": 1, "num_envs": 1, "env_timeout": 0.4}
    fields = {
        "policies": {"rule": {"rule": RandomPolicy()}},
        "find": Mapped(SlowToRead(), ["rule"]),
        "reward": "own",
        "seed": 1,
        "seeds": [[1], [2]],
    }
    with contextlib.closing(HostedEnvironments(Hostile, making)) as envs:
        # The warning of a worker that hangs would be an error.
        envs.ask("prepare", fields)
        (report,) = envs.play(3, {}, 0, [0])
        assert report["players"] == ["rule"]


class Hangs(Hostile):
    """Hangs once, in the process that was first."""

    def step(self, actions):
        if self.number % 2 and self.episode > 1 and not os.path.exists(_MARK()):
            with open(_MARK(), "w"):
                time.sleep(60)
        return super().step(actions)


def _MARK():
    return os.environ["KERASRL_TEST_MARK"]


@pytest.mark.slow
def test_an_environment_that_hangs_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASRL_TEST_MARK", str(tmp_path / "hung"))
    agent = kerasrl.MultiAgent({"main": tiny_agent("PG")}, seed=0)
    options = {"num_workers": 2, "num_envs": 4, "env_timeout": 1.0, "verbose": 0}
    with pytest.warns(RuntimeWarning, match="Another process"):
        agent.fit(Hangs, steps=1_000, **options)


class Broken(Hostile):
    """Raises in its second episode."""

    def step(self, actions):
        if self.episode:
            raise KeyError("second")
        return super().step(actions)


def test_what_workers_cannot_do_is_refused():
    def fit(env=Hostile, kind=kerasrl.MultiAgent, mapping=None, **options):
        agent = kind({"main": tiny_agent("PG"), "other": tiny_agent("PG")}, mapping)
        agent.mapping = mapping or dict.fromkeys("abcd", "main")
        options = {"steps": 400, "num_envs": 2, "num_workers": 2, **options}
        agent.fit(env, verbose=0, **options)

    class Listens(kerasrl.callbacks.Callback):
        def on_episode_end(self, episode):
            raise AssertionError

    class Own(kerasrl.MultiAgent):
        def make_player(self, name, seats):
            return super().make_player(name, seats)

    with pytest.raises(KeyError, match="second"):
        fit(Broken)
    with pytest.raises(TypeError, match="make their own environments"):
        fit(Hostile())
    with pytest.raises(ValueError, match="worker_mode='step'"):
        fit(worker_mode="step")
    with pytest.raises(ValueError, match="cluster='ray'"):
        fit(cluster="ray")
    with pytest.raises(ValueError, match="make_player, which workers cannot call"):
        fit(kind=Own)
    with pytest.raises(ValueError, match="num_workers > 0"):
        fit(callbacks=[Listens()])
    with pytest.raises(ValueError, match="which has no weights yet"):
        fit(_Uneven, mapping=lambda agent, episode: "other")


class _Uneven(Hostile):
    """Agents of different spaces, so that nobody knows for whom a policy is."""

    observation_spaces = {
        **Hostile.observation_spaces,
        "d": Hostile.action_spaces["d"],
    }
