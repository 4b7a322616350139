"""How masks come in: by observations, infos, or a method."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from kerasrl import check_env
from kerasrl.envs import ActionMaskObservation, EnvProtocolError, make_envs
from kerasrl.testing import IllegalActionsEnv

SMALL = {"options": 4, "num_illegal": 2, "episode_length": 3}


def test_the_method_is_found_without_being_asked():
    envs = make_envs(lambda: IllegalActionsEnv(**SMALL), num_envs=2)
    assert envs.has_action_mask
    observations = envs.reset([0, 1])
    assert sorted(observations) == ["action_mask", "observation"]
    for _ in range(7):
        masks = [env.get_wrapper_attr("action_masks")() for env in envs.envs]
        np.testing.assert_array_equal(observations["action_mask"], masks)
        wanted = observations["observation"][:, 0]
        step = envs.step(wanted)
        assert step.rewards.tolist() == [1.0, 1.0]
        observations = step.observations
    # Below wrappers too.
    wrapped = gymnasium.wrappers.TimeLimit(IllegalActionsEnv(**SMALL), 5)
    assert make_envs(wrapped).has_action_mask


@pytest.mark.parametrize("terminates", [True, False])
def test_the_mask_of_a_last_observation(terminates):
    """Of a truncated episode it is needed; of a terminated one it need not be told."""
    env = IllegalActionsEnv(**SMALL, terminates=terminates)
    envs = make_envs(env)
    observations = envs.reset([0])
    for _ in range(3):
        step = envs.step(observations["observation"][:, 0])
        observations = step.observations
    mask = step.final_observations[0]["action_mask"]
    assert mask.sum() == (4 if terminates else 2)
    assert step.observations["action_mask"].sum() == 2


def test_infos_have_to_be_asked_for():
    def make(**kw):
        return IllegalActionsEnv(**SMALL, source="info", **kw)

    with pytest.warns(UserWarning, match="ActionMaskObservation"):
        envs = make_envs(make)
        envs.reset()
    assert not envs.has_action_mask
    envs = make_envs(lambda: ActionMaskObservation(make()), num_envs=1)
    observation = envs.reset([3])
    assert observation["action_mask"].sum() == 2
    # By name, as on the command line.
    named = make_envs(make, 1, env_config={"preprocessor": "action_mask"})
    assert named.has_action_mask and named.reset([3])["action_mask"].sum() == 2


def test_a_dict_gets_one_more_entry():
    class Two(gymnasium.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            part = env.observation_space
            self.observation_space = gymnasium.spaces.Dict({"z": part, "a": part})

        def observation(self, observation):
            return {"z": observation, "a": observation}

    envs = make_envs(Two(IllegalActionsEnv(**SMALL)))
    assert sorted(envs.reset([0])) == ["a", "action_mask", "z"]
    assert check_env(Two(IllegalActionsEnv(**SMALL, source="none"))) == []


def test_a_mask_for_each_choice_is_joined():
    class Listing(IllegalActionsEnv):
        def __init__(self):
            super().__init__([2, 3], 1)
            self.action_masks = lambda: tuple(self._legal)

    observation = make_envs(Listing).reset(list(range(8)))
    assert observation["action_mask"].shape == (8, 5)
    assert (observation["action_mask"].sum(axis=1) == 1 + 2).all()

    class InRows(IllegalActionsEnv):
        def __init__(self):
            super().__init__([3, 3], 1)
            self.action_masks = lambda: np.stack(self._legal)

    assert make_envs(InRows).reset()["action_mask"].shape == (8, 6)


class Stuck(IllegalActionsEnv):
    """Nothing is legal for one choice from the second step on."""

    def _draw(self):
        super()._draw()
        if self._steps == 2:
            self._legal[-1][:] = 0


@pytest.mark.parametrize("options", [4, [4, 4]])
def test_no_legal_action_is_an_error_that_names_the_environment(options):
    envs = make_envs(lambda: Stuck(options, 2), num_envs=2)
    observations = envs.reset([0, 1])

    def actions():
        wanted = observations["observation"]
        return wanted[:, 0] if options == 4 else wanted

    observations = envs.step(actions()).observations
    with pytest.raises(EnvProtocolError, match="Environment 0 of Stuck, in step 2.*no"):
        envs.step(actions())


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments(mode):
    """At the end of the task, where nothing is legal, nothing has to be."""

    def make():
        return IllegalActionsEnv(**SMALL, source="observation", terminates=True)

    envs = make_envs(SyncVectorEnv([make, make], autoreset_mode=mode))
    observations, ends = envs.reset([0, 1]), 0
    for _ in range(8):
        step = envs.step(observations["observation"][:, 0])
        observations = step.observations
        for final in step.final_observations.values():
            assert final["action_mask"].sum() == 0
            ends += 1
    assert ends == 4


def test_vector_environments_whose_masks_would_be_lost_are_refused():
    make = lambda: IllegalActionsEnv(**SMALL)  # noqa: E731
    with pytest.raises(ValueError, match="ActionMaskObservation"):
        make_envs(SyncVectorEnv([make, make]))
    wrapped = lambda: ActionMaskObservation(make())  # noqa: E731
    assert make_envs(SyncVectorEnv([wrapped, wrapped])).has_action_mask


@pytest.mark.parametrize("vector", [False, True])
def test_a_truncated_episode_that_could_not_go_on_is_an_error(vector):
    """Its last observation is valued, by the actions that were possible there."""

    class Cut(IllegalActionsEnv):
        def step(self, action):
            *rest, terminated, truncated, info = super().step(action)
            return *rest, False, terminated or truncated, info

    def make():
        return Cut(**SMALL, source="observation", terminates=True)

    envs = make_envs(SyncVectorEnv([make, make]) if vector else make, num_envs=2)
    observations = envs.reset([0, 1])
    with pytest.raises(
        EnvProtocolError, match="Environment 0 of .*truncated.*`terminated`"
    ):
        for _ in range(3):
            observations = envs.step(observations["observation"][:, 0]).observations


def test_masks_can_be_left_out():
    class Unmasked(gymnasium.Wrapper):
        action_masks = None

    assert not make_envs(Unmasked(IllegalActionsEnv(**SMALL))).has_action_mask
    assert make_envs(gymnasium.Wrapper(IllegalActionsEnv(**SMALL))).has_action_mask


@pytest.mark.parametrize("options", [4, [4, 3]])
def test_the_checker_takes_legal_actions(options):
    (remark,) = check_env(lambda: IllegalActionsEnv(options, 2, start=1))
    assert "knows no masks" in remark


class Wrong(IllegalActionsEnv):
    def _flat_mask(self):
        return super()._flat_mask()[:-1]


def test_wrong_masks_are_refused():
    with pytest.raises(ValueError, match=r"action_masks\(\).*4 ones and zeros"):
        make_envs(lambda: Wrong(**SMALL)).reset()
    with pytest.raises(ValueError, match=r"info\['action_mask'\]: None"):
        ActionMaskObservation(IllegalActionsEnv(**SMALL, source="none")).reset()
    with pytest.raises(ValueError, match="already"):
        ActionMaskObservation(IllegalActionsEnv(**SMALL, source="observation"))
    continuous = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    with pytest.raises(ValueError, match="Discrete and MultiDiscrete"):
        ActionMaskObservation(continuous)
    continuous.unwrapped.action_masks = lambda: np.ones(1)
    with pytest.raises(ValueError, match="Discrete and MultiDiscrete"):
        make_envs(continuous)
