"""Training with worker processes: the same runs, callbacks, faults, resume."""

import os
import signal

import numpy as np
import pytest
from daily import among

import kerasrl
from kerasrl import testing
from kerasrl.callbacks import Callback, Curriculum

SMALL = {"hidden_units": (8,)}
REPLAY = {"learning_starts": 40, "batch_size": 8, "buffer_size": 400}
PPO = {"rollout_length": 16, "num_epochs": 1, "minibatch_size": 32}
AGENTS = {
    "PPO": lambda **kw: kerasrl.PPO(
        policy={**SMALL, "normalize_observations": True}, **PPO, **kw
    ),
    "PPO_plain": lambda **kw: kerasrl.PPO(policy=SMALL, **PPO, **kw),
    "PPO_recurrent": lambda **kw: kerasrl.PPO(
        policy={**SMALL, "cell": "gru", "cell_units": 4, "previous_inputs": True},
        **PPO,
        **kw,
    ),
    "DQN": lambda **kw: kerasrl.DQN(
        policy={**SMALL, "noisy": True}, updates_per_call=4, **REPLAY, **kw
    ),
    "SAC": lambda **kw: kerasrl.SAC(policy=SMALL, updates_per_call=8, **REPLAY, **kw),
}


def make(name, seed=7, **arguments):
    agent = AGENTS[name](seed=seed, **arguments)
    agent.compile(jit_compile=False)
    return agent


def env_of(name):
    return "Pendulum-v1" if name == "SAC" else "CartPole-v1"


