"""RLlib 0.3's options for several agents in Tuple spaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.multi_agent import from_custom_options, split_tuple
from kerasrl.multi_agent.env import Game, MultiEnvironments


class Joint(gymnasium.Env):
    """Pays for the sum of three actions, told back by the next observation."""

    observation_space = spaces.Tuple(
        [spaces.Box(-9, 9, (2,)), spaces.Discrete(3), spaces.Box(-9, 9, (1,))]
    )
    action_space = spaces.Tuple(
        [spaces.Box(-1, 1, (1,)), spaces.Discrete(3), spaces.Box(-1, 1, (2,))]
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        zeros = np.zeros(2, np.float32), 1, np.zeros(1, np.float32)
        return zeros, {}

    def step(self, action):
        first, choice, last = action
        assert first.shape == (1,) and last.shape == (2,) and choice in (0, 1, 2)
        self.time += 1
        seen = last.astype(np.float32), int(choice), first.astype(np.float32)
        return seen, float(choice), False, self.time == 5, {}


def test_parts_are_those_of_the_flattened_spaces():
    env = split_tuple(Joint(), [2, 4], [2, 2])
    assert env.action_spaces["agent_0"] == spaces.Tuple(Joint.action_space.spaces[:2])
    assert env.action_spaces["agent_1"] == Joint.action_space.spaces[2]
    seen, _ = env.reset(seed=0)
    assert seen["agent_0"].tolist() == [0, 0] and seen["agent_1"].tolist() == [
        0,
        1,
        0,
        0,
    ]
    actions = {
        "agent_0": (np.array([0.5], np.float32), 2),
        "agent_1": np.array([0.25, -1.0], np.float32),
    }
    seen, rewards, terminated, truncated, _ = env.step(actions)
    assert rewards == {"agent_0": 2.0, "agent_1": 2.0}
    assert seen["agent_0"].tolist() == [0.25, -1.0]
    assert seen["agent_1"].tolist() == [0, 0, 1, 0.5]
    assert not terminated["__all__"] and not truncated["__all__"]


@pytest.mark.parametrize("shared", [True, False])
def test_options_become_policies(shared):
    options = {
        "multiagent_obs_shapes": [3, 3],
        "multiagent_act_shapes": [1, 1],
        "multiagent_shared_model": shared,
        "multiagent_fcnet_hiddens": [[8, 8]] if shared else [[8], [4, 4]],
    }
    config = {"rollout_length": 16, "num_epochs": 1, "seed": 3}

    def make(count=2):
        return gymnasium.wrappers.FlattenObservation(Pair())

    agent, env = from_custom_options(kerasrl.PPO, make, options, config)
    assert list(agent.agents) == (["shared"] if shared else ["agent_0", "agent_1"])
    for member in agent.agents.values():
        member.compile(jit_compile=False)
    agent.fit(env, steps=40, num_envs=2, verbose=0)
    widths = [m.policy.hidden_units for m in agent.agents.values()]
    assert widths == ([(8, 8)] if shared else [(8,), (4, 4)])
    assert all(m.iterations for m in agent.agents.values())


class Pair(gymnasium.Env):
    """Two parts that are alike."""

    observation_space = spaces.Tuple([spaces.Box(-9, 9, (3,))] * 2)
    action_space = spaces.Tuple([spaces.Box(-1, 1, (1,))] * 2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def _see(self):
        return (np.full(3, self.time, np.float32),) * 2

    def step(self, action):
        self.time += 1
        return self._see(), float(sum(a[0] for a in action)), False, self.time == 5, {}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="5 numbers in all"):
        split_tuple(Joint(), [2, 3], [2, 2])
    with pytest.raises(ValueError, match="parts next to each other"):
        split_tuple(Joint(), [2, 4], [3, 1])
    with pytest.raises(ValueError, match="one of each"):
        split_tuple(Joint(), [2, 4], [4])
    with pytest.raises(TypeError, match="act_shapes=None"):
        from_custom_options(kerasrl.PPO, Joint, {"multiagent_obs_shapes": [6]})
    options = {"multiagent_obs_shapes": [6], "multiagent_act_shapes": [4], "other": 1}
    with pytest.raises(ValueError, match="other"):
        from_custom_options(kerasrl.PPO, Joint, options)
    options = {"multiagent_obs_shapes": [6], "multiagent_act_shapes": [4]}
    for given in ([64, 64], 64, "64"):
        options["multiagent_fcnet_hiddens"] = given
        with pytest.raises(TypeError, match="list of lists of widths"):
            from_custom_options(kerasrl.PPO, Joint, options)


class Telling(Joint):
    """Says something in infos, and which actions are legal when told to."""

    masks = False

    def set_phase(self, phase):
        return phase

    def reset(self, **arguments):
        seen, _ = super().reset(**arguments)
        return seen, {"action_mask": np.ones(3)} if self.masks else {"time": 0}

    def step(self, action):
        *others, _ = super().step(action)
        return *others, {"time": self.time}


def test_infos_are_those_of_all():
    env = split_tuple(Telling(), [2, 4], [2, 2])
    assert env.reset()[1] == {agent: {"time": 0} for agent in env.possible_agents}
    actions = {"agent_0": (np.zeros(1), 2), "agent_1": np.zeros(2)}
    assert env.step(actions)[-1] == {a: {"time": 1} for a in env.possible_agents}
    env.env.masks = True
    with pytest.raises(kerasrl.envs.EnvProtocolError, match="with_action_masks"):
        Game(env, "split").reset()


def test_no_policy_has_the_seed_of_the_whole():
    options = {"multiagent_obs_shapes": [3, 3], "multiagent_act_shapes": [1, 1]}
    agent, _ = from_custom_options(kerasrl.PPO, Pair, options, {"seed": 3})
    seeds = [agent.seed, *(member.seed for member in agent.agents.values())]
    assert seeds == [3, 4, 5]


def test_methods_are_found_through_wrappers():
    def make():
        return gymnasium.wrappers.TimeLimit(Telling(), 3)

    envs = MultiEnvironments(split_tuple(make, [2, 4], [2, 2]), 2)
    assert envs.call("set_phase", 3) == [3, 3]
