"""Small worlds of several agents: pendulums that share a reward, and a pursuit."""

import numpy as np
from gymnasium import spaces

from kerasrl import checks
from kerasrl.multi_agent.env import MultiAgentEnv

#: Stay, up, down, left, right.
_MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])


class MultiAgentPendulum(MultiAgentEnv):
    """Pendulums that share their reward, each swung up by an agent of its own.

    As gymnasium's `Pendulum-v1`; each agent gets the sum over all pendulums. With
    `joint`, one agent, `"both"`, sees and moves all, in Tuple spaces.

    Args:
        count: Integer, how many pendulums.
        joint: Whether one agent has them all.
        max_steps: Integer, after which an episode is truncated.
    """

    def __init__(self, count=2, joint=False, max_steps=200):
        self.count = checks.positive_integer("count", count)
        self.joint = checks.flag("joint", joint)
        self.max_steps = checks.positive_integer("max_steps", max_steps)
        self._agents = [f"agent_{index}" for index in range(count)]
        high = np.array([1.0, 1.0, 8.0], np.float32)
        seen, moved = spaces.Box(-high, high), spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.possible_agents = list(self._agents)
        self.observation_spaces = dict.fromkeys(self._agents, seen)
        self.action_spaces = dict.fromkeys(self._agents, moved)
        if joint:
            self.possible_agents = ["both"]
            self.observation_spaces = {"both": spaces.Tuple([seen] * count)}
            self.action_spaces = {"both": spaces.Tuple([moved] * count)}
        self._rng = np.random.default_rng()
        self._angles = self._speeds = np.zeros(count)
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._angles = self._rng.uniform(-np.pi, np.pi, self.count)
        self._speeds = self._rng.uniform(-1.0, 1.0, self.count)
        self._steps = 0
        return self._seen(), {}

    def step(self, actions):
        if self.joint:
            (given,) = actions.values()
        else:
            given = [actions[agent] for agent in self._agents]
        torques = np.clip([np.ravel(each)[0] for each in given], -2.0, 2.0)
        angles = (self._angles + np.pi) % (2 * np.pi) - np.pi
        costs = angles**2 + 0.1 * self._speeds**2 + 0.001 * torques**2
        speeds = self._speeds + (15.0 * np.sin(self._angles) + 3.0 * torques) * 0.05
        self._speeds = np.clip(speeds, -8.0, 8.0)
        self._angles = self._angles + self._speeds * 0.05
        self._steps += 1
        rewards = dict.fromkeys(self.possible_agents, -float(costs.sum()))
        return self._seen(), rewards, {}, {"__all__": self._steps >= self.max_steps}, {}

    def _seen(self):
        parts = np.stack(
            [np.cos(self._angles), np.sin(self._angles), self._speeds], axis=1
        ).astype(np.float32)
        if self.joint:
            return {"both": tuple(parts)}
        return dict(zip(self._agents, parts, strict=True))


class Pursuit(MultiAgentEnv):
    """Hunters catch prey on a grid; whoever is caught dies, and others are born.

    A hunter that steps onto prey gets 1, and the prey dies with -1. Prey that lives
    gets 0.01 a step. After `birth` steps at the latest another prey is born while there
    are ids left: an id does not live twice. The episode ends when all prey that may
    live has died, and is truncated after `max_steps`.

    The observation is one's own place and, for each hunter and prey in order, whether
    it lives and where it is from here.

    Args:
        hunters, prey: Integers, how many may live in an episode.
        size: Integer, the side of the grid.
        first_prey: Integer, how many prey live at the start.
        birth: Integer, steps between births.
        max_steps: Integer.
    """

    def __init__(self, hunters=2, prey=3, size=5, first_prey=1, birth=8, max_steps=40):
        self.size = checks.positive_integer("size", size)
        self.birth = checks.positive_integer("birth", birth)
        self.max_steps = checks.positive_integer("max_steps", max_steps)
        prey = checks.positive_integer("prey", prey)
        hunters = checks.positive_integer("hunters", hunters)
        self.first_prey = checks.positive_integer("first_prey", first_prey)
        if first_prey > prey:
            raise ValueError(
                f"Received first_prey={first_prey} and prey={prey}. Expected at most "
                "as many at the start as may live."
            )
        self._hunters = [f"hunter_{index}" for index in range(hunters)]
        self._prey = [f"prey_{index}" for index in range(prey)]
        self.possible_agents = [*self._hunters, *self._prey]
        length = 2 + 3 * len(self.possible_agents)
        seen = spaces.Box(-1.0, 1.0, (length,), np.float32)
        self.observation_spaces = dict.fromkeys(self.possible_agents, seen)
        self.action_spaces = dict.fromkeys(self.possible_agents, spaces.Discrete(5))
        self._rng = np.random.default_rng()
        self._places, self._waiting, self._steps = {}, [], 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._steps, self._places = 0, {}
        self._waiting = self._prey[self.first_prey :]
        for agent in [*self._hunters, *self._prey[: self.first_prey]]:
            self._places[agent] = self._draw()
        return self._seen(), {}

    def step(self, actions):
        self._steps += 1
        for agent, action in actions.items():
            moved = self._places[agent] + _MOVES[int(action)]
            self._places[agent] = np.clip(moved, 0, self.size - 1)
        rewards = {agent: 0.0 for agent in self._places}
        dead = []
        for agent in [a for a in self._prey if a in self._places]:
            place = self._places[agent]
            by = [h for h in self._hunters if (self._places[h] == place).all()]
            rewards[agent] = -1.0 if by else 0.01
            for hunter in by:
                rewards[hunter] += 1.0 / len(by)
            if by:
                dead.append(agent)
        seen = self._seen()
        for agent in dead:
            del self._places[agent]
        lives = any(agent in self._places for agent in self._prey)
        if self._waiting and (not lives or self._steps % self.birth == 0):
            born = self._waiting.pop(0)
            self._places[born] = self._draw()
            lives = True
        seen = {**seen, **self._seen()}
        terminated = {**dict.fromkeys(dead, True), "__all__": not lives}
        is_late = self._steps >= self.max_steps
        return seen, rewards, terminated, {"__all__": lives and is_late}, {}

    def _draw(self):
        return self._rng.integers(self.size, size=2)

    def _seen(self):
        found = {}
        for agent, place in self._places.items():
            parts = [place / (self.size - 1 or 1)]
            for other in self.possible_agents:
                if other in self._places:
                    away = (self._places[other] - place) / self.size
                    parts.append([1.0, *away])
                else:
                    parts.append(np.zeros(3))
            found[agent] = np.concatenate(parts).astype(np.float32)
        return found
