"""Numbers that the learner and environments in any process share."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid

import gymnasium
import numpy as np
import pytest

import kerasrl
from kerasrl.workers import make_environments, shared_value
from kerasrl.workers.pool import WorkerPool

TIMES = 10_000


class Counting(gymnasium.Wrapper):
    """Counts its steps, together with all others."""

    def __init__(self, context):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.steps = kerasrl.SharedValue(context["name"])

    def step(self, action):
        self.steps.add(1)
        return self.env.step(action)


@pytest.fixture
def value():
    return kerasrl.SharedValue(f"value {uuid.uuid4()}")


def two_workers():
    return contextlib.closing(WorkerPool("CartPole-v1", num_workers=2, num_envs=2))


def test_in_one_process_a_name_is_one_number(value):
    same, other = kerasrl.SharedValue(value.name), kerasrl.SharedValue(f"{value.name}2")
    assert value.get() == 0.0
    assert same.add(2) == 2.0 and value.add(-0.5) == 1.5
    value.set(7)
    other.set(np.float32(0.25))
    assert (same.get(), other.get()) == (7.0, 0.25)
    assert isinstance(same.get(), float)
    assert repr(value).endswith("7.0")
    assert pickle.loads(pickle.dumps(value)).add() == 8.0


def test_nothing_is_lost_between_threads(value):
    def work():
        for _ in range(1000):
            value.add()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value.get() == 3000.0


@pytest.mark.usefixtures("nothing_is_left")
def test_nothing_is_lost_between_workers_and_the_learner(value):
    value.set(5)

    def work(env):
        for _ in range(TIMES):
            value.add()
        return os.getpid()

    name = value.name
    with two_workers() as pool:
        learner = threading.Thread(target=work, args=(None,))
        learner.start()
        pids = pool.foreach_env(work)
        learner.join()
        assert len({*pids, os.getpid()}) == 3
        assert value.get() == 5 + 3 * TIMES
        value.set(-1.5)
        read = pool.foreach_env(lambda env: kerasrl.SharedValue(name).get())
    assert read == [-1.5, -1.5]


@pytest.mark.usefixtures("nothing_is_left")
def test_a_worker_that_is_killed_leaves_no_lock(value):
    deaths = kerasrl.SharedValue(f"{value.name} deaths")

    def die_in_the_lock(env):
        from kerasrl.workers import shared_value

        if deaths.add() == 1:

            def die(*_):
                os.kill(os.getpid(), signal.SIGKILL)

            shared_value._Memory.write = die
            value.add(100)
        return value.add()

    with two_workers() as pool, pytest.warns(RuntimeWarning, match="SIGKILL"):
        pool.foreach_env(die_in_the_lock)
    # Also the process that took the place of the lost one shares it.
    assert deaths.get() == 3.0
    assert value.get() == 2.0


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_environments_add_wherever_they_are(value, num_workers):
    envs = make_environments(
        Counting, num_envs=4, env_config={"name": value.name}, num_workers=num_workers
    )
    envs.reset([0, 1, 2, 3])
    for _ in range(5):
        envs.step(np.zeros(4, np.int64))
    envs.close()
    assert value.get() == 20.0


def test_each_run_has_its_own(value):
    value.set(5)
    code = f"import kerasrl; print(kerasrl.SharedValue({value.name!r}).get())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "0.0", result.stderr


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), "1", None, True])
def test_only_numbers_are_shared(value, amount):
    value.set(1.0)
    for function in (value.add, value.set):
        with pytest.raises(ValueError, match="Expected a finite number"):
            function(amount)
    assert value.get() == 1.0


def test_a_sum_stays_finite(value):
    value.set(1e308)
    with pytest.raises(ValueError, match="the sum=inf"):
        value.add(1e308)
    assert value.get() == 1e308


def test_names(value):
    for name in ("", "n" * 245, "ä" * 123):
        with pytest.raises(ValueError, match="1 to 244 bytes"):
            kerasrl.SharedValue(name)
    with pytest.raises(TypeError, match="Expected a string"):
        kerasrl.SharedValue(5)
    longest = kerasrl.SharedValue("n" * 244)
    longest.set(3)
    assert kerasrl.SharedValue("n" * 244).get() == 3.0
    assert kerasrl.SharedValue("n" * 243).get() == 0.0


def test_processes_that_share_with_nobody_are_refused(monkeypatch):
    monkeypatch.setattr(shared_value, "_shared", None)
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "name", "Worker<AsyncVectorEnv>-0")
    with pytest.raises(RuntimeError, match="num_workers"):
        kerasrl.SharedValue("steps")


def test_a_fork_waits_for_no_thread_of_its_parent():
    """Locks that a thread held while another forked are nobody's in the child."""
    code = """
import os, signal, threading, warnings
from kerasrl.workers import shared_value
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads.
value = shared_value.SharedValue("x")
held, done = threading.Event(), threading.Event()

def hold():
    with shared_value._making, shared_value._shared._threads:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    value.add()
    os._exit(0)
_, status = os.waitpid(child, 0)
done.set()
thread.join()
assert (status, value.get()) == (0, 1.0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
