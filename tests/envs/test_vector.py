"""The adapter for gymnasium's vector environments."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from kerasrl import testing
from kerasrl.envs import VectorEnvironments, make_envs

MODES = list(AutoresetMode)


def counting(lengths, mode, **options):
    return SyncVectorEnv(
        [lambda n=n: testing.CountingEnv(n) for n in lengths],
        autoreset_mode=mode,
        **options,
    )


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_modes_that_reset_at_once(mode, copy):
    envs = make_envs(counting((2, 3), mode, copy=copy))
    assert envs.reset([0, 0]).tolist() == [[0, 0], [0, 0]]
    actions = np.zeros(2, int)
    step = envs.step(actions)
    assert not step.any_ended and step.final_observations == {}
    assert step.observations.tolist() == [[0, 1], [0, 1]]
    step = envs.step(actions)
    kept = step.final_observations[0]
    assert step.any_ended and list(step.final_observations) == [0]
    assert kept.tolist() == [0, 2]
    assert step.observations.tolist() == [[1, 0], [0, 2]]
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, False]
    assert step.rewards.tolist() == [2, 2] and step.rewards.dtype == np.float32
    assert step.valid.all()
    step = envs.step(actions)
    assert kept.tolist() == [0, 2]
    assert step.observations.tolist() == [[1, 1], [1, 0]]
    step = envs.step(actions)
    assert step.truncated.tolist() == [True, False]
    assert step.final_observations[0].tolist() == [1, 2]


def test_next_step_mode_reports_fillers():
    envs = make_envs(counting((2, 3), AutoresetMode.NEXT_STEP))
    envs.reset([0, 0])
    actions = np.zeros(2, int)
    envs.step(actions)
    step = envs.step(actions)
    assert step.terminated.tolist() == [True, False] and step.valid.all()
    assert step.final_observations[0].tolist() == [0, 2]
    step = envs.step(actions)
    assert step.valid.tolist() == [False, True]
    assert step.truncated.tolist() == [True, False]
    assert step.terminated.tolist() == [False, True]
    assert step.rewards.tolist() == [0, 3]
    assert list(step.final_observations) == [1]
    assert step.observations[0].tolist() == [1, 0]
    assert step.any_ended
    step = envs.step(actions)
    assert step.valid.tolist() == [True, False]
    assert step.observations.tolist() == [[1, 1], [1, 0]]
    # A full reset forgets that an environment was about to reset.
    step = envs.step(actions)
    assert step.truncated.tolist() == [True, False]
    envs.reset([0, 0])
    assert envs.step(actions).valid.all()


@pytest.mark.parametrize("mode", MODES)
def test_infos_per_environment(mode):
    envs = make_envs(counting((2, 3), mode))
    envs.reset([0, 0])
    assert envs.reset_infos == [{"episode_number": 0}] * 2
    actions = np.array([1, 0])
    step = envs.step(actions)
    assert step.infos == [{"step": 1, "action": 1}, {"step": 1, "action": 0}]
    assert step.infos is step.infos
    infos = envs.step(actions).infos
    assert infos[1] == {"step": 2, "action": 0}
    if mode is AutoresetMode.NEXT_STEP:
        assert infos[0] == {"step": 2, "action": 1}
        infos = envs.step(actions).infos
        assert infos[0] == {"reset_info": {"episode_number": 1}}
    else:
        assert infos[0] == {"step": 2, "action": 1, "reset_info": {"episode_number": 1}}


@pytest.mark.parametrize("mode", MODES)
def test_nested_spaces(mode):
    vector_env = SyncVectorEnv(
        [lambda: testing.NestedEnv(2, nested_actions=True)] * 2, autoreset_mode=mode
    )
    envs = make_envs(vector_env)
    observations = envs.reset([0, 1])
    assert observations["vector"].dtype == np.float32
    assert observations["image"].dtype == np.uint8
    actions = {
        "choice": np.array([0, 1]),
        "moves": (np.full((2, 2), 9.0, np.float32), np.ones((2, 3), int)),
    }
    step = envs.step(actions)
    assert step.rewards.tolist() == [1, 0]
    np.testing.assert_array_equal(step.infos[0]["action"]["moves"][0], [1.0, 1.0])
    step = envs.step(actions)
    final = step.final_observations[1]
    assert final["vector"].tolist() == [2, -2, 1]
    assert final["vector"].dtype == np.float32
    assert final["image"].shape == (8, 8, 3) and (final["image"] == 2).all()
    assert final["choices"][0] == 2 and final["choices"][1].tolist() == [0, 2]


@pytest.mark.parametrize("mode", MODES)
def test_async(mode):
    """Other processes: the same steps as in this one."""

    def steps(vector_class, **options):
        vector_env = vector_class(
            [testing.CountingEnv, testing.RandomEndsEnv],
            observation_mode="different",
            autoreset_mode=mode,
            **options,
        )
        envs = make_envs(vector_env)
        try:
            result = [envs.reset([5, 6]).tolist()]
            for _ in range(25):
                step = envs.step(np.array([0, 1]))
                finals = step.final_observations
                result.append(
                    [
                        step.observations.tolist(),
                        step.rewards.tolist(),
                        step.terminated.tolist(),
                        step.truncated.tolist(),
                        step.valid.tolist(),
                        {env: final.tolist() for env, final in finals.items()},
                    ]
                )
            if vector_class is AsyncVectorEnv:
                with pytest.raises(TypeError, match="`call"):
                    envs.foreach(lambda env: env)
        finally:
            vector_env.close()
        return result

    assert steps(AsyncVectorEnv, context="spawn") == steps(SyncVectorEnv)


def test_reaching_every_environment():
    envs = make_envs(counting((2, 3), AutoresetMode.SAME_STEP))
    assert envs.foreach(lambda env: env.length) == [2, 3]
    assert envs.call("set_phase", 3) == [0, 0]
    assert envs.foreach(lambda env: env.phase) == [3, 3]
    envs.set_attr("phase", [7, 8])
    assert envs.foreach(lambda env: env.phase) == [[7, 8]] * 2
    with pytest.raises(AttributeError, match="fase"):
        envs.set_attr("fase", 1)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs.env)
    envs = make_envs(wrapped)
    assert envs.foreach(lambda env: env.length) == [2, 3]
    assert envs.call("set_phase", 1) == [[7, 8]] * 2


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_wrapped_observations(mode):
    """A wrapper that changes observations changes final observations too.

    gymnasium refuses such wrappers in SAME_STEP mode.
    """
    vector_env = gymnasium.wrappers.vector.TransformObservation(
        counting((2, 3), mode),
        lambda observations: observations + 100.0,
        single_observation_space=spaces.Box(0, np.inf, (2,), np.float64),
        observation_space=spaces.Box(0, np.inf, (2, 2), np.float64),
    )
    envs = make_envs(vector_env)
    assert envs.reset([0, 0]).tolist() == [[100, 100]] * 2
    envs.step(np.zeros(2, int))
    step = envs.step(np.zeros(2, int))
    assert step.final_observations[0].tolist() == [100, 102]
    first = [100, 102] if mode is AutoresetMode.NEXT_STEP else [101, 100]
    assert step.observations.tolist() == [first, [100, 102]]
    assert step.observations.dtype == np.float32


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_wrapped_infos(mode):
    vector_env = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        counting((2, 3), mode)
    )
    envs = make_envs(vector_env)
    envs.reset([0, 0])
    envs.step(np.zeros(2, int))
    step = envs.step(np.zeros(2, int))
    assert step.final_observations[0].tolist() == [0, 2]
    episode = step.infos[0]["episode"]
    assert episode["r"] == 3.0 and episode["l"] == 2
    assert "episode" not in step.infos[1]


def test_batched_simulation():
    """gymnasium's own CartPole vector environment, against itself by hand."""

    def make():
        return gymnasium.make_vec(
            "CartPole-v1", 4, vectorization_mode="vector_entry_point"
        )

    vector_env = make()
    envs, by_hand = make_envs(vector_env), make()
    assert envs.name == "CartPole-v1" and envs.num_envs == 4
    first = envs.reset([9, 1, 1, 1])
    expected, _ = by_hand.reset(seed=9)
    np.testing.assert_array_equal(first, expected)
    rng, resetting, fillers = np.random.default_rng(0), np.zeros(4, bool), 0
    for _ in range(120):
        actions = rng.integers(2, size=4)
        step = envs.step(actions)
        expected = by_hand.step(actions)
        np.testing.assert_array_equal(step.observations, expected[0])
        np.testing.assert_array_equal(step.rewards, expected[1])
        np.testing.assert_array_equal(step.terminated, expected[2])
        np.testing.assert_array_equal(step.valid, ~resetting)
        np.testing.assert_array_equal(step.truncated, expected[3] | resetting)
        fillers += resetting.sum()
        resetting = expected[2] | expected[3]
    assert fillers > 5
    with pytest.raises(TypeError, match="`call"):
        envs.foreach(lambda env: env)
    envs.set_attr("gravity", 1.5)
    assert vector_env.gravity == 1.5
    with pytest.raises(AttributeError, match="gravitas"):
        envs.set_attr("gravitas", 1.0)
    with pytest.raises(AttributeError, match="set_phase"):
        envs.call("set_phase", 1)


