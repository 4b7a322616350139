"""Environments that crash, hang, fork, exit or say what cannot be sent, in workers.

Whatever they do ends in one clear error, or goes on with a warning. It never hangs and
leaves no process, no shared memory and no file descriptor behind.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback

import gymnasium
import numpy as np
import optree
import pytest
from daily import among
from envs.bad_environments import OBSERVATION_SPACES, BadEnv
from walks import Actor, Listener, Walk, ZeroActor, begun, generators, wait_for_end

from kerasrl.envs import make_envs
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.rollouts import Collector
from kerasrl.workers import make_collector, make_environments, pool
from kerasrl.workers.pool import WorkerPool

MODES = ["act", "step", "alternate"]
pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def few_losses(monkeypatch):
    monkeypatch.setattr(pool, "_MAX_LOSSES", 1)


def fork_unseen():
    """What a library does: Python does not notice."""
    if ctypes.CDLL(None).fork() == 0:
        time.sleep(600)


def fork_and_return():
    os.fork()


def crash():
    ctypes.string_at(0)


def close_everything():
    os.closerange(3, 256)


def close_output():
    sys.stdout.close()
    os.close(1)


class Trouble(Walk):
    """Does something in one of its calls, in one environment.

    `env_config`: `what` to do, in which call (`place`), in its how manieth (`at`), and
    in which environment (`who`).
    """

    def __init__(self, context):
        super().__init__(context)
        self.counts = {}
        self.handle = context.get("handle")
        self.note("init")

    def note(self, place):
        count = self.counts[place] = self.counts.get(place, 0) + 1
        if (
            place == self.context.get("place", "step")
            and count == self.context.get("at", 3)
            and self.context.env_index == self.context.get("who", 3)
        ):
            self.context["what"]()

    def reset(self, seed=None, options=None):
        self.note("reset")
        return super().reset(seed=seed)

    def step(self, action):
        self.note("step")
        return super().step(action)

    def set_phase(self, phase):
        self.note("call")
        super().set_phase(phase)

    def close(self):
        self.note("close")


def trouble(mode, what, place="step", at=3, who=3, timeout=None, listener=None):
    return begun(
        mode,
        num_envs=4,
        env=Trouble,
        config={"what": what, "place": place, "at": at, "who": who},
        timeout=timeout,
        listener=listener,
    )


# Exceptions ----------------------------------------------------------------------


class Two(Exception):
    """Can be written, but not read."""

    def __init__(self, first, second):
        super().__init__("two things")


class Silent(Exception):
    def __str__(self):
        raise ValueError("nothing to say")


class Own(BaseException):
    pass


def holds_a_lock():
    error = ValueError("holds a lock")
    error.lock = threading.Lock()
    return error


@pytest.mark.parametrize("workers", [1, 2])
def test_exceptions_of_every_kind_arrive(workers):
    kinds = [
        (lambda: KeyError("no such lever"), KeyError, "no such lever"),
        (lambda: StopIteration("stop"), StopIteration, "stop"),
        (lambda: TimeoutError("late"), TimeoutError, "late"),
        (lambda: BrokenPipeError("pipe"), BrokenPipeError, "pipe"),
        (lambda: MemoryError("full"), MemoryError, "full"),
        (lambda: RecursionError("deep"), RecursionError, "deep"),
        (lambda: ExceptionGroup("all", [ValueError(1)]), ExceptionGroup, "all"),
        (holds_a_lock, RuntimeError, "ValueError: holds a lock"),
        (lambda: Two(1, 2), RuntimeError, "two things"),
        (lambda: Silent(1), Exception, None),
        (lambda: SystemExit(0), RuntimeError, "SystemExit: 0"),
        (lambda: KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt"),
        (lambda: GeneratorExit(), RuntimeError, "GeneratorExit"),
        (lambda: Own("own"), RuntimeError, "Own: own"),
    ]
    with make_environments(Walk, 2, num_workers=workers) as envs:
        pids = envs.pool.pids
        for make, expected, message in kinds:

            def fail(env, make=make):
                raise make()

            with pytest.raises(expected, match=message) as caught:
                envs.foreach(fail)
            assert type(caught.value) is not pool.WorkerLost
            text = "".join(traceback.format_exception(caught.value))
            assert f"In worker 1 (process {pids[0]})." in text
            assert "in fail" in text
            # No answer is left that the next request could take for its own.
            assert envs.foreach(lambda env: env.phase) == [0, 0]
        assert envs.pool.pids == pids


@pytest.mark.parametrize("mode", MODES)
def test_an_environment_that_exits_is_an_error(mode):
    envs, collector = trouble(mode, sys.exit)
    with envs, pytest.raises(EnvProtocolError, match="step 3.*sys.exit") as caught:
        collector.collect()
    text = "".join(traceback.format_exception(caught.value))
    assert "In worker 2" in text and 'self.note("step")' in text


@pytest.mark.parametrize("place", ["init", "reset", "call"])
def test_it_may_exit_anywhere(place):
    config = {"what": sys.exit, "place": place, "at": 1, "who": 1}
    with pytest.raises((RuntimeError, EnvProtocolError), match="(?i)exit"):
        with make_environments(Trouble, 2, config, num_workers=2) as envs:
            envs.reset([0, 1])
            envs.call("set_phase", 1)


@pytest.mark.parametrize(
    "what, message",
    [
        (lambda: 1 / 0, "Environment 3 .* could not be closed.*ZeroDivisionError"),
        (sys.exit, "(?s)could not be closed.*SystemExit"),
    ],
)
def test_environments_that_cannot_be_closed(what, message):
    envs, collector = trouble("act", what, "close", at=1)
    collector.collect()
    with pytest.warns(UserWarning, match=message):
        envs.close()
    envs.close()


def test_closing_does_not_wait_for_ever():
    envs, _ = trouble("act", lambda: time.sleep(600), "close", at=1)
    start = time.monotonic()
    envs.close()
    assert time.monotonic() - start < 10


# Crashes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode, what, message",
    [
        ("act", lambda: os._exit(3), r"exit code 3\."),
        pytest.param(
            *("step", lambda: os._exit(3), r"exit code 3\."), marks=pytest.mark.slow
        ),
        pytest.param(
            *("alternate", lambda: os._exit(3), r"exit code 3\."),
            marks=pytest.mark.slow,
        ),
        ("act", crash, "(?s)SIGSEGV.*in crash.*in step"),
        ("step", lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        ("act", close_everything, "exit code"),
    ],
)
def test_environments_that_always_crash_end_the_run(mode, what, message, few_losses):
    envs, collector = trouble(mode, what)
    with envs, pytest.warns(RuntimeWarning, match=message):
        with pytest.raises(RuntimeError, match="2th time in a row") as caught:
            for _ in range(9):
                collector.collect()
    assert caught.match(message)


@pytest.mark.parametrize("place", ["init", "reset"])
def test_crashes_before_the_first_step(place, few_losses):
    config = {"what": lambda: os._exit(3), "place": place, "at": 1, "who": 1}
    with pytest.raises(RuntimeError, match="exit code 3") as caught:
        with make_environments(Trouble, 2, config, num_workers=2) as envs:
            with pytest.warns(RuntimeWarning, match="exit code 3"):
                envs.reset([0, 1])
    assert ("making its environments" in str(caught.value)) == (place == "init")


@pytest.mark.parametrize("mode", among(["act", "step"], ["act"]))
def test_crashes_now_and_then_are_put_up_with(mode, few_losses):
    envs, collector = trouble(mode, lambda: os._exit(3), at=9)
    with envs, pytest.warns(RuntimeWarning, match="exit code 3") as caught:
        envs.pool.healthy_steps = 8
        rollouts = [collector.collect() for _ in range(9)]
    assert len(caught) == 3 + (mode == "step")
    assert sum(rollout.valid.all() for rollout in rollouts) == 9 - len(caught)


@pytest.mark.parametrize("mode", among(MODES, ["act"]))
def test_a_worker_lost_before_the_first_rollout(mode):
    envs, collector = begun(mode, num_envs=4)
    with envs:
        os.kill(envs.pool.pids[0], signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="Worker 1"):
            rollout = collector.collect()
        assert not rollout.valid[0, :2].any() and rollout.valid[:, 2:].all()
        assert rollout.valid[1:].all() == (mode != "act")
        assert collector.collect().valid.all()


@pytest.mark.parametrize("mode", among(["act", "step"], ["act"]))
@pytest.mark.parametrize("moment", ["reset", "share_fragment", "share_steps"])
def test_a_worker_lost_while_it_gets_ready(mode, moment, monkeypatch):
    """It has just ended when it is asked for something, once."""
    send, killed = WorkerPool.send, []

    def send_and_kill(self, index, message, descriptor=None):
        if message[0] == moment and not killed:
            killed.append(index)
            os.kill(self.pids[index], signal.SIGKILL)
            assert wait_for_end(self.pids[index])
        send(self, index, message, descriptor)

    with make_envs(Walk, num_envs=4) as envs:
        plain = Collector(envs, Actor(), 4, generators(4))
        plain.exploration = {"curiosity": np.zeros(4, np.float32)}
        plain.reset(range(4))
        expected = plain.collect()
    monkeypatch.setattr(WorkerPool, "send", send_and_kill)
    if moment == "reset":
        with pytest.warns(RuntimeWarning, match="Worker 1"):
            envs, collector = begun(mode, num_envs=4)
    else:
        envs, collector = begun(mode, num_envs=4)
    happens = moment == "reset" or (moment == "share_steps") == (mode == "step")
    with envs:
        if happens and moment != "reset":
            with pytest.warns(RuntimeWarning, match="Worker 1"):
                rollout = collector.collect()
            assert not rollout.valid[0, :2].any() and rollout.valid[:, 2:].all()
        else:
            rollout = collector.collect()
            # Begun again from the same seeds, as if nothing had been.
            np.testing.assert_array_equal(rollout.rewards, expected.rewards)
        assert collector.collect().valid.all()
    assert len(killed) == happens


def test_info_keys_of_a_lost_worker():
    with make_environments(Walk, 4, num_workers=2) as envs:
        collector = make_collector(
            envs, Actor(), 3, generators(4), info_keys=("place",)
        )
        collector.exploration = {"curiosity": np.zeros(4, np.float32)}
        collector.reset(range(4))
        os.kill(envs.pool.pids[0], signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="Worker 1"):
            places = collector.collect().infos["place"]
        assert np.isnan(places[:, :2]).all() and not np.isnan(places[:, 2:]).any()


def test_infos_of_a_lost_worker():
    with make_environments(Walk, 4, num_workers=2) as envs:
        envs.reset(range(4))
        step = envs.step(np.zeros(4, int))
        os.kill(envs.pool.pids[0], signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="Worker 1"):
            infos = step.infos
        assert infos[:2] == [{}, {}] and all(info["place"] == 1 for info in infos[2:])


# Processes of environments -------------------------------------------------------


@pytest.mark.parametrize("mode", among(MODES, ["step"]))
def test_a_killed_worker_whose_environment_had_forked(mode):
    """The fork holds all that the worker held."""
    envs, collector = trouble(mode, fork_unseen, "init", at=1)
    with envs:
        collector.collect()
        pid = envs.pool.pids[1]
        os.kill(pid, signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match="Worker 2.*SIGKILL"):
            collector.collect()
        # The fork of the worker that took its place is to be found after the end.
        assert collector.collect().valid.all()
        assert wait_for_end(pid)


def test_a_fork_that_goes_on_does_not_answer():
    envs, collector = trouble("step", fork_and_return)
    with envs:
        for _ in range(3):
            assert collector.collect().valid.all()


def test_environments_may_close_the_output():
    envs, collector = trouble("act", close_output)
    with envs:
        assert collector.collect().valid.all() and collector.collect().valid.all()


# Time ----------------------------------------------------------------------------


def test_environments_that_hang_while_they_are_made():
    config = {"what": lambda: time.sleep(600), "place": "init", "at": 1, "who": 1}
    with pytest.raises(RuntimeError, match="(?s)Worker 2.*hangs.*note.*was making"):
        make_environments(Trouble, 2, config, num_workers=2, env_timeout=1.0)


def test_time_to_start_does_not_count():
    """Nor does what the factory imports."""
    with make_environments(Walk, 2, num_workers=2, env_timeout=0.05) as envs:
        assert envs.foreach(lambda env: env.phase) == [0, 0]


def test_methods_that_hang(few_losses):
    envs, _ = trouble("act", lambda: time.sleep(600), "call", at=1, timeout=0.3)
    with envs, pytest.warns(RuntimeWarning, match="Environment 3 in worker 2"):
        with pytest.raises(RuntimeError, match="(?s)Environment 3.*2th time"):
            envs.call("set_phase", 1)


class Slow(gymnasium.Env):
    observation_space = OBSERVATION_SPACES["vector"]
    action_space = gymnasium.spaces.Discrete(3)
    hangs = False

    def reset(self, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        time.sleep(600 if self.hangs else 0.05)
        return np.zeros(4, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("mode", among(["act", "step"], ["step"]))
def test_vector_environments_that_do_not_hang(mode):
    def factory():
        return gymnasium.vector.SyncVectorEnv([Slow, Slow])

    with make_environments(
        factory, 4, num_workers=2, worker_mode=mode, env_timeout=0.5
    ) as envs:
        collector = make_collector(envs, ZeroActor(), 12, generators(4))
        collector.reset(range(4))
        # 12 steps of 0.1 seconds: longer than `env_timeout`, but none of them alone.
        assert collector.collect().valid.all()
        envs.set_attr("hangs", True)
        with pytest.warns(RuntimeWarning, match="(?s)Worker.*hangs.*in step") as seen:
            envs.pool.env_timeout = 0.3
            rollout = collector.collect() if mode == "act" else None
            if mode == "step":
                envs.step(np.zeros(4, np.int64))
        assert len(seen) == 2
        assert rollout is None or not rollout.valid.any()


# Infos and observations ----------------------------------------------------------


class Says(Walk):
    """Puts something into the infos of environment 3: of resets, or of every step."""

    def __init__(self, context):
        super().__init__(context)
        self.total = [0]

    def reset(self, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation, self.add(info, "reset")

    def step(self, action):
        *result, info = super().step(action)
        self.total[0] += 1
        return *result, {**self.add(info, "step"), "total": self.total}

    def add(self, info, place):
        if place == self.context.get("place") and self.context.env_index == 3:
            info["camera"] = {"lock": threading.Lock()}
        return info


@pytest.mark.parametrize("mode", among(MODES, ["act"]))
@pytest.mark.parametrize("place", ["reset", "step"])
def test_infos_that_cannot_be_sent_are_named(mode, place):
    envs, collector = begun(
        mode, 4, env=Says, config={"place": place}, listener=Listener()
    )
    message = r"Environment 3 .*\['camera'\]\['lock'\].*num_workers=0"
    with envs, pytest.raises(TypeError, match=message):
        collector.collect()
        collector.collect()


@pytest.mark.parametrize("mode", among(MODES, ["act"]))
def test_infos_that_nobody_reads_are_not_sent(mode):
    for place in ("reset", "step"):
        envs, collector = begun(mode, 4, env=Says, config={"place": place})
        with envs:
            assert collector.collect().valid.all()


def test_infos_arrive_as_they_were_in_their_step():
    """The environment goes on to write into what it returned."""
    listener = Listener()
    envs, collector = begun("act", 2, length=6, env=Says, listener=listener)
    with envs:
        collector.collect()
    totals = [
        episode["info"]["total"][0]
        for kind, episode in listener.heard
        if kind == "step" and episode["env_index"] == 0
    ]
    assert totals == [1, 2, 3, 4, 5, 6]


class Everything(BadEnv):
    """Sound; its observations are of every space."""

    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Dict(OBSERVATION_SPACES)


def test_final_observations_of_every_space():
    """With leaves of rank 0, too: `Discrete`."""
    actions = np.zeros(2, int)
    with make_envs(Everything, 2) as here:
        here.reset([0, 1])
        expected = [here.step(actions) for _ in range(5)]
    assert any(step.final_observations for step in expected)
    with make_environments(Everything, 2, num_workers=1) as envs:
        envs.reset([0, 1])
        for other in expected:
            step = envs.step(actions)
            assert step.final_observations.keys() == other.final_observations.keys()
            for found, wanted in zip(
                optree.tree_leaves((step.observations, step.final_observations)),
                optree.tree_leaves((other.observations, other.final_observations)),
                strict=True,
            ):
                np.testing.assert_array_equal(found, wanted)
