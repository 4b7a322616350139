"""What trains centrally sees the state of the whole; no Keras, no TensorFlow."""

from typing import Any

import numpy as np
from gymnasium import spaces

from kerasrl import action_masks, checks
from kerasrl.multi_agent.env import ALL, make_env, name_of
from kerasrl.multi_agent.team_env import flat_size, flatten_one
from kerasrl.multi_agent.wrappers import Factory, Wrapper

#: The key of the state in observations.
STATE = "state"
SOURCES = ("state", "observations")


class _Central(Wrapper):
    """An environment whose observations have the state; see `with_central_state`."""

    def __init__(self, env, source):
        super().__init__(env)
        has_state = isinstance(env.state_space, spaces.Box)
        if source == "state" and not has_state:
            raise ValueError(
                f"Received source='state', and {name_of(env)} has the state_space "
                f'{env.state_space!r}. Expected a Box; use source="observations".'
            )
        self._last: Any = None
        self._alive: set = set()
        self._has_state = has_state if source is None else source == "state"
        self._seen = {a: self._plain(a) for a in self.possible_agents}
        size = sum(map(flat_size, self._seen.values()))
        infinite = float("inf")
        space = spaces.Box(-infinite, infinite, (size,), np.float32)
        if self._has_state:
            space = env.state_space
        self.observation_spaces = {}
        for agent in self.possible_agents:
            given = env.observation_spaces[agent]
            parts = {action_masks.OBSERVATION: given}
            if isinstance(given, spaces.Dict):
                parts = dict(given.spaces)
            if STATE in parts:
                raise ValueError(
                    f"The observations of {agent!r} have an entry {STATE!r} already: "
                    f"{given}. Rename it."
                )
            self.observation_spaces[agent] = spaces.Dict({**parts, STATE: space})

    def _plain(self, agent):
        """The space of what an agent sees, less its mask."""
        given = self.env.observation_spaces[agent]
        if action_masks.has_mask(given, self.env.action_spaces[agent]):
            return action_masks.without_mask(given)
        return given

    def reset(self, *, seed=None, options=None):
        seen, infos = self.env.reset(seed=seed, options=options)
        self._alive = set()
        return self._with_state(seen), infos

    def step(self, actions):
        seen, rewards, terminated, truncated, infos = self.env.step(actions)
        found = self._with_state(seen, terminated, truncated)
        return found, rewards, terminated, truncated, infos

    def _with_state(self, seen, *flags):
        if self._has_state:
            self._alive |= set(seen)
            for ended in flags:
                gone = {agent for agent, flag in ended.items() if flag}
                self._alive -= self._alive if ALL in gone else gone
            state = self._state()
        else:
            state = self._joined(seen)
        found = {}
        for agent, observation in seen.items():
            if not isinstance(self.env.observation_spaces[agent], spaces.Dict):
                observation = {action_masks.OBSERVATION: observation}
            found[agent] = {**observation, STATE: state}
        return found

    def _state(self):
        try:
            self._last = self.env.state()
        except Exception:
            # Of the agents that live, say, of whom there are none at the end.
            if self._alive:
                raise
        return self._last

    def _joined(self, seen):
        """All observations in the order of `possible_agents`, zeros for the absent."""
        parts = []
        for agent, space in self._seen.items():
            if agent not in seen:
                parts.append(np.zeros(flat_size(space), np.float32))
                continue
            given = seen[agent]
            if space is not self.env.observation_spaces[agent]:
                given = action_masks.without_mask(given)
            parts.append(flatten_one(space, given))
        return np.concatenate(parts)


def with_central_state(env, source=None):
    """Adds the state of the whole to observations, for critics that train centrally.

    It becomes the entry `"state"` of a Dict; what was no dict stands beside it under
    `"observation"`. `kerasrl.multi_agent.CentralCritic` reads it for values, and not
    for acting.

    Args:
        env: An environment of several agents, a function that makes one, or a name.
        source: `"state"`, `state()` of the environment, and the last one where it has
            none as everybody has ended; `"observations"`, those of all
            agents one after the other, zeros for who is not asked; `None`, the first
            that there is.

    Returns:
        A `MultiAgentEnv` for an instance, else a function that makes such.

    Example:

    ```python
    env = with_central_state("pettingzoo:parallel:mpe2.simple_spread_v3")
    main = kerasrl.PPO(policy=kerasrl.multi_agent.CentralCritic())
    kerasrl.MultiAgent({"main": main}).fit(env, steps=200_000)
    ```
    """
    if source is not None:
        checks.choice("source", source, SOURCES)
    if hasattr(env, "step") and not isinstance(env, type):
        return _Central(make_env(env), source)
    return Factory(lambda config: _Central(make_env(env, config), source), name_of(env))
