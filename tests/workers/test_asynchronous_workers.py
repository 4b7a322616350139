"""Workers that act while the learner learns."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import optree
import pytest
from walks import (
    Actor,
    Listener,
    Walk,
    ZeroActor,
    assert_equal,
    begun,
    generators,
    wait_for_end,
)

from kerasrl.actors.program import Program
from kerasrl.envs import make_envs
from kerasrl.envs.registration import WorkerShare
from kerasrl.rollouts import Collector
from kerasrl.workers import make_collector, make_environments
from kerasrl.workers.fragments import begin_generators_anew, join_fragments
from kerasrl.workers.publishing import Published
from kerasrl.workers.streaming import FragmentStream

SEEDS = list(range(4))


def by_worker(rollouts):
    """Lists of the rollouts of each worker, by its first environment."""
    found = {}
    for rollout in rollouts:
        found.setdefault(rollout.first_env, []).append(rollout)
    return found


def assert_seamless(rollouts):
    """Each fragment begins with what the one before of that worker ended on."""
    for fragments in by_worker(rollouts).values():
        for before, after in zip(fragments[:-1], fragments[1:], strict=True):
            expected = before.next_inputs["observations"]
            assert_equal(optree.tree_map(lambda x: x[0], after.observations), expected)


def test_fragments_of_each_worker_are_what_it_would_collect_alone(nothing_is_left):
    envs, collector = begun("asynchronous", num_envs=4)
    with envs:
        rollouts = by_worker([collector.collect() for _ in range(12)])
    assert sorted(rollouts) == [0, 2]
    for first, fragments in rollouts.items():
        own, share = slice(first, first + 2), WorkerShare(first // 2 + 1, 2, first, 4)
        with make_envs(Walk, 2, share=share) as alone:
            local = Collector(alone, Actor(), 4, generators(4)[own], all_finals=True)
            local.exploration = {"curiosity": np.zeros(2, np.float32)}
            local.reset(SEEDS[own])
            for fragment in fragments:
                expected = local.collect()
                version = fragment.extras.pop("policy_version")
                assert version.shape == (4, 2) and (version == 0).all()
                fragment.first_env = 0
                assert_equal(fragment, expected)


def columns_of(rollout, part, columns):
    """A part of a joined rollout as the fragment that it was."""
    fragment = rollout[:, columns]
    fragment.first_env = part
    for name in ("next_inputs", "state"):
        own = optree.tree_map(lambda x: x[columns], getattr(rollout, name))
        setattr(fragment, name, own)
    if rollout.final is not None:
        envs = rollout.final["env"]
        rows = (envs >= columns.start) & (envs < columns.stop)
        if rows.any():
            final = optree.tree_map(lambda x: x[rows], rollout.final)
            fragment.final = {**final, "env": final["env"] - columns.start}
    return fragment


def test_joined_fragments_are_those_that_would_come_alone(nothing_is_left):
    keys = ("cost", "place")
    attributes = {"num_fragments": 3, "info_keys": keys}
    envs, collector = begun("asynchronous", num_envs=4, **attributes)
    with envs:
        rollouts = [collector.collect() for _ in range(6)]
    found = []
    for rollout in rollouts:
        assert rollout.rewards.shape == (4, 6) and len(rollout.first_env) == 3
        if rollout.final is not None:
            order = list(zip(rollout.final["time"], rollout.final["env"], strict=True))
            assert order == sorted(order)
        found += [columns_of(rollout, *part) for part in rollout.parts()]
    assert collector.env_steps == sum(rollout.num_steps for rollout in rollouts) == 144
    assert_seamless(found)
    for first, fragments in by_worker(found).items():
        own, share = slice(first, first + 2), WorkerShare(first // 2 + 1, 2, first, 4)
        with make_envs(Walk, 2, share=share) as alone:
            local = Collector(
                alone, Actor(), 4, generators(4)[own], keys, all_finals=True
            )
            local.exploration = {"curiosity": np.zeros(2, np.float32)}
            local.reset(SEEDS[own])
            for fragment in fragments:
                expected = local.collect()
                del fragment.extras["policy_version"]
                fragment.first_env = 0
                for name in keys:
                    kept = expected.infos.pop(name), fragment.infos.pop(name)
                    np.testing.assert_array_equal(*kept)
                assert_equal(fragment, expected)


def test_infos_of_numbers_and_of_none_are_joined():
    rollouts = []
    with make_envs(Walk, 2) as envs:
        collector = Collector(envs, Actor(), 4, generators(2))
        collector.exploration = {"curiosity": np.zeros(2, np.float32)}
        collector.reset([0, 1])
        for first in (0, 2):
            rollouts.append(collector.collect())
            rollouts[-1].first_env = first
    rollouts[0].infos = {"said": np.array([[1.0, np.nan]] * 4)}
    rollouts[1].infos = {"said": np.array([["a", None]] * 4, object)}
    joined = join_fragments(rollouts)
    assert joined.infos["said"].tolist() == [[1.0, None, "a", None]] * 4
    assert joined.first_env == (0, 2)
    assert join_fragments(rollouts[:1]) is rollouts[0]


def test_workers_keep_what_ends_only_for_those_who_want_it(nothing_is_left):
    for wanted in ({}, {"all_finals": True}, {"listener": Listener()}):
        attributes = {"all_finals": False, **wanted}
        envs, collector = begun("asynchronous", num_envs=4, **attributes)
        with envs:
            rollouts = [collector.collect() for _ in range(8)]
            places = [
                place["fragment"]
                for stream in collector._streams
                for place in stream._shared.tree["places"]
            ]
            # What workers wrote, and what is handed out: a listener wants the first.
            sent = [
                ends_of(place["steps"], place["final"], place["num_final"][0])
                for place in places
            ]
        assert any(sent) is bool(wanted)
        kept = [
            ends_of(vars(rollout), rollout.final, None)
            for rollout in rollouts
            if rollout.final is not None
        ]
        assert any(kept) is ("all_finals" in wanted)


def ends_of(steps, final, count):
    """Whether there is a terminated step among those whose last observation is kept."""
    times, envs = final["time"][:count], final["env"][:count]
    return bool(steps["terminated"][times, envs].any())


def test_the_oldest_fragment_comes_first_however_many_one_worker_has(
    nothing_is_left, monkeypatch
):
    """Those that one worker finished before that of another come before it."""
    taken, take = [], FragmentStream.take

    def note(stream):
        fragment = take(stream)
        taken.append((fragment.report["finished"], stream.worker))
        return fragment

    monkeypatch.setattr(FragmentStream, "take", note)
    with make_environments(Uneven, 2, None, 2, "asynchronous") as envs:
        collector = make_collector(envs, ZeroActor(), 1, generators(2))
        collector.publish(0)
        collector.in_flight = 8
        collector.reset([0, 1])
        collector._ask()
        time.sleep(0.8)
        for _ in range(10):
            collector.collect()
    assert taken == sorted(taken) and {worker for _, worker in taken} == {0, 1}


def test_who_was_learnt_from_goes_on_while_others_wait(nothing_is_left):
    """Of one fragment in flight each, nobody but the last taken is without one."""
    with make_environments(Walk, 4, None, 4, "asynchronous") as envs:
        collector = make_collector(envs, ZeroActor(), 4, generators(4))
        collector.publish(0)
        collector.in_flight = 1
        collector.reset(SEEDS)
        for _ in range(9):
            taken = collector.collect().first_env
            streams = collector._streams
            assert [s.held for s in streams] == [s.own.start != taken for s in streams]
            # So that several have something when the learner comes back.
            while sum(stream.num_finished for stream in streams) < 3:
                time.sleep(0.001)


class Uneven(Walk):
    def step(self, action):
        time.sleep(0.1 if self.context.env_index else 0.05)
        return super().step(action)


def test_records_and_hooks_name_environments_among_all(nothing_is_left):
    listener = Listener()
    envs, collector = begun("asynchronous", num_envs=4, listener=listener)
    with envs:
        rollouts = [collector.collect() for _ in range(20)]
    records = collector.drain_episodes()
    assert {record.env_index for record in records} == {0, 1, 2, 3}
    ended = [episode for kind, episode in listener.heard if kind == "end"]
    assert [(e["env_index"], e["length"]) for e in ended] == [
        (r.env_index, r.length) for r in records
    ]
    assert all(r.custom_metrics["last"] == r.length for r in records)
    # Lengths are 3, 5, 4 and 1 by environment, and no episode is cut into two.
    assert all(r.length == (3, 5, 4, 1)[r.env_index] for r in records)
    assert collector.env_steps == sum(rollout.num_steps for rollout in rollouts) == 160


class VersionActor(ZeroActor):
    """Says by which weights it acts."""

    def __init__(self):
        source = (
            "def program(inputs, weights, noise):\n"
            "    count = len(inputs['previous_rewards'])\n"
            "    actions = np.zeros(count, 'int64')\n"
            "    seen = np.full(count, weights[0].mean()) * inputs['one']\n"
            "    return {'actions': actions, 'state': (), 'seen': seen}\n"
        )
        self.program = Program(source, {"np": np}, [np.zeros(1000)], [])
        self.draw = self.program.draw


def test_every_fragment_is_acted_by_one_version_and_says_which(nothing_is_left):
    with make_environments(Walk, 4, None, 2, "asynchronous") as envs:
        collector = make_collector(envs, VersionActor(), 5, generators(4))
        for version in range(40):
            collector.actor.program.weights[0][:] = version
            collector.exploration = {"one": np.ones(4)}
            collector.publish(version)
            assert version in collector.versions_in_use()
            if not version:
                collector.reset()
            oldest = min(collector.versions_in_use())
            rollout = collector.collect()
            said = rollout.extras["policy_version"]
            assert_equal(rollout.extras["seen"], said.astype(float))
            assert (said == said[0, 0]).all() and oldest <= said[0, 0] <= version
    counts = collector.drain_counts()
    assert 0 < counts["policy_lag_mean"] <= counts["policy_lag_max"] <= 39


def test_a_slow_learner_makes_actors_wait(nothing_is_left):
    """At most two fragments of each worker are ahead of the learner."""
    envs, collector = begun("asynchronous", num_envs=4)
    with envs:
        rollouts = [collector.collect() for _ in range(4)]
        time.sleep(0.2)
        began = envs.foreach(lambda env: env.episodes)
        rollouts += [collector.collect() for _ in range(4)]
        time.sleep(0.2)
        # Requests do not cost a fragment, nor change their order.
        assert envs.foreach(lambda env: env.episodes) > began
        rollouts += [collector.collect() for _ in range(4)]
    assert_seamless(rollouts)
    steps = {first: 4 * len(found) for first, found in by_worker(rollouts).items()}
    assert set(steps) == {0, 2} and abs(steps[0] - steps[2]) <= 16
    counts = collector.drain_counts()
    assert counts["actor_waiting_share"] > 0.5 and counts["queue_depth"] <= 4.0
    assert counts["discarded_share"] == 0.0


def test_methods_reach_environments_while_workers_act(nothing_is_left):
    envs, collector = begun("asynchronous", num_envs=4)
    with envs:
        rollouts = [collector.collect() for _ in range(3)]
        envs.call("set_phase", 3)
        assert envs.foreach(lambda env: env.phase) == [3] * 4
        rollouts += [collector.collect() for _ in range(6)]
    assert_seamless(rollouts)


def test_a_killed_worker_loses_its_fragment_and_nothing_else(nothing_is_left):
    config = {"nap": 0.005, "length": 6}
    envs, collector = begun("asynchronous", num_envs=4, config=config, length=8)
    with envs:
        rollouts = [collector.collect() for _ in range(4)]
        for number in range(3):
            time.sleep(0.01)
            os.kill(envs.pool.pids[number % 2], signal.SIGKILL)
            with pytest.warns(RuntimeWarning, match="Another process takes its place"):
                rollouts += [collector.collect() for _ in range(6)]
    assert all(rollout.valid.all() for rollout in rollouts)
    assert all(len(rollout.rewards) == 8 for rollout in rollouts)
    for fragments in by_worker(rollouts).values():
        for before, after in zip(fragments[:-1], fragments[1:], strict=True):
            if after.episode_starts[0].all():
                continue  # Episodes began anew, or ended just there.
            expected = before.next_inputs["observations"]
            assert_equal(optree.tree_map(lambda x: x[0], after.observations), expected)
    # Whole episodes only: what was lost in the middle is in no statistics.
    assert {record.length for record in collector.drain_episodes()} == {6}
    assert 0.0 < collector.drain_counts()["discarded_share"] < 0.5


def test_what_was_received_before_a_loss_is_of_the_episodes_before(nothing_is_left):
    """Fragments of three steps, in the middle of episodes of five, wait to be taken."""
    listener, config = Listener(), {"length": 5}
    envs, collector = begun("asynchronous", 4, 3, Walk, config, listener=listener)
    with envs:
        collector.collect()
        envs.foreach(lambda env: None)  # Now all that was begun has been received.
        for pid in envs.pool.pids:
            os.kill(pid, signal.SIGKILL)
            assert wait_for_end(pid)
        with pytest.warns(RuntimeWarning, match="Another process takes its place"):
            rollouts = [collector.collect() for _ in range(24)]
    assert sum(rollout.episode_starts[0].all() for rollout in rollouts) >= 2
    records = collector.drain_episodes()
    assert {record.length for record in records} == {5}
    ended = [episode for kind, episode in listener.heard if kind == "end"]
    assert [e["length"] for e in ended] == [5] * len(records)
    assert all(record.custom_metrics["last"] == 5 for record in records)


def test_an_environment_that_hangs_is_replaced(nothing_is_left):
    class Hanging(Walk):
        def step(self, action):
            if self.context.env_index == 3 and self.episodes == 4:
                time.sleep(600)
            return super().step(action)

    config = {"nap": 0.004}
    envs, collector = begun("asynchronous", 4, 4, Hanging, config, timeout=0.4)
    with envs, pytest.warns(RuntimeWarning, match="Environment 3 in worker 2.*hangs"):
        rollouts = [collector.collect() for _ in range(25)]
    assert all(rollout.valid.all() for rollout in rollouts)


def test_what_an_environment_raises_arrives(nothing_is_left):
    class Raising(Walk):
        def step(self, action):
            if self.context.env_index == 1 and self.episodes == 3:
                raise KeyError("no such lever")
            return super().step(action)

    envs, collector = begun("asynchronous", 4, env=Raising)
    with envs, pytest.raises(KeyError, match="no such lever"):
        for _ in range(40):
            collector.collect()


def test_nobody_reads_half_of_one_version(tmp_path):
    """A reader in another process sees constant weights only, whoever is faster."""
    weights = [np.zeros(50_000), np.zeros((300, 100))]
    published = Published.like(weights, {"epsilon": np.zeros(4)})
    reader = (
        "import pickle, sys, numpy as np\n"
        "from kerasrl.workers.publishing import Published\n"
        "from kerasrl.workers.shared_arrays import SharedArrays\n"
        f"layout = pickle.loads({pickle.dumps(published.shared.layout)!r})\n"
        "published = Published(SharedArrays(int(sys.argv[1]), layout))\n"
        "weights, exploration = published.private(slice(1, 3))\n"
        "seen = set()\n"
        "for _ in range(1500):\n"
        "    version = published.read_into(weights, exploration, slice(1, 3))\n"
        "    seen.add(version)\n"
        "    for array in (*weights, *exploration.values()):\n"
        "        assert (array == version).all(), version\n"
        "print(len(seen))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", reader, str(published.shared.descriptor)],
        pass_fds=[published.shared.descriptor],
        stdout=subprocess.PIPE,
        text=True,
    )
    version = 0
    while process.poll() is None:
        version += 1
        for array in weights:
            array[...] = version
        published.write(weights, {"epsilon": np.full(4, version)}, version)
    assert process.returncode == 0
    assert int(process.stdout.read()) > 10


def test_what_cannot_be_asked_for():
    with pytest.raises(ValueError, match="multiple of `num_workers`"):
        make_environments(Walk, 5, num_workers=2, worker_mode="asynchronous")
    with make_environments(Walk, 2, num_workers=1, worker_mode="asynchronous") as envs:
        collector = make_collector(envs, Actor(), 4, generators(2))
        with pytest.raises(RuntimeError, match="publish"):
            collector.reset()
        with pytest.raises(RuntimeError, match="reset"):
            collector.collect()


class Asking(Listener):
    """Asks environments for something in the middle of a rollout."""

    collector = None

    def on_episode_end(self, episode):
        super().on_episode_end(episode)
        self.heard.append(("answer", self.collector.envs.foreach(type)))


def test_hooks_may_ask_environments_while_workers_act(nothing_is_left):
    listener = Asking()
    envs, collector = begun("asynchronous", num_envs=4, listener=listener)
    listener.collector = collector
    with envs:
        rollouts = [collector.collect() for _ in range(12)]
    answers = [answer for kind, answer in listener.heard if kind == "answer"]
    assert len(answers) > 10 and all(len(answer) == 4 for answer in answers)
    assert_seamless(rollouts)


class Closing(Walk):
    def close(self):
        with open(self.context["path"], "a") as file:
            file.write("closed ")


def test_slow_environments_are_closed_in_the_middle_of_a_fragment(
    nothing_is_left, tmp_path
):
    config = {"path": str(tmp_path / "closed"), "nap": 0.05, "length": 99}
    envs, collector = begun("asynchronous", 4, 60, Closing, config)
    with envs, collector._apart():
        collector._ask()
        time.sleep(0.1)
    assert (tmp_path / "closed").read_text() == 4 * "closed "


def test_a_replacement_does_not_draw_what_was_drawn():
    rng = np.random.default_rng(3)
    lost = [np.random.default_rng(3)]
    begin_generators_anew(lost)
    drawn = rng.random(100)
    assert not np.isin(lost[0].random(100), drawn).any()


def test_begins_anew_after_an_error(nothing_is_left):
    class Raising(Walk):
        def step(self, action):
            if self.context.env_index == 1 and self.episodes == 3:
                raise KeyError("no such lever")
            return super().step(action)

    envs, collector = begun("asynchronous", 4, env=Raising)
    with envs:
        with pytest.raises(KeyError):
            for _ in range(40):
                collector.collect()
        collector.reset(SEEDS)
        assert collector.collect().valid.all()
