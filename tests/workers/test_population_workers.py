"""Populations in worker processes: what one process would have found, bit for bit."""

import os
import signal

import numpy as np
import pytest
from rollouts.test_population import make_population, program

from kerasrl.workers import WorkerEnvironments, make_environments, make_player

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def play(num_workers, disturb=lambda envs: None, env=None, **making):
    from rollouts.test_population import Drawn

    env = Drawn if env is None else env
    with make_environments(env, 5, num_workers=num_workers, **making) as envs:
        state = {"seen": np.zeros(1, np.float32)}
        options = {"initial_state": state, "counts": True}
        player = make_player(envs, program(), [0, 1], True, **options)
        results = []
        for key in (5, 6):
            disturb(envs)
            population = make_population(key=key)
            tasks = list(range(1, population.num_tasks))
            results.append(player.play(population, program().weights, tasks))
        return results


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in ("returns", "lengths", "terminated"):
            np.testing.assert_array_equal(one[name], other[name])
        for name in ("means", "squares"):
            np.testing.assert_array_equal(one[name][0], other[name][0])


def test_results_are_those_of_one_process():
    assert_same(play(0), play(3))


@pytest.mark.slow
def test_a_worker_that_is_lost_between_populations_is_made_up_for():
    def disturb(envs):
        os.kill(envs.pool.pids[1], signal.SIGKILL)

    with pytest.warns(RuntimeWarning, match="takes its place. It plays the same"):
        results = play(2, disturb)
    assert_same(play(0), results)


def test_a_worker_that_is_lost_in_an_episode_is_made_up_for(tmp_path):
    from rollouts.test_population import Drawn

    mark = tmp_path / "died"

    class Dies(Drawn):
        def step(self, action):
            if self.left == 3 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step(action)

    with pytest.warns(RuntimeWarning, match="takes its place. It plays the same"):
        results = play(2, env=Dies)
    assert mark.exists()
    assert_same(play(0), results)


@pytest.mark.parametrize(
    ("mode", "listener", "message"),
    [(None, object(), "num_workers=0"), ("step", None, 'worker_mode="step"')],
)
def test_what_workers_cannot_do_is_refused(mode, listener, message):
    envs = WorkerEnvironments.__new__(WorkerEnvironments)  # Of no process.
    envs.worker_mode = mode
    with pytest.raises(ValueError, match=message):
        make_player(envs, program(), [0, 1], True, listener, initial_state=())
