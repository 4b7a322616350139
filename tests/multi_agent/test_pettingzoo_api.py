"""PettingZoo's own tests, on environments that are seen through the adapters only."""

import functools

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import conversions

from kerasrl.multi_agent.env import make_env

pytestmark = pytest.mark.filterwarnings("ignore")


class Mortal(ParallelEnv):
    """Agents die one after the other, by an end of the task and by a limit."""

    metadata = {"name": "mortal", "is_parallelizable": True}
    possible_agents = ["a", "b", "c"]

    def __init__(self):
        self._seen = {a: spaces.Box(0, 99, (2,), np.float32) for a in "abc"}
        self._acts = {a: spaces.Discrete(2 + i) for i, a in enumerate("abc")}

    def observation_space(self, agent):
        return self._seen[agent]

    def action_space(self, agent):
        return self._acts[agent]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        elif not hasattr(self, "rng"):
            self.rng = np.random.default_rng()
        self.agents, self.time = list(self.possible_agents), 0
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.time += 1
        live = self.agents
        terminated = {a: a == "b" and self.time == 4 for a in live}
        truncated = {a: self.time == 9 for a in live}
        rewards = {a: float(actions[a]) for a in live}
        seen = self._see(), rewards, terminated, truncated, {a: {} for a in live}
        self.agents = [a for a in live if not (terminated[a] or truncated[a])]
        return seen

    def _see(self):
        return {
            a: np.array([self.time, self.rng.integers(99)], np.float32)
            for a in self.agents
        }


class Parallel(ParallelEnv):
    """What an adapter says, by the parallel API again."""

    def __init__(self, env):
        self.adapted = env
        self.metadata = {"name": "adapted", "is_parallelizable": True}
        self.possible_agents = list(env.possible_agents)

    def observation_space(self, agent):
        return self.adapted.observation_spaces[agent]

    def action_space(self, agent):
        return self.adapted.action_spaces[agent]

    def reset(self, seed=None, options=None):
        seen, infos = self.adapted.reset(seed=seed, options=options)
        self.agents = list(seen)
        return seen, {agent: infos.get(agent, {}) for agent in seen}

    def step(self, actions):
        seen, rewards, *flags, infos = self.adapted.step(actions)
        flags = [{a: bool(f.get(a, False)) for a in self.agents} for f in flags]
        ended = {a for a in self.agents if flags[0][a] or flags[1][a]}
        self.agents = [a for a in self.agents if a not in ended]
        return seen, rewards, *flags, infos


class Turns(AECEnv):
    """What an adapter says, by the AEC API again."""

    def __init__(self, env):
        super().__init__()
        self.adapted = env
        self.metadata = {"name": "adapted", "is_parallelizable": False}
        self.possible_agents = list(env.possible_agents)

    def observation_space(self, agent):
        return self.adapted.observation_spaces[agent]

    def action_space(self, agent):
        return self.adapted.action_spaces[agent]

    def observe(self, agent):
        seen = self._seen.get(agent)
        return self.adapted.env.observe(agent) if seen is None else seen

    def reset(self, seed=None, options=None):
        self._seen, infos = self.adapted.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: infos.get(agent, {}) for agent in self.agents}
        (self.agent_selection,) = self._seen

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            return self._was_dead_step(action)
        self._cumulative_rewards[agent] = 0
        seen, rewards, terminated, truncated, infos = self.adapted.step({agent: action})
        self._seen = {**self._seen, **seen}
        everybody = terminated.pop("__all__")
        for each in self.agents:
            self.terminations[each] = terminated.get(each, False)
            self.truncations[each] = truncated.get(each, False)
            self.rewards[each] = rewards.get(each, 0)
            self.infos[each] = infos.get(each, self.infos[each])
        assert everybody == all(
            self.terminations[each] or self.truncations[each] for each in self.agents
        )
        self._accumulate_rewards()
        alive = [a for a in seen if not (self.terminations[a] or self.truncations[a])]
        self.agent_selection = (alive or self.agents)[0]
        self._deads_step_first()
        return None


PARALLEL = {
    "mortal": Mortal,
    "spread": lambda: make_env("pettingzoo:parallel:mpe2.simple_spread_v3").env,
    "tag": lambda: make_env("pettingzoo:parallel:mpe2.simple_tag_v3").env,
    "speaker": lambda: (
        make_env("pettingzoo:parallel:mpe2.simple_speaker_listener_v4").env
    ),
}
TURNS = {
    "mortal": lambda: conversions.parallel_to_aec(Mortal()),
    "tictactoe": lambda: make_env("pettingzoo:aec:classic/tictactoe-v3").env,
    "connect four": lambda: make_env("pettingzoo:aec:classic/connect_four-v3").env,
    "rps": lambda: make_env("pettingzoo:aec:classic/rps-v2").env,
}


def seen_through(view, made):
    return view(make_env(made()))


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_environments_pass_through_the_adapter(name):
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    with np.errstate(all="ignore"):
        parallel_api_test(seen_through(Parallel, PARALLEL[name]), num_cycles=60)
        parallel_seed_test(functools.partial(seen_through, Parallel, PARALLEL[name]))


@pytest.mark.parametrize("name", TURNS)
def test_environments_with_turns_pass_through_the_adapter(name):
    from pettingzoo.test import api_test, seed_test

    api_test(seen_through(Turns, TURNS[name]), num_cycles=60)
    seed_test(functools.partial(seen_through, Turns, TURNS[name]), num_cycles=20)


@pytest.mark.parametrize("name", ["spread", "tag"])
def test_turns_without_checks_are_those_with_them(name):
    """What is stepped faster says the same, to the last bit."""
    fast, slow = PARALLEL[name](), PARALLEL[name]()
    adapter = make_env(fast)
    assert type(adapter._turns).__name__ not in ("OrderEnforcingWrapper", "NoneType")
    rng = np.random.default_rng(0)
    for episode in range(2):
        left, _ = adapter.reset(seed=episode)
        right, _ = slow.reset(seed=episode)
        for _ in range(30):
            assert left.keys() == right.keys()
            assert all(np.array_equal(left[a], right[a]) for a in left)
            if not slow.agents:
                break
            moves = {a: int(rng.integers(5)) for a in slow.agents}
            left, *said, _ = adapter.step(moves)
            right, rewards, _, truncated, _ = slow.step(moves)
            assert said[0] == dict(rewards) and fast.agents == slow.agents
            assert said[2] == {a: True for a in truncated if truncated[a]}
        assert said[1]["__all__"] and not slow.agents