class Custom(VectorEnv):
    """A simulation of two counters in one object."""

    num_envs = 2
    single_observation_space = spaces.Box(0, 9, (1,), np.float32)
    observation_space = spaces.Box(0, 9, (2, 1), np.float32)
    single_action_space = spaces.Discrete(2)
    action_space = spaces.MultiDiscrete([2, 2])
    phase = 0

    def __init__(self, mode=None, final_obs="batched"):
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.final_obs = final_obs

    def set_phase(self, phase):
        self.phase = phase
        return "set"

    def reset(self, *, seed=None, options=None):
        self.steps = np.zeros((2, 1), np.float32)
        return self.steps.copy(), {}

    def step(self, actions):
        self.steps += [[1], [2]]
        ended = self.steps[:, 0] >= 4
        infos = {}
        if ended.any() and self.final_obs == "batched":
            infos = {"final_obs": self.steps.copy(), "_final_obs": ended}
        self.steps[ended] = 0
        return self.steps.copy(), np.ones(2), ended, np.zeros(2, bool), infos


def test_custom_vector_environment():
    envs = make_envs(Custom("SameStep"))
    assert envs.autoreset_mode is AutoresetMode.SAME_STEP and envs.name == "Custom"
    envs.reset()
    envs.step(np.zeros(2, int))
    step = envs.step(np.zeros(2, int))
    assert step.observations.tolist() == [[2], [0]]
    assert step.final_observations[1].tolist() == [4]
    assert step.infos == [{}, {"reset_info": {}}]
    assert envs.call("set_phase", 2) == ["set"] and envs.env.phase == 2


