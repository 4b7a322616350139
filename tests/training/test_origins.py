"""Observations far from zero, of which float32 would tell nothing."""

import functools
import json
import os
import signal
import types
import zipfile

import daily
import gymnasium
import keras
import numpy as np
import pytest
import tiny
from envs.for_workers import NOW, Clock
from gymnasium import spaces

import kerasrl
from kerasrl import workers
from kerasrl.training import origins


class Kept(gymnasium.Wrapper):
    """Keeps what `reset` and `step` returned, in float64."""

    def __init__(self, env):
        super().__init__(env)
        self.seen = []

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.seen.append(observation)
        return observation, info

    def step(self, action):
        observation, *rest = self.env.step(action)
        self.seen.append(observation)
        return (observation, *rest)


def make(name, **arguments):
    return tiny.make(name, policy={"normalize_observations": True}, seed=0, **arguments)


def normalized(policy, observations):
    encoder = policy.encoder
    return np.asarray(encoder.normalize(0, keras.tree.flatten(observations)[0]))


def equal_weights(agent, other):
    for ours, theirs in zip(agent.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_what_is_seen_is_normalized_by_definition(name):
    """In acting, in what is learnt from, and in `predict`, as in float64."""
    env, rollouts = Kept(Clock()), []
    agent = make(name)

    class Watch(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            rollouts.append(np.array(rollout.observations))
            return rollout

    agent.fit(env, steps=200, callbacks=[Watch()], verbose=0)
    origin = float(agent.policy.encoder.origins[0][0])
    assert abs(origin - NOW) <= 128
    kept = np.concatenate(rollouts)[:, 0, 0].astype(np.float64) + origin
    # After the reset by which the origin was chosen.
    seen = np.concatenate(env.seen[1:])
    np.testing.assert_allclose(kept[:8], seen[:8], rtol=0, atol=1e-4)
    assert np.isin(np.round(kept, 3), np.round(seen, 3)).mean() > 0.95
    mean, deviation = kept.mean(), kept.std()
    assert 1.0 < deviation < 5.0
    normalizer = agent.policy.encoder.normalizers[0]
    assert abs(float(normalizer.mean[0]) + origin - mean) < 1e-3
    times = NOW + np.arange(10.0)[:, None]
    expected = (times - mean) / deviation
    shifted = (times - origin).astype(np.float32)
    np.testing.assert_allclose(
        normalized(agent.policy, shifted), expected, rtol=0, atol=1e-3
    )
    if name == "DQN":
        batch = agent.buffer.sample(100, rng=np.random.default_rng(0))
        assert np.isin(batch["observations"], np.float32(kept - origin)).all()
    outputs = agent.policy({**agent.policy.example_inputs(10), "observations": shifted})
    chosen = np.argmax(outputs["q_values" if name == "DQN" else "distribution"], -1)
    np.testing.assert_array_equal(agent.predict(times, deterministic=True), chosen)


@pytest.mark.parametrize("name", daily.among(["PPO", "DQN"], ["PPO"]))
def test_what_only_a_clock_tells_is_learnt(name):
    policy = {"hidden_units": (16,), "normalize_observations": True}
    if name == "PPO":
        agent = kerasrl.PPO(policy, rollout_length=64, num_epochs=8, seed=0)
    else:
        agent = kerasrl.DQN(
            policy, learning_starts=200, batch_size=64, gamma=0.0, seed=0
        )
    agent.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    agent.fit(Clock, steps=5_000, num_envs=8, verbose=0)
    assert agent.evaluate(Clock, episodes=16, seed=1, verbose=0)["return_mean"] > 7.0


@functools.cache
def without_workers():
    agent = make("PPO")
    agent.fit(functools.partial(Clock, True), steps=128, num_envs=4, verbose=0)
    return agent


@pytest.mark.parametrize("mode", daily.among(["act", "step", "alternate"], ["act"]))
def test_workers_see_the_same(mode):
    """Of observations whose keys are not sorted."""
    agent, alone = make("PPO"), without_workers()
    making = {"num_envs": 4, "num_workers": 2, "worker_mode": mode}
    agent.fit(functools.partial(Clock, True), steps=128, **making, verbose=0)
    if mode == "alternate":  # Rows are evaluated by halves, and round differently.
        for ours, theirs in zip(agent.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    else:
        equal_weights(agent, alone)
    shifted = [bool(np.all(w > 1e9)) for w in agent.policy.encoder.origins]
    assert shifted == [False, True]


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("nested", [False, True])
def test_vector_environments_see_the_same(mode, nested):
    """Final observations too."""
    make_env = functools.partial(Clock, nested)
    vector = gymnasium.vector.SyncVectorEnv(
        [make_env] * 2, autoreset_mode=gymnasium.vector.AutoresetMode[mode]
    )
    origin = np.array([NOW])
    seen = []
    for env in (make_env, vector):
        with kerasrl.make_envs(env, num_envs=2) as envs:
            envs.set_origins({"time": origin, "beside": None} if nested else origin)
            trees = [envs.reset([1, 2])]
            for _ in range(20):
                step = envs.step(np.zeros(2, int))
                trees += [step.observations, *step.final_observations.values()]
            seen.append([t["time"] if nested else t for t in trees])
    for ours, theirs in zip(*seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(seen[0]) == 25 and 5 < max(map(np.max, seen[0])) <= 10


def test_a_lost_worker_is_replaced_by_one_that_knows():
    with workers.WorkerEnvironments(Clock, 2, num_workers=1) as envs:
        envs.set_origins(np.array([NOW]))
        envs.reset([0, 1])
        with pytest.warns(RuntimeWarning, match="takes its place"):
            os.kill(envs.pool.pids[0], signal.SIGKILL)
            observations = envs.step(np.zeros(2, int)).observations
    assert np.abs(observations).max() <= 10


@pytest.mark.parametrize("name", daily.among(["PPO", "DQN"], ["DQN"]))
def test_saved_and_resumed_exactly(name, tmp_path):
    agent = make(name)
    agent.fit(Clock, steps=96, num_envs=2, verbose=0)
    origin = np.array(agent.policy.encoder.origins[0])
    loaded = kerasrl.load(agent.save(tmp_path / "clock.kerasrl"))
    for each in (agent, loaded):
        # Other observations would now be the first.
        make_env = functools.partial(Clock, start=NOW + 1_000)
        each.fit(make_env, steps=96, num_envs=2, verbose=0)
        np.testing.assert_array_equal(each.policy.encoder.origins[0], origin)
    equal_weights(agent, loaded)
    other = make(name)
    other.build(agent.policy.observation_space, agent.policy.action_space)
    agent.policy.save_weights(tmp_path / "clock.weights.h5")
    other.policy.load_weights(tmp_path / "clock.weights.h5")
    equal_weights(agent, other)
    assert reset(other, NOW + 1_000) == origin
    times = NOW + np.linspace(0, 10, 5)[:, None]
    np.testing.assert_array_equal(
        agent.predict(times, seed=1), loaded.predict(times, seed=1)
    )


def test_policies_from_before_have_no_origin(tmp_path):
    """Their weights are fewer, and about what was not shifted."""
    agent, other = make("PPO"), make("PPO")
    agent.policy.shifts_observations = False
    with pytest.warns(UserWarning, match="128 apart"):
        agent.fit(Clock, steps=32, num_envs=2, verbose=0)
    path = agent.save(tmp_path / "clock.kerasrl")
    _as_before(path)
    loaded = kerasrl.load(path)
    equal_weights(agent, loaded)
    loaded.save(path)
    agent.policy.save_weights(tmp_path / "clock.weights.h5")
    other.build(agent.policy.observation_space, agent.policy.action_space)
    other.policy.load_weights(tmp_path / "clock.weights.h5")
    assert reset(other, NOW) == 0.0
    np.testing.assert_array_equal(
        other.policy.encoder.normalizers[0].mean,
        agent.policy.encoder.normalizers[0].mean,
    )


def _as_before(path):
    """Takes out of a checkpoint what was not there before."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (name,) = [name for name in members if b"shifts_observations" in members[name]]
    config = json.loads(members[name])
    del config["config"]["policy"]["build_config"]["shifts_observations"]
    members[name] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


@pytest.mark.parametrize("start", [-16_000.0, 1e16, 3e38])
def test_only_what_is_far_away_is_shifted(start):
    agent = make("PPO")
    env = Kept(Clock(start=start))
    resets = []
    env.reset = lambda **kwargs: resets.append(kwargs) or Kept.reset(env, **kwargs)
    agent.build(env.observation_space, env.action_space)
    if start < 1e15:
        agent.fit(env, steps=8, verbose=0)
        assert [r["seed"] for r in resets if "seed" in r] == [resets[0]["seed"]]
    else:
        with pytest.raises(ValueError, match="beyond 1e\\+15"):
            agent.fit(env, steps=8, verbose=0)
    assert not np.any(agent.policy.encoder.origins[0])


def reset(agent, first):
    """The origin after a reset, and after what it was shifted by is looked at."""
    seen = []
    with kerasrl.make_envs(functools.partial(Clock, start=first), num_envs=1) as envs:
        agent.build(envs.observation_space, envs.action_space)
        collector = types.SimpleNamespace(
            reset=lambda seeds: seen.append(envs.reset(seeds)),
            observations=np.array([[first]], np.float32),
        )
        origins.reset(agent, envs, collector, [3])
    origin = float(agent.policy.encoder.origins[0][0])
    assert abs(float(seen[-1][0, 0]) - (first - origin) - 5) <= 5
    return origin


def test_ranks_take_the_origin_of_the_first(monkeypatch):
    agent = make("PPO")
    monkeypatch.setattr(
        agent.replicas, "gather_data", lambda data: [[[NOW - 640.0]], data]
    )
    assert reset(agent, NOW) == NOW - 640.0


def test_bounds_are_told_as_the_space_has_them():
    class Bounded(Clock):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Box(NOW, NOW + 5, (1,), np.float64)

    with kerasrl.make_envs(Bounded, num_envs=1) as envs:
        envs.set_origins(np.array([NOW]))
        with pytest.warns(UserWarning, match=r"17000000\d\d\.\d+.*to 1700000005\.0"):
            for seed in range(9):
                envs.reset([seed])


def test_origins_are_of_the_leaves_around_a_mask():
    """Parts before it in the order of keys may have leaves of their own."""

    class Masked(Clock):
        def __init__(self):
            super().__init__()
            part = self.observation_space
            inner = spaces.Dict({"x": part, "y": part})
            mask = spaces.MultiBinary(int(self.action_space.n))
            self.observation_space = spaces.Dict(
                {"a": inner, "action_mask": mask, "z": part}
            )

        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return self._all(observation), info

        def step(self, action):
            observation, *rest = super().step(action)
            return self._all(observation), *rest

        def _all(self, observation):
            mask = np.ones(self.action_space.n, np.int8)
            inner = {"x": observation, "y": observation}
            return {"a": inner, "action_mask": mask, "z": observation}

    agent = make("PPO")
    agent.fit(Masked(), steps=32, verbose=0)
    origins_of = [float(origin[0]) for origin in agent.policy.encoder.origins]
    assert all(abs(origin - NOW) <= 128 for origin in origins_of)
    assert len(origins_of) == 3
