"""Worker processes against the same environments in this process, and their faults."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

import gymnasium
import numpy as np
import optree
import pytest
from leftovers import left_since, shared_memory
from walks import (
    LENGTHS,
    Actor,
    Listener,
    Walk,
    assert_equal,
    begun,
    generators,
    wait_for_end,
)

from kerasrl.envs import make_envs, register_env
from kerasrl.replay import ReplayBuffer
from kerasrl.rollouts import Collector
from kerasrl.workers import LocalWorkers, make_collector, make_environments, stacks
from kerasrl.workers.shared_arrays import SharedArrays


class Faulty(Walk):
    """Does something bad in one environment, at one step."""

    def __init__(self, context):
        super().__init__(context)
        self.steps = 0

    def step(self, action):
        self.steps += 1
        if self.context["at"] == self.steps and self.context["in"] == (
            self.context.env_index
        ):
            if self.context["what"] == "raise":
                raise KeyError("no such lever")
            if self.context["what"] == "hang":
                time.sleep(600)
            if self.context["what"] == "exit":
                os._exit(3)
        return super().step(action)


def collect(envs, listens=False, length=7, rollouts=4, all_finals=False, keys=()):
    listener = Listener() if listens else None
    collector = make_collector(
        envs,
        Actor(),
        length,
        generators(envs.num_envs),
        listener=listener,
        all_finals=all_finals,
        info_keys=keys,
    )
    curiosity = np.linspace(0, 1, envs.num_envs, dtype=np.float32)
    collector.reset(list(range(50, 50 + envs.num_envs)))
    found = []
    for number in range(rollouts):
        # Weights and exploration change between rollouts.
        collector.exploration = {"curiosity": curiosity * number}
        collector.actor.program.weights[0] += np.float32(0.01)
        found.append(collector.collect())
    return found, collector.drain_episodes(), collector.env_steps, listener


@pytest.fixture(scope="module")
def expected():
    with make_envs(Walk, num_envs=5) as envs:
        return collect(envs, listens=True, keys=("place", "missing"))


# The same as in one process ------------------------------------------------------


@pytest.mark.parametrize(
    "num_workers, mode", [(1, "act"), (2, "act"), (4, "act"), (1, "step"), (3, "step")]
)
def test_collects_the_same_to_the_last_bit(num_workers, mode, expected):
    with make_environments(Walk, 5, num_workers=num_workers, worker_mode=mode) as envs:
        found = collect(envs, listens=True, keys=("place", "missing"))
    for rollout, other in zip(found[0], expected[0], strict=True):
        assert_equal(rollout, other)
    assert found[1] == expected[1] and len(found[1]) > 20
    assert found[2] == expected[2]
    assert len(found[3].heard) == len(expected[3].heard)
    for (kind, episode), (other_kind, other) in zip(
        found[3].heard, expected[3].heard, strict=True
    ):
        assert kind == other_kind
        assert_equal(episode, other)


def test_halves_that_alternate_collect_the_same_episodes(expected):
    with make_environments(Walk, 5, num_workers=2, worker_mode="alternate") as envs:
        found = collect(envs, listens=True, keys=("place", "missing"))
    for rollout, other in zip(found[0], expected[0], strict=True):
        # The policy sees fewer rows at a time, which rounds differently.
        for a, b in zip(
            optree.tree_leaves(rollout), optree.tree_leaves(other), strict=True
        ):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert [kind for kind, _ in found[3].heard] == [k for k, _ in expected[3].heard]
    assert [r.custom_metrics for r in found[1]] == [
        r.custom_metrics for r in expected[1]
    ]


@pytest.mark.parametrize("mode", ["act", "step"])
def test_every_final_observation_arrives_for_replay(mode):
    with make_envs(Walk, num_envs=5) as envs:
        expected = collect(envs, length=1, rollouts=9, all_finals=True)
    with make_environments(Walk, 5, num_workers=2, worker_mode=mode) as envs:
        found = collect(envs, length=1, rollouts=9, all_finals=True)
    for rollout, other in zip(found[0], expected[0], strict=True):
        assert_equal(rollout, other)
    assert any(rollout.final is not None for rollout in found[0])


def test_start_and_finish_leave_time_between():
    with make_environments(Walk, 4, num_workers=2) as envs:
        collector = make_collector(envs, Actor(), 5, generators(4))
        with pytest.raises(RuntimeError, match="reset"):
            collector.collect()
        collector.exploration = {"curiosity": np.zeros(4, np.float32)}
        collector.reset(range(4))
        collector.start()
        with pytest.raises(RuntimeError, match="in turn"):
            collector.start()
        # What is written now is for the next rollout.
        collector.actor.program.weights[0][:] = np.nan
        with pytest.raises(RuntimeError, match="before `start`"):
            envs.foreach(lambda env: env.length)
        assert np.isfinite(collector.finish().extras["scores"]).all()
        with pytest.raises(RuntimeError, match="in turn"):
            collector.finish()


def test_rollouts_are_new_arrays():
    with make_environments(Walk, 4, num_workers=2) as envs:
        (first, second), *_ = collect(envs, rollouts=2)
    for a, b in zip(
        optree.tree_leaves(first), optree.tree_leaves(second), strict=False
    ):
        assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(
        first.next_inputs["observations"]["vector"], second.observations["vector"][0]
    )


def test_vector_environments_in_workers():
    def factory():
        return gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")

    with make_environments(factory, 4, num_workers=2, worker_mode="step") as envs:
        assert envs.resets_on_next_step
        assert envs.reset([0, 1, 2, 3]).shape == (4, 4)
        steps = [envs.step(np.ones(4, int)) for _ in range(30)]
    # The call after an end only resets: a filler.
    fillers = sum(np.count_nonzero(~step.valid) for step in steps)
    assert fillers >= 4


# What reaches workers ------------------------------------------------------------


def test_contexts_say_which_environment_is_made():
    with make_environments(Walk, 5, {"level": 9}, num_workers=2) as envs:
        found = envs.foreach(
            lambda env: (
                env.context.worker_index,
                env.context.vector_index,
                env.context.num_workers,
                env.context.env_index,
                dict(env.context),
            )
        )
    level = {"level": 9}
    assert found == [
        (1, 0, 2, 0, level),
        (1, 1, 2, 1, level),
        (2, 0, 2, 2, level),
        (2, 1, 2, 3, level),
        (2, 2, 2, 4, level),
    ]


def test_functions_reach_workers_and_their_environments():
    offset = 10
    with make_environments(Walk, 4, num_workers=2) as envs:
        pool = envs.pool
        assert (
            pool.foreach_worker(lambda worker: worker.num_workers + offset) == [12] * 2
        )
        assert pool.foreach_worker_with_index(lambda worker, index: -index) == [-1, -2]
        assert pool.foreach_worker(lambda worker: None) == [None, None]
        assert pool.foreach_env(lambda env: env.length) == list(LENGTHS[:4])
        assert envs.foreach(lambda env: env.length) == list(LENGTHS[:4])
        envs.call("set_phase", phase=3)
        envs.set_attr("length", 8)
        assert envs.foreach(lambda env: (env.phase, env.length)) == [(3, 8)] * 4
        with pytest.raises(AttributeError, match="set_stage"):
            envs.call("set_stage")
        # An error in one worker leaves no answer behind that the next could take.
        with pytest.raises(ZeroDivisionError):
            pool.foreach_worker(lambda worker: 1 / (worker.worker_index - 1))
        assert pool.foreach_worker(lambda worker: worker.worker_index) == [1, 2]


def test_without_workers_functions_run_here():
    with make_envs(Walk, num_envs=3) as envs:
        local = LocalWorkers(envs)
        assert local.foreach_worker_with_index(
            lambda worker, i: (worker.num_workers, i)
        )
        assert local.foreach_env(lambda env: env.length) == list(LENGTHS[:3])


def test_names_registered_here_are_known_there():
    register_env("walk-of-tests", Walk)
    gymnasium.register("WalkOfTests-v0", lambda: Walk(context_of_two()))
    try:
        for name in ("walk-of-tests", "WalkOfTests-v0"):
            with make_environments(name, 2, num_workers=2) as envs:
                assert envs.name == name
                assert envs.foreach(lambda env: type(env.unwrapped).__name__) == (
                    ["Walk"] * 2
                )
    finally:
        del gymnasium.registry["WalkOfTests-v0"]


def context_of_two():
    from kerasrl.envs import EnvContext

    return EnvContext({"length": 2})


def test_workers_are_light():
    def look(worker):
        import sys

        status = open("/proc/self/status").read()
        resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        heavy = {"tensorflow", "keras", "torch", "matplotlib"} & set(sys.modules)
        return heavy, resident, sys.flags.dev_mode

    with make_environments("CartPole-v1", 4, num_workers=2) as envs:
        for heavy, resident, _ in envs.pool.foreach_worker(look):
            assert not heavy
            assert resident < 100


# Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"num_workers": 2, "num_envs": 1}, ValueError, "Every worker needs"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"num_workers": 1.0}, ValueError, "num_workers"),
        ({"num_workers": True}, ValueError, "num_workers"),
        ({"num_workers": 1, "worker_mode": "play"}, ValueError, "'act'"),
        ({"num_workers": 1, "env_timeout": 0}, ValueError, "env_timeout"),
        ({"num_workers": 1, "num_envs": 0}, ValueError, "`num_envs` must be"),
        ({"num_workers": 1, "num_envs": 2.0}, ValueError, "`num_envs` must be"),
        ({"worker_mode": "act"}, ValueError, "num_workers=0"),
        ({"env_timeout": 5}, ValueError, "num_workers=0"),
    ],
)
def test_refuses_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        make_environments("CartPole-v1", **arguments)


def test_refuses_environments_that_cannot_be_sent():
    env = Walk(context_of_two())
    with pytest.raises(TypeError, match="lambda: MyEnv"):
        make_environments(env, num_workers=1)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent"):
        make_environments(lambda: lock and env, num_workers=1)
    with pytest.raises(ValueError, match="Did you mean 'CartPole-v1'"):
        make_environments("CardPole-v1", num_workers=2)


def test_actors_in_tensorflow_do_not_go_to_workers():
    class Heavy(Actor):
        backend = "tensorflow"
        report = {"reason": "asked for"}

        def __init__(self):
            super().__init__()
            self.run, self.program = self.program.run, None

        def __call__(self, inputs, noise):
            return self.run(inputs, noise)

    with make_environments(Walk, 2, num_workers=1) as envs:
        assert type(make_collector(envs, Heavy(), 4, generators(2))) is Collector
        envs.worker_mode = "act"
        with pytest.raises(ValueError, match="worker_mode='step'"):
            make_collector(envs, Heavy(), 4, generators(2))
        envs.worker_mode = "alternate"
        with pytest.raises(ValueError, match="two halves"):
            make_collector(envs, Actor(), 4, generators(2))


# Faults --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_killed_worker_loses_its_fragment_and_nothing_else(moment):
    with make_envs(Walk, num_envs=5) as envs:
        plain = Collector(envs, Actor(), 5, generators(5), all_finals=True)
        plain.exploration = {"curiosity": np.zeros(5, np.float32)}
        plain.reset(range(5))
        expected = [plain.collect() for _ in range(3)]
    listener = Listener()
    # Slow enough to be hit while it acts.
    envs, collector = begun("act", length=5, listener=listener, config={"nap": 0.05})
    buffer = ReplayBuffer(100, envs.observation_space, envs.action_space, 5)
    with envs:
        envs.call("set_phase", 4)
        first = collector.collect()
        pid = envs.pool.pids[1]
        if moment == "before":
            os.kill(pid, signal.SIGKILL)
            assert wait_for_end(pid)
        with pytest.warns(
            RuntimeWarning, match=rf"Worker 2 \(process {pid}\).*-9 \(SIGKILL\)"
        ):
            collector.start()
            if moment == "during":
                os.kill(pid, signal.SIGKILL)
            second = collector.finish()
        heard = len(listener.heard)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Said once.
            third = collector.collect()
        assert envs.foreach(lambda env: env.phase) == [4] * 5
        assert pid not in envs.pool.pids
    own, lost = slice(0, 2), slice(2, 5)
    assert_equal(first, expected[0])
    for rollout, other in zip((second, third), expected[1:], strict=True):
        assert_equal(rollout[:, own].map(np.array), other[:, own].map(np.array))
    assert second.num_steps == 10 and not second.valid[:, lost].any()
    assert second.truncated[:, lost].all() and not second.terminated[:, lost].any()
    assert second.final is None or (second.final["env"] < 2).all()
    for name in ("vector", "flags"):
        # What followed the first rollout is known, and then comes what follows next.
        for rollout, other in ((first, second), (second, third)):
            np.testing.assert_array_equal(
                rollout.next_inputs["observations"][name], other.observations[name][0]
            )
    assert second.next_inputs["episode_starts"][lost].all()
    assert third.episode_starts[0, lost].all()
    assert third.valid.all()
    for rollout in (first, second, third):
        buffer.add(rollout)
    assert len(buffer) == 25 + 10 + 25
    # An episode that was cut off is in no statistics, and the next one starts at zero.
    records = [record for record in collector.drain_episodes()]
    assert all(record.length == LENGTHS[record.env_index] for record in records)
    begins = [e["env_index"] for kind, e in listener.heard[:heard] if kind == "begin"]
    assert begins[-3:] == [2, 3, 4]
    steps = [e for kind, e in listener.heard[heard:] if kind == "step"]
    assert min(e["length"] for e in steps if e["env_index"] == 4) == 1


@pytest.mark.parametrize("mode", ["step", "alternate"])
def test_a_killed_worker_costs_one_step_where_the_learner_acts(mode):
    envs, collector = begun(mode, config={"length": 1000})
    with envs:
        first = collector.collect()
        os.kill(envs.pool.pids[1], signal.SIGKILL)
        assert wait_for_end(envs.pool.pids[1])
        with pytest.warns(RuntimeWarning, match="Worker 2"):
            second = collector.collect()
        third = collector.collect()
    assert first.valid.all() and third.valid.all()
    expected = np.ones((4, 5), bool)
    expected[0, 2:] = False
    np.testing.assert_array_equal(second.valid, expected)
    np.testing.assert_array_equal(second.truncated, ~expected)
    assert second.final is None
    np.testing.assert_array_equal(second.episode_starts[1], ~expected[0])


def test_workers_that_die_between_are_replaced_by_requests():
    envs, collector = begun("act")
    with envs:
        collector.collect()
        os.kill(envs.pool.pids[0], signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="Worker 1"):
            assert envs.foreach(lambda env: env.length) == list(LENGTHS)
        rollout = collector.collect()
        assert not rollout.valid[:, :2].any() and rollout.valid[:, 2:].all()
        assert collector.collect().valid.all()


@pytest.mark.parametrize("mode", ["act", "step", "alternate"])
def test_an_error_shows_its_traceback_and_the_environment(mode):
    envs, collector = begun(
        mode, env=Faulty, config={"what": "raise", "at": 3, "in": 3}
    )
    with envs:
        pids = envs.pool.pids
        with pytest.raises(KeyError, match="no such lever") as caught:
            collector.collect()
    text = "".join(traceback.format_exception(caught.value))
    assert "environment 3 of 5" in text
    assert f"In worker 2 (process {pids[1]})" in text
    # The line of the environment, seen over there.
    assert 'raise KeyError("no such lever")' in text
    assert all(wait_for_end(pid) for pid in pids)


@pytest.mark.parametrize("mode", ["act", "step", "alternate", None])
def test_an_error_is_followed_by_a_reset_or_another_error(mode):
    made = {"at": 3, "in": 3, "what": "raise"}
    envs = make_environments(Faulty, 5, made, 2 if mode else 0, mode)
    collector = make_collector(envs, Actor(), 7, generators(5), info_keys=["place"])
    collector.exploration = {"curiosity": np.zeros(5, np.float32)}
    with envs:
        collector.reset([0] * 5)
        with pytest.raises(KeyError, match="no such lever"):
            collector.collect()
        with pytest.raises(RuntimeError, match="in the middle.*Call `reset`"):
            collector.collect()
        collector.reset([0] * 5)
        rollout = collector.collect()
        assert len(rollout.infos["place"]) == len(rollout.rewards) == 7
        assert rollout.valid.all()


@pytest.mark.parametrize("mode", ["act", "step"])
def test_a_hanging_environment_is_named_and_its_worker_replaced(mode):
    envs, collector = begun(
        mode,
        env=Faulty,
        config={"what": "hang", "at": 8, "in": 4},
        timeout=0.3,
    )
    with envs:
        pid = envs.pool.pids[1]
        assert collector.collect().valid.all()
        with pytest.warns(RuntimeWarning, match="Environment 4 in worker 2") as caught:
            rollout = collector.collect()
        assert f"{__file__}" in str(caught[0].message)
        assert rollout.valid[:, :2].all() and not rollout.valid[:, 2:].all()
        assert wait_for_end(pid)
        assert collector.collect().valid.all()


def test_slow_environments_do_not_hang():
    class Slow(Walk):
        def step(self, action):
            time.sleep(0.05)
            return super().step(action)

    envs, collector = begun("act", env=Slow, timeout=0.15, length=3)
    with envs:
        assert collector.collect().valid.all()


def test_a_worker_that_always_crashes_ends_the_run():
    envs, collector = begun(
        "act", env=Faulty, config={"what": "exit", "at": 2, "in": 0}
    )
    with envs, pytest.warns(RuntimeWarning, match="exit code 3"):
        with pytest.raises(RuntimeError, match="4th time in a row"):
            for _ in range(9):
                collector.collect()


# Nothing is left behind ----------------------------------------------------------

SCRIPT = """
import os, sys, time
import gymnasium, numpy as np
from kerasrl.workers import make_environments

