import gymnasium
import pytest

import kerasrl
from kerasrl.callbacks import Curriculum


def by_return(agent, logs):
    return 1 if logs["episode_return_mean"] > 5 else None


def test_environments_are_told_once_when_the_phase_changes(agent, returns):
    curriculum = Curriculum(by_return, initial=0)
    history = agent.fit([curriculum], returns(1.0, 6.0, 7.0)).history
    assert agent.env_calls == [("set_phase", 0), ("set_phase", 1)]
    assert history["curriculum_phase"] == [0.0, 0.0, 1.0]


def test_the_next_fit_starts_in_the_phase_reached(agent, returns):
    curriculum = Curriculum(by_return, method="set_task")
    agent.fit([curriculum], returns(6.0))
    agent.fit([curriculum], returns(1.0))
    assert agent.env_calls == [("set_task", 1), ("set_task", 1)]


def test_phases_need_not_be_numbers(agent, returns):
    curriculum = Curriculum(lambda agent, logs: {"wind": agent.env_steps})
    history = agent.fit([curriculum], returns(1.0, 2.0)).history
    assert agent.env_calls[0] == ("set_phase", {"wind": 10})
    assert "curriculum_phase" not in history


def test_not_callable():
    with pytest.raises(TypeError, match="function must be a callable"):
        Curriculum(3)


class Phased(gymnasium.Wrapper):
    made = []

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.phase = 0
        self.made.append(self)

    def set_phase(self, phase):
        self.phase = phase


def test_reaches_every_environment_through_wrappers():
    Phased.made.clear()
    kerasrl.PPO(rollout_length=16, num_epochs=1, seed=0).fit(
        lambda: gymnasium.wrappers.TimeLimit(Phased(), 10),
        steps=96,
        steps_per_epoch=48,
        num_envs=3,
        callbacks=[Curriculum(lambda agent, logs: agent.env_steps)],
        verbose=0,
    )
    assert [env.phase for env in Phased.made] == [96, 96, 96]