def assert_same(agent, other):
    for a, b in zip(agent.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert agent.get_state() == other.get_state()


def without_time(history):
    return {
        name: values
        for name, values in history.history.items()
        if name != "steps_per_second"
    }


@pytest.mark.parametrize(
    "name", among(["PPO_recurrent", "DQN", "SAC"], ["PPO_recurrent"])
)
def test_a_run_is_the_same_with_workers(name):
    runs = []
    for num_workers in (0, 2):
        agent = make(name, normalize_rewards=name == "PPO_recurrent")
        history = agent.fit(
            env_of(name),
            steps=320,
            steps_per_epoch=160,
            num_envs=5,
            num_workers=num_workers,
            verbose=0,
        )
        assert agent.actor().backend == "numpy"
        runs.append((agent, without_time(history)))
    (agent, history), (other, other_history) = runs
    if name in ("DQN", "SAC"):
        rows, other_rows = agent.buffer.get_arrays(), other.buffer.get_arrays()
        for key, array in rows.items():
            np.testing.assert_array_equal(array, other_rows[key], err_msg=key)
    assert_same(agent, other)
    np.testing.assert_equal(history, other_history)
    if name != "SAC":  # No Pendulum ends so soon.
        assert agent.episodes > 5


@pytest.mark.parametrize(
    "mode, env",
    # Observations of FrozenLake are of rank 0.
    [("step", "FrozenLake-v1"), ("alternate", "CartPole-v1")],
)
def test_runs_where_the_learner_acts(mode, env):
    agent, other = make("PPO_plain"), make("PPO_plain")
    arguments = {"steps": 160, "num_envs": 4, "verbose": 0}
    history = agent.fit(env, num_workers=2, worker_mode=mode, **arguments)
    assert np.isfinite(history.history["loss"][-1])
    other.fit(env, **arguments)
    assert agent.episodes > 0
    if mode == "step":
        assert_same(agent, other)
    assert agent.env_steps == other.env_steps


def test_resume_with_workers_is_exact(tmp_path):
    arguments = {"steps": 160, "num_envs": 4, "num_workers": 2, "verbose": 0}
    agent = make("PPO")
    agent.fit("CartPole-v1", **arguments)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    loaded.compile(optimizer=loaded.policy.optimizer, jit_compile=False)
    for each in (agent, loaded):
        each.fit("CartPole-v1", **arguments)
    assert_same(agent, loaded)


class Episodes(Callback):
    """Writes down what it hears, and a metric of its own."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def on_episode_begin(self, episode):
        episode.user_data["numbers"] = []
        self.heard.append((episode.env_index, episode.observation.tolist()))

    def on_episode_step(self, episode):
        episode.user_data["numbers"].append(episode.info["step"])

    def on_episode_end(self, episode):
        episode.custom_metrics["sum"] = sum(episode.user_data["numbers"])
        self.heard.append((episode.env_index, episode.episode_return))


class Looks(Callback):
    """Asks the workers at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        agent = self.agent
        workers = agent.workers.foreach_worker(lambda worker: worker.num_workers)
        indices = agent.workers.foreach_worker_with_index(lambda worker, index: index)
        phases = agent.workers.foreach_env(lambda env: env.unwrapped.phase)
        assert phases == agent.foreach_env(lambda env: env.unwrapped.phase)
        self.seen.append((workers, indices, phases))


def test_callbacks_with_and_without_workers():
    def harder(agent, logs):
        return agent.iterations

    found = []
    for num_workers in (0, 2):
        episodes, looks = Episodes(), Looks()
        history = make("PPO").fit(
            lambda: testing.CountingEnv(5),
            steps=192,
            steps_per_epoch=96,
            num_envs=3,
            num_workers=num_workers,
            callbacks=[episodes, Curriculum(harder, initial=7), looks],
            verbose=0,
        )
        found.append((episodes.heard, without_time(history), looks.seen))
    (heard, history, seen), (other_heard, other_history, other_seen) = found
    assert heard == other_heard and len(heard) > 30
    assert history["sum_mean"][0] == 15.0
    assert history["curriculum_phase"] == [7.0, 2.0]
    np.testing.assert_equal(history, other_history)
    # `Curriculum` comes first in the list: the phase is the next one already.
    assert seen == [([0], [0], [2] * 3), ([0], [0], [4] * 3)]
    assert other_seen == [([2, 2], [1, 2], [2] * 3), ([2, 2], [1, 2], [4] * 3)]


class Killer(Callback):
    """Kills a worker now and then, in the middle of what it does or before."""

    def __init__(self):
        super().__init__()
        self.killed = 0

    def on_train_batch_begin(self, batch, logs=None):
        if batch in (1, 3):
            pids = self.agent.workers.pids
            os.kill(pids[self.killed % len(pids)], signal.SIGKILL)
            self.killed += 1


@pytest.mark.parametrize("name", among(["PPO_recurrent", "DQN"], ["DQN"]))
def test_training_goes_on_without_killed_workers(name):
    agent, killer = make(name), Killer()
    with pytest.warns(RuntimeWarning, match="SIGKILL") as caught:
        history = agent.fit(
            "CartPole-v1",
            steps=640,
            num_envs=4,
            num_workers=2,
            callbacks=[killer],
            verbose=0,
        )
    assert killer.killed == 2
    assert len([w for w in caught if "SIGKILL" in str(w.message)]) == 2
    lost = 2 * 2 * agent.iteration_length(4)
    # Seconds lie between a kill and its effect: at most the fragments are lost.
    assert agent.env_steps == 640 - lost
    assert np.isfinite(history.history["loss"][-1])
    assert agent.episodes > 5


def test_nothing_runs_after_an_error():
    pids = []

    class Fails(Callback):
        def on_train_batch_end(self, batch, logs=None):
            pids.extend(self.agent.workers.pids)
            raise KeyboardInterrupt

    agent = make("PPO")
    with pytest.raises(KeyboardInterrupt):
        agent.fit(
            "CartPole-v1",
            steps=160,
            num_envs=2,
            num_workers=2,
            callbacks=[Fails()],
            verbose=0,
        )
    for pid in pids:
        assert not os.path.exists(f"/proc/{pid}")
    with pytest.raises(RuntimeError, match="outside fit"):
        agent.workers  # noqa: B018
    descriptors = [
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{name}")
    ]
    assert not [each for each in descriptors if "memfd:kerasrl (" in each]


def test_refused_arguments_start_nothing():
    agent = make("PPO")
    for arguments in (
        {"worker_mode": "step"},
        {"num_workers": 2, "worker_mode": "central"},
        {"num_workers": 3, "num_envs": 2},
    ):
        with pytest.raises(ValueError, match="num_workers|worker_mode"):
            agent.fit("CartPole-v1", steps=10, verbose=0, **arguments)
    with pytest.raises(TypeError, match="lambda: MyEnv"):
        agent.fit(testing.CountingEnv(), steps=10, num_workers=1, verbose=0)