class Sleepy(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        time.sleep(600)

# Neither a guard nor a file: what a notebook or `python -` is.
envs = make_environments(Sleepy, num_envs=2, num_workers=2, worker_mode="step")
envs.reset([0, 1])
print(*envs.pool.pids, flush=True)
envs.step(np.zeros(2, int))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_and_no_memory_outlives_the_learner(sent):
    before = shared_memory()
    learner = subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # A shell lets what it starts in the background ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    learner.stdin.write(SCRIPT)
    learner.stdin.close()
    pids = [int(pid) for pid in learner.stdout.readline().split()]
    learner.stdout.close()
    assert len(pids) == 2
    time.sleep(0.1)
    assert not left_since(before, owners=[learner.pid, *pids])
    # The workers sleep in `step`: they read nothing.
    learner.send_signal(sent)
    learner.wait(timeout=10)
    for pid in pids:
        assert wait_for_end(pid), pid
    assert not left_since(before)


def test_closing_ends_the_processes():
    envs = make_environments(Walk, 2, num_workers=2)
    pids = envs.pool.pids
    envs.close()
    envs.close()
    assert all(wait_for_end(pid) for pid in pids)


def test_workers_outlive_the_thread_that_made_them():
    made = []
    thread = threading.Thread(
        target=lambda: made.append(make_environments(Walk, 1, num_workers=1))
    )
    thread.start()
    thread.join()
    with made[0] as envs:
        envs.reset([0])
        (pid,) = envs.pool.pids
        time.sleep(0.2)
        os.kill(pid, 0)
        assert envs.step(np.zeros(1, int)).valid.all()
        assert envs.pool.pids == [pid]


# Stacks and shared arrays --------------------------------------------------------


def test_stacks_of_running_workers():
    with make_environments(Walk, 2, num_workers=2) as envs:
        assert set(envs.pool.pids) <= set(stacks.workers_of(os.getpid()))
        for pid in envs.pool.pids:
            first, second = stacks.read(pid), stacks.read(pid)
            assert "in serve" in first and "in serve" in second
            assert second.count("most recent call first") == 1


def test_processes_that_did_not_register_are_left_alone():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert stacks.read(process.pid) is None
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert stacks.read(2**22 + 1) is None


def test_shared_arrays_are_seen_by_whoever_maps_them():
    shared = SharedArrays.like(
        {
            "a": np.zeros((3, 2), np.float32),
            "b": ((), np.zeros(5, bool)),
            "c": np.int64(0),
        }
    )
    other = SharedArrays(os.dup(shared.descriptor), shared.layout)
    shared.tree["a"][1] = 7.0
    shared.tree["b"][1][4] = True
    other.tree["c"][...] = -3
    assert other.tree["a"][1, 0] == 7.0 and other.tree["b"][1].tolist()[-1]
    assert shared.tree["c"] == -3 and shared.tree["c"].shape == ()
    assert not SharedArrays.like({"empty": np.zeros((0, 3))}).tree["empty"].size
    with pytest.raises(TypeError, match="Only numbers"):
        SharedArrays.like(np.array([None]))