@pytest.mark.parametrize("mode", [None, "sometimes", 3])
def test_unknown_autoreset_mode_is_refused(mode):
    with pytest.raises(ValueError, match="AutoresetMode: set metadata"):
        make_envs(Custom(mode))


def test_missing_final_observation_is_refused():
    envs = make_envs(Custom("SameStep", final_obs=None))
    envs.reset()
    envs.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="environment 1 .*no 'final_obs'"):
        envs.step(np.zeros(2, int))


def test_actions_in_the_format_of_the_vector_environment():
    class Started(testing.CountingEnv):
        def __init__(self):
            super().__init__(9)
            self.action_space = spaces.Discrete(2, start=7)

    vector_env = SyncVectorEnv([Started] * 3)
    envs = VectorEnvironments(vector_env)
    envs.reset([0, 0, 0])
    step = envs.step(np.array([0, 1, 1], np.int32))
    assert [info["action"] for info in step.infos] == [7, 8, 8]
    with pytest.raises(ValueError, match="range"):
        envs.step(np.array([0, 1, 2]))


def test_seeds_reach_each_environment():
    vector_env = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    envs = make_envs(vector_env)
    assert envs.name == "CartPole-v1"
    batch = envs.reset([4, 4, 5])
    serial = make_envs("CartPole-v1", 3).reset([4, 4, 5])
    np.testing.assert_array_equal(batch, serial)
    assert not np.array_equal(envs.reset(), batch)
    with pytest.raises(ValueError, match="2 seeds"):
        envs.reset([1, 2])
    with pytest.raises(TypeError, match="VectorEnv"):
        VectorEnvironments(testing.CountingEnv())


def test_render():
    vector_env = SyncVectorEnv(
        [lambda: testing.CountingEnv(render_mode="rgb_array")] * 2
    )
    envs = make_envs(vector_env, render_mode="rgb_array")
    envs.reset()
    frames = envs.render()
    assert isinstance(frames, list) and len(frames) == 2
    with pytest.raises(ValueError, match="render_mode"):
        make_envs(SyncVectorEnv([testing.CountingEnv]), render_mode="rgb_array")


def test_infos_of_ends_are_those_before_the_reset():
    class Batched(VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        num_envs = 2
        single_observation_space = spaces.Box(-1, 1, ())
        single_action_space = spaces.Discrete(2)
        infos = {"step": np.zeros(2, int)}

        def reset(self, *, seed=None, options=None):
            mask = (options or {}).get("reset_mask", np.ones(2, bool))
            self.infos["step"][mask] = 0
            return np.zeros(2, np.float32), self.infos

        def step(self, actions):
            self.infos["step"] += 1
            ended = self.infos["step"] == 2
            no = np.zeros(2, bool)
            return np.zeros(2, np.float32), np.zeros(2), ended, no, self.infos

    envs = make_envs(Batched())
    envs.reset([0, 0])
    envs.step(np.zeros(2, int))
    for info in envs.step(np.zeros(2, int)).infos:
        assert info == {"step": 2, "reset_info": {"step": 0}}
