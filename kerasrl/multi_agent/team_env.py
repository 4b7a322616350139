"""A team of agents as one environment with one reward."""

import gymnasium
import numpy as np
from gymnasium import spaces

from kerasrl import action_masks, checks
from kerasrl.multi_agent.env import Game, make_env, name_of
from kerasrl.spaces import leaf_lister, leaves


class TeamEnv(gymnasium.Env):
    """All agents of an environment as one that acts for each of them.

    What VDN and QMIX learn in. The observation is a Dict, for n agents in the order of
    `possible_agents`, the longest observation of which has F numbers:

    | key | content |
    |---|---|
    | `"observations"` | float32 `[n, F]`, of each agent; zeros for who is not asked |
    | `"acts"` | `[n]`, 1 for those that are asked now, 0 for the others |
    | `"action_mask"` | `[n * A]`, of who is not asked only the first action |
    | `"state"` | float32 `[S]`: `state()`, or all observations one after the other |

    At the end of an episode that a time limit cuts off, all that it cuts off are taken
    to be asked: the last observation has the value of what they would do next.

    The action is MultiDiscrete, `[A] * n`: what agents do that are not asked does not
    matter. Agents may wait, die and be born.

    Args:
        env: As for `kerasrl.multi_agent.MultiEnvironments`, of agents with discrete
            actions.
        reward: `"sum"` or `"mean"`, of the rewards of agents.
        **config: Arguments of the environment.

    Raises:
        ValueError: Some agent has actions of another kind.
    """

    metadata: dict = {}

    def __init__(self, env, reward="sum", **config):
        checks.choice("reward", reward, ("sum", "mean"))
        self.env = make_env(env, config)
        self.reward = reward
        self.agents = list(self.env.possible_agents)
        self._game = Game(self.env, name_of(env))
        actions = [self.env.action_spaces[agent] for agent in self.agents]
        for agent, space in zip(self.agents, actions, strict=True):
            if not isinstance(space, spaces.Discrete):
                raise ValueError(
                    f"Received the agent {agent!r} with the actions {space}. A team "
                    "learns values of Discrete actions; use kerasrl.MultiAgent."
                )
        self._starts = [int(space.start) for space in actions]
        self._sizes = [int(space.n) for space in actions]
        self._width = width = max(self._sizes)
        self._spaces = [self._without_mask(a) for a in self.agents]
        length = max(map(flat_size, self._spaces))
        count = len(self.agents)
        state = self.env.state_space
        self._has_state = isinstance(state, spaces.Box)
        size = int(np.prod(state.shape)) if self._has_state else count * length
        infinite = float("inf")
        self.observation_space = spaces.Dict(
            {
                "observations": spaces.Box(-infinite, infinite, (count, length)),
                "acts": spaces.Box(0.0, 1.0, (count,)),
                "action_mask": spaces.Box(0, 1, (count * width,), np.int8),
                "state": spaces.Box(-infinite, infinite, (size,)),
            }
        )
        self.action_space = spaces.MultiDiscrete([width] * count)
        self._asked: dict = {}

    def _without_mask(self, agent):
        space = self.env.observation_spaces[agent]
        if action_masks.has_mask(space, self.env.action_spaces[agent]):
            return action_masks.without_mask(space)
        return space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        turn = self._game.reset(seed)
        return self._observation(turn), {}

    def step(self, action):
        actions = {
            agent: int(action[place]) + self._starts[place]
            for place, agent in enumerate(self.agents)
            if agent in self._asked
        }
        count = len(self._game.alive)
        turn = self._game.step(actions)
        reward = float(sum(turn.rewards.values()))
        if self.reward == "mean":
            reward /= max(count, 1)
        cut = any(truncated for _, truncated, _ in turn.ended.values())
        is_cut = turn.is_over and cut
        infos = {"rewards": turn.rewards}
        return (
            self._observation(turn),
            reward,
            turn.is_over and not is_cut,
            is_cut,
            infos,
        )

    def close(self):
        self.env.close()

    def _observation(self, turn):
        self._asked = turn.seen
        shape = self.observation_space["observations"].shape
        seen, acts = np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
        mask = np.zeros((shape[0], self._width), np.int8)
        mask[:, 0] = 1
        last = {a: end[2] for a, end in turn.ended.items() if end[2] is not None}
        # What a time limit cuts off has a value: that of what they would do next.
        cut = {a for a, end in turn.ended.items() if end[1]} if turn.is_over else set()
        for place, agent in enumerate(self.agents):
            given = {**last, **turn.seen}.get(agent)
            if given is None:
                continue
            has_mask = self._spaces[place] is not self.env.observation_spaces[agent]
            legal = given[action_masks.KEY] if has_mask else None
            plain = action_masks.without_mask(given) if has_mask else given
            flat = flatten_one(self._spaces[place], plain)
            seen[place, : len(flat)] = flat
            can = legal is None or np.any(np.asarray(legal) > 0)
            if agent in turn.seen or (agent in cut and can):
                acts[place] = 1.0
                size = self._sizes[place]
                mask[place] = 0
                mask[place, :size] = 1 if legal is None else np.asarray(legal) > 0
        state = self.env.state() if self._has_state else seen
        return {
            "observations": seen,
            "acts": acts,
            "action_mask": mask.reshape(-1),
            "state": np.asarray(state, np.float32).reshape(-1),
        }


class TeamFactory:
    """A function that makes teams, which can be sent to workers.

    Args:
        env, reward: As for `TeamEnv`, but no instance.
    """

    def __init__(self, env, reward):
        self.env = env
        self.reward = reward
        self.__name__ = name_of(env)

    def __call__(self, **config):
        return TeamEnv(self.env, self.reward, **config)


def as_team(env, reward):
    """Returns what `fit` of a single agent takes, of whatever has several agents.

    Args:
        env: As for `TeamEnv`; or something that has one agent already, as is.
        reward: As for `TeamEnv`.
    """
    if isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv, TeamFactory)):
        return env
    if hasattr(env, "reset") and hasattr(env, "step") and not isinstance(env, type):
        return TeamEnv(env, reward)
    return TeamFactory(env, reward)


def flat_size(space):
    """Returns how many numbers `flatten_one` makes of an observation."""
    return sum(
        int(leaf.n) if isinstance(leaf, spaces.Discrete) else int(np.prod(leaf.shape))
        for leaf in leaves(space)
    )


def flatten_one(space, observation):
    """Returns an observation as one vector, choices one-hot."""
    parts = []
    values = leaf_lister(space)(observation)
    for leaf, value in zip(leaves(space), values, strict=True):
        if isinstance(leaf, spaces.Discrete):
            parts.append(np.eye(int(leaf.n))[int(value) - int(leaf.start)])
        else:
            parts.append(np.asarray(value, np.float32).reshape(-1))
    return np.concatenate(parts)
