"""Stepping gymnasium environments one after the other."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from kerasrl import testing
from kerasrl.envs import SerialEnvironments, make_envs


def test_equals_gymnasium_by_hand():
    """CartPole, Pendulum and MountainCar: every value as from the loop by hand."""
    for name in ("CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"):
        envs = make_envs(name, num_envs=2, env_config={"max_episode_steps": 30})
        by_hand = [gymnasium.make(name, max_episode_steps=30) for _ in range(2)]
        rng = np.random.default_rng(0)
        observations = envs.reset([3, 4])
        for env in range(2):
            expected, info = by_hand[env].reset(seed=3 + env)
            np.testing.assert_array_equal(observations[env], expected)
        space = envs.action_space
        ends = 0
        for _ in range(100):
            if isinstance(space, spaces.Discrete):
                actions = rng.integers(2, size=2)
            else:
                actions = rng.normal(size=(2, *space.shape)).astype(np.float32) * 3
            step = envs.step(actions)
            for env in range(2):
                action = actions[env]
                if isinstance(space, spaces.Box):
                    action = np.clip(action, space.low, space.high)
                expected = by_hand[env].step(action)
                assert step.rewards[env] == np.float32(expected[1])
                assert step.terminated[env] == expected[2]
                assert step.truncated[env] == expected[3]
                ended = expected[2] or expected[3]
                assert (env in step.final_observations) == ended
                observation = expected[0]
                if ended:
                    ends += 1
                    np.testing.assert_array_equal(
                        step.final_observations[env], observation
                    )
                    observation, _ = by_hand[env].reset()
                np.testing.assert_array_equal(step.observations[env], observation)
            assert step.valid.all()
            assert step.any_ended == (step.terminated | step.truncated).any()
        assert ends > 2


def test_seeds():
    envs = make_envs("CartPole-v1", num_envs=3)
    first = envs.reset([1, 2, 1])
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(envs.reset([1, 2, 1]), first)
    assert not np.array_equal(envs.reset(), first)
    for seeds in ([1, 2], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 3"):
            envs.reset(seeds)


def test_automatic_resets_do_not_seed_again():
    class Seeds(testing.CountingEnv):
        seeds = ()

        def reset(self, *, seed=None, options=None):
            self.seeds = (*self.seeds, seed)
            return super().reset(seed=seed, options=options)

    envs = make_envs(lambda: Seeds(2), num_envs=2)
    envs.reset([7, 8])
    for _ in range(4):
        envs.step(np.zeros(2, int))
    assert envs.foreach(lambda env: env.seeds) == [(7, None, None), (8, None, None)]


def test_observation_written_into_the_arrays_of_an_environment():
    """An environment that returns its own buffer must not change what was kept."""

    class Reusing(testing.CountingEnv):
        def __init__(self):
            super().__init__(2)
            self.buffer = np.zeros(2, np.float32)

        def _observation(self):
            self.buffer[:] = super()._observation()
            return self.buffer

    envs = make_envs(Reusing, num_envs=1)
    observations = envs.reset([0])
    one = envs.step(np.zeros(1, int))
    two = envs.step(np.zeros(1, int))
    assert observations.tolist() == [[0, 0]]
    assert one.observations.tolist() == [[0, 1]]
    assert two.final_observations[0].tolist() == [0, 2]
    assert two.observations.tolist() == [[1, 0]]


def test_out_and_infos():
    envs = make_envs(lambda: testing.CountingEnv(2), num_envs=2)
    envs.reset([0, 0])
    assert envs.reset_infos == [{"episode_number": 0}] * 2
    out = np.full((2, 2), -1.0, np.float32)
    step = envs.step(np.array([0, 1]), out)
    assert step.observations is out and out.tolist() == [[0, 1], [0, 1]]
    assert step.infos == [{"step": 1, "action": 0}, {"step": 1, "action": 1}]
    step = envs.step(np.array([1, 1]), out)
    assert step.infos[0] == {
        "step": 2,
        "action": 1,
        "reset_info": {"episode_number": 1},
    }


def test_nested():
    envs = make_envs(testing.NestedEnv, num_envs=3, env_config={"length": 2})
    observations = envs.reset([0, 1, 2])
    assert observations["image"].shape == (3, 8, 8, 3)
    assert observations["image"].dtype == np.uint8
    assert observations["vector"].dtype == np.float32
    assert isinstance(observations["choices"], tuple)
    assert observations["choices"][0].shape == (3,)
    envs.step(np.zeros(3, int))
    step = envs.step(np.zeros(3, int))
    assert step.truncated.all()
    assert (step.observations["vector"] == 0).all()
    final = step.final_observations[2]
    assert final["vector"].tolist() == [2, -2, 1]
    assert final["vector"].dtype == np.float32
    assert final["choices"][0] == 2 and final["choices"][1].tolist() == [0, 2]


def test_errors_say_which_environment():
    class Raising(testing.CountingEnv):
        def __init__(self, context):
            super().__init__(5)
            self.index = context.vector_index

        def step(self, action):
            if self.index == 2 and self._step == 1:
                raise KeyError("inside")
            return super().step(action)

        def reset(self, *, seed=None, options=None):
            if self.index == 1 and seed == 99:
                raise RuntimeError("no")
            return super().reset(seed=seed)

    envs = make_envs(Raising, num_envs=4)
    with pytest.raises(RuntimeError, match="no") as caught:
        envs.reset([99] * 4)
    assert "environment 1 of 4" in caught.value.__notes__[0]
    envs.reset()
    envs.step(np.zeros(4, int))
    with pytest.raises(KeyError, match="inside") as caught:
        envs.step(np.zeros(4, int))
    assert "environment 2 of 4 (Raising)" in caught.value.__notes__[0]


@pytest.mark.parametrize("moment", ["reset", "step"])
def test_observations_that_do_not_fit(moment):
    class Misfit(testing.CountingEnv):
        def _observation(self):
            wrong = moment == "reset" or self._step == 1
            return np.zeros(3) if wrong else super()._observation()

    envs = make_envs(Misfit, num_envs=2)
    with pytest.raises(ValueError, match=r"Environment 0.*\(3,\).*\(2,\)"):
        envs.reset()
        envs.step(np.zeros(2, int))


def test_rewards_that_do_not_fit():
    class Rewarding(testing.CountingEnv):
        def __init__(self, reward):
            super().__init__()
            self.reward = reward

        def step(self, action):
            observation, _, *rest = super().step(action)
            return (observation, self.reward, *rest)

    envs = make_envs(lambda: Rewarding(np.ones(1)), num_envs=2)
    envs.reset()
    assert envs.step(np.zeros(2, int)).rewards.tolist() == [1.0, 1.0]
    envs = make_envs(lambda: Rewarding("much"), num_envs=2)
    envs.reset()
    with pytest.raises(ValueError, match="reward.*much"):
        envs.step(np.zeros(2, int))


def test_action_batch_must_fit():
    envs = make_envs("CartPole-v1", num_envs=2)
    envs.reset()
    with pytest.raises(ValueError, match="3 actions for 2"):
        envs.step(np.zeros(3, int))


def test_reaching_every_environment():
    def make():
        return gymnasium.wrappers.TimeLimit(testing.CountingEnv(3), 9)

    envs = make_envs(make, num_envs=3)
    assert envs.call("set_phase", 2) == [0, 0, 0]
    assert envs.call("set_phase", phase=4) == [2, 2, 2]
    assert envs.foreach(lambda env: env.unwrapped.phase) == [4, 4, 4]
    envs.set_attr("phase", [1, 2])  # A list is a value like any other.
    assert envs.foreach(lambda env: env.unwrapped.phase) == [[1, 2]] * 3
    with pytest.raises(AttributeError, match="fase"):
        envs.set_attr("fase", 1)
    with pytest.raises(AttributeError):
        envs.call("set_fase", 1)


def test_constructor_refuses():
    with pytest.raises(ValueError, match="at least one"):
        SerialEnvironments([])
    with pytest.raises(TypeError, match="not a gymnasium.Env"):
        SerialEnvironments([3])


def test_flags_are_read_only():
    """They are shared between steps, so writing into them must fail loudly."""
    envs = make_envs("CartPole-v1", num_envs=2)
    envs.reset()
    step = envs.step(np.zeros(2, int))
    for flags in (step.terminated, step.truncated, step.valid):
        with pytest.raises(ValueError, match="read-only"):
            flags[0] = True


class WritesIntoItsInfo(gymnasium.Env):
    """Hands out the same dict at every call; an episode has three steps."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.info = {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.info.update(step=0, success=False)
        return np.zeros(1, np.float32), self.info

    def step(self, action):
        step = self.info["step"] + 1
        self.info.update(step=step, success=step == 3)
        return np.zeros(1, np.float32), 1.0, step == 3, False, self.info


def test_infos_of_ends_are_those_before_the_reset():
    envs = SerialEnvironments([WritesIntoItsInfo()])
    envs.reset([0])
    for _ in range(2):
        envs.step(np.zeros(1, int))
    (info,) = envs.step(np.zeros(1, int)).infos
    assert info["success"] and info["step"] == 3
    assert info["reset_info"] == {"step": 0, "success": False}
