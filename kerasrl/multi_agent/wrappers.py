"""Environments of several agents made of others."""

import gymnasium
import numpy as np
from gymnasium import spaces

from kerasrl import action_masks, checks
from kerasrl.multi_agent.env import MultiAgentEnv, make_env, name_of


class _Copies(MultiAgentEnv):
    """Several environments of one agent each, that know nothing of each other."""

    def __init__(self, make, count, config):
        self.envs = {f"agent_{index}": make(**config) for index in range(count)}
        self.possible_agents = list(self.envs)
        self.observation_spaces = {a: e.observation_space for a, e in self.envs.items()}
        self.action_spaces = {a: e.action_space for a, e in self.envs.items()}

    def reset(self, *, seed=None, options=None):
        seen, infos = {}, {}
        for index, (agent, env) in enumerate(self.envs.items()):
            own = None if seed is None else seed + index
            seen[agent], infos[agent] = env.reset(seed=own, options=options)
        return seen, infos

    def step(self, actions):
        results = {agent: self.envs[agent].step(a) for agent, a in actions.items()}
        columns = zip(*results.values(), strict=True)
        return tuple(dict(zip(results, column, strict=True)) for column in columns)

    def close(self):
        for env in self.envs.values():
            env.close()


class Wrapper(MultiAgentEnv):
    """An environment around another, which it has as `env`.

    Args:
        env: What `make_env` returned.
    """

    def __init__(self, env):
        self.env = env
        #: What methods of the environment are looked for in.
        self.made_of = getattr(env, "made_of", env)
        self.possible_agents = list(env.possible_agents)
        self.action_spaces, self.state_space = env.action_spaces, env.state_space

    def state(self):
        return self.env.state()

    def close(self):
        self.env.close()


class Factory:
    """A function that makes environments, and has a name."""

    def __init__(self, function, name):
        self.function = function
        self.name = name

    def __call__(self, **config):
        return self.function(config)


def make_multi_agent(env, count):
    """Makes an environment of several agents of one for a single agent.

    Each agent, `"agent_0"`, `"agent_1"`, ..., has a copy to itself and leaves when that
    ends; the episode is over when the last has.

    Args:
        env: Id of gymnasium, or a function that makes a `gymnasium.Env`.
        count: Integer, how many agents.

    Returns:
        A function that makes such environments; its keywords are those of making one
        copy.

    Raises:
        TypeError: `env` is an instance, of which there cannot be copies.

    Example:

    ```python
    agent = kerasrl.MultiAgent({"shared": kerasrl.PPO()})
    agent.fit(kerasrl.multi_agent.make_multi_agent("CartPole-v1", 2), steps=50_000)
    ```
    """
    count = checks.positive_integer("count", count)
    if isinstance(env, str):
        name = env

        def make(**config):
            return gymnasium.make(env, **config)
    elif callable(env):
        name, make = getattr(env, "__name__", "env"), env
    else:
        raise TypeError(
            f"Received env={env!r:.200}. Expected an id, or a function that makes an "
            "environment: one instance cannot be several."
        )
    return Factory(lambda config: _Copies(make, count, config), f"{name}-x{count}")


class _Groups(Wrapper):
    """Groups of agents as one agent each; see `with_agent_groups`."""

    def __init__(self, env, groups):
        super().__init__(env)
        self.groups = {name: list(members) for name, members in groups.items()}
        members = [agent for group in self.groups.values() for agent in group]
        unknown = sorted(set(members) - set(env.possible_agents))
        if unknown or len(set(members)) < len(members) or not all(self.groups.values()):
            raise ValueError(
                f"Received groups = {groups!r:.200}. Expected lists, none of them "
                "empty, that have each agent once at most, of possible_agents: "
                f"{env.possible_agents}."
            )
        alone = [a for a in env.possible_agents if a not in members]
        taken = sorted(set(alone) & set(self.groups))
        if taken:
            raise ValueError(
                f"Received groups named {taken}, as agents that are in none of them. "
                "Give them other names."
            )
        masked = [
            agent
            for agent in members
            if action_masks.has_mask(
                env.observation_spaces[agent], env.action_spaces[agent]
            )
        ]
        if masked:
            raise ValueError(
                f"Received groups with {masked}, who observe which actions are legal. "
                "Nothing would read that of a group: leave them out of it, or use "
                "kerasrl.QMIX, which honours it."
            )
        self._group_of = {a: n for n, group in self.groups.items() for a in group}
        self.possible_agents = [*self.groups, *alone]
        self.observation_spaces = self._spaces(env.observation_spaces, alone)
        self.action_spaces = self._spaces(env.action_spaces, alone)

    def _spaces(self, given, alone):
        joint = {
            name: spaces.Tuple([given[agent] for agent in group])
            for name, group in self.groups.items()
        }
        return {**joint, **{agent: given[agent] for agent in alone}}

    def reset(self, *, seed=None, options=None):
        seen, infos = self.env.reset(seed=seed, options=options)
        return self._joined(seen, "reset"), self._infos(infos)

    def step(self, actions):
        single = {}
        for name, action in actions.items():
            if name in self.groups:
                single.update(zip(self.groups[name], action, strict=True))
            else:
                single[name] = action
        seen, rewards, terminated, truncated, infos = self.env.step(single)
        infos = self._infos(infos)
        for name, group in self.groups.items():
            parts = {a: float(rewards[a]) for a in group if a in rewards}
            if parts:
                infos.setdefault(name, {})["rewards"] = parts
        joint = {}
        for agent, reward in rewards.items():
            name = self._group_of.get(agent, agent)
            joint[name] = joint.get(name, 0.0) + float(reward)
        flags = [self._flags(given) for given in (terminated, truncated)]
        return self._joined(seen, "step"), joint, *flags, infos

    def _joined(self, seen, call):
        joint = {a: o for a, o in seen.items() if a not in self._group_of}
        for name, group in self.groups.items():
            there = [agent for agent in group if agent in seen]
            if there and len(there) < len(group):
                raise ValueError(
                    f"{call} returned observations of {there}, but the group {name!r} "
                    f"is {group}. Agents of a group act together: all are observed, or "
                    "none."
                )
            if there:
                joint[name] = tuple(seen[agent] for agent in group)
        return joint

    def _flags(self, given):
        flags = {a: f for a, f in given.items() if a not in self._group_of}
        for name, group in self.groups.items():
            own = [bool(given.get(agent, False)) for agent in group]
            if any(own) and not all(own):
                raise ValueError(
                    f"Some agents of the group {name!r} ended and others did not: "
                    f"{dict(zip(group, own, strict=True))}. Agents of a group end "
                    "together."
                )
            if all(own):
                flags[name] = True
        return flags

    def _infos(self, infos):
        joint = {a: dict(i or {}) for a, i in infos.items() if a not in self._group_of}
        for name, group in self.groups.items():
            parts = {agent: infos[agent] for agent in group if agent in infos}
            if parts:
                joint[name] = {"infos": parts}
        return joint


def with_agent_groups(env, groups):
    """Makes one agent of each group of agents.

    It observes and acts in Tuple spaces, and gets the sum of their rewards; the parts
    are in `info["rewards"]`. Agents of a group act and end together.

    Args:
        env: An environment of several agents, a function that makes one, or a name.
        groups: Dict from names to lists of agents. Who is in none stays as it is.

    Returns:
        A `MultiAgentEnv` for an instance, else a function that makes such.

    Example:

    ```python
    team = {"team": ["agent_0", "agent_1"]}
    env = kerasrl.multi_agent.with_agent_groups("two_step", team)
    ```
    """
    if not isinstance(groups, dict) or not groups:
        raise ValueError(
            f"Received groups={groups!r:.200}. Expected a dict from names to lists of "
            "agents."
        )
    if hasattr(env, "step") and not isinstance(env, type):
        return _Groups(make_env(env), groups)
    name = env if isinstance(env, str) else getattr(env, "__name__", "env")
    return Factory(lambda config: _Groups(make_env(env, config), groups), name)


class _Masked(Wrapper):
    """Masks of infos as a part of observations; see `with_action_masks`."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_spaces, self._counts = {}, {}
        for agent in self.possible_agents:
            seen, acts = env.observation_spaces[agent], env.action_spaces[agent]
            counts = action_masks.counts_of_options(acts)
            if counts is not None and not action_masks.has_mask(seen, acts):
                self._counts[agent] = sum(counts)
                seen = action_masks.with_mask_space(seen, acts)
            self.observation_spaces[agent] = seen

    def reset(self, *, seed=None, options=None):
        seen, infos = self.env.reset(seed=seed, options=options)
        return self._masked(seen, infos), infos

    def step(self, actions):
        seen, *others, infos = self.env.step(actions)
        return self._masked(seen, infos), *others, infos

    def _masked(self, seen, infos):
        found = {}
        for agent, observation in seen.items():
            if agent not in self._counts:
                found[agent] = observation
                continue
            mask = (infos.get(agent) or {}).get(action_masks.KEY)
            if mask is None:
                mask = np.ones(self._counts[agent], np.int8)
            elif isinstance(mask, tuple):
                # Of gymnasium's MultiDiscrete: one for each choice.
                mask = np.concatenate([np.ravel(each) for each in mask])
            mask = np.asarray(mask).reshape(-1)
            if not isinstance(observation, dict):
                observation = {action_masks.OBSERVATION: observation}
            found[agent] = {**observation, action_masks.KEY: mask}
        return found


def with_action_masks(env):
    """Makes what `info["action_mask"]` says which actions are legal an observation.

    Where an agent is told none, all are. It becomes the entry `"action_mask"` of a
    Dict, which every algorithm for discrete actions honours; what was no dict stands
    beside it under `"observation"`. For `MultiDiscrete` actions it may be a tuple, a
    mask for each choice.

    Args:
        env: An environment of several agents, a function that makes one, or a name.

    Returns:
        A `MultiAgentEnv` for an instance, else a function that makes such.
    """
    if hasattr(env, "step") and not isinstance(env, type):
        return _Masked(make_env(env))
    return Factory(lambda config: _Masked(make_env(env, config)), name_of(env))
