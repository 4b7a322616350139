"""Environments of tests whose workers would else import a test, and Keras with it.

That takes seconds in each process. Import them as `from envs.for_workers import ...`.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

#: What the clock says at first.
NOW = 1.7e9
_UNBOUNDED = {"low": -np.inf, "high": np.inf, "dtype": np.float64}


class Clock(gymnasium.Env):
    """The action must say whether it is late, which only the time tells.

    That is between `NOW` and `NOW + 10`, in a Dict with unsorted keys if `nested`.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, nested=False, start=NOW):
        self._nested, self._start = nested, start
        time = spaces.Box(shape=(1,), **_UNBOUNDED)
        self.observation_space = time
        if nested:
            self.observation_space = spaces.Dict(
                [("time", time), ("beside", spaces.Box(0, 1, (2,), np.float64))]
            )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action):
        reward = float(action == (self._second > 5))
        self._steps += 1
        return self._observe(), reward, False, self._steps == 8, {}

    def _observe(self):
        self._second = self.np_random.uniform(0, 10)
        time = np.array([self._start + self._second])
        if not self._nested:
            return time
        return {"beside": np.array([0.25, 0.5]), "time": time}


class Long(gymnasium.Env):
    """Episodes of 50 steps, with infos."""

    observation_space = spaces.Box(-1.0, 1.0, (4,))
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.closed = False

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample() * 0, {"name": "long"}

    def step(self, action):
        self.time += 1
        info = {"time": self.time, "name": "long", "pair": np.array([1.0, 2.0])}
        observation = np.full(4, self.time / 50, np.float32)
        return observation, 1.0, False, self.time == 50, info

    def close(self):
        self.closed = True


class Echo(gymnasium.Env):
    """Says in its infos which action it got."""

    def __init__(self, action_space):
        self.observation_space = spaces.Box(0, 9, (2,), np.float32)
        self.action_space = action_space
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        observation = np.full(2, self.steps % 9, np.float32)
        return observation, 1.0, False, self.steps % 5 == 0, {"got": action}


class MakeEcho:
    """A factory that workers can be sent."""

    def __init__(self, action_space):
        self.action_space = action_space

    def __call__(self):
        return Echo(self.action_space)


class Reporting(gymnasium.Env):
    """Observations say what was done: `[count, action, reward]`, zeros at first.

    The count goes on over episodes, which end in both ways. Infos say the count after
    the step, and at times whether it is even.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,))

    def __init__(self, action_space=None):
        self.action_space = action_space or spaces.Discrete(3, start=4)
        self.count = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.count += 1
        return np.array([self.count, 0, 0], np.float32), {"count": -1}

    def step(self, action):
        reward = float(self.np_random.normal())
        self.count += 1
        counted = action - 4 if isinstance(self.action_space, spaces.Discrete) else 0
        if isinstance(self.action_space, spaces.Box):
            counted = action[0]
        observation = np.array([self.count, counted, reward], np.float32)
        info = {
            "count": self.count,
            "pair": np.array([self.count, 1.0]),
            "name": "reporting",
        }
        if self.count % 3 == 0:
            info["even"] = self.count % 2 == 0
        ended = self.np_random.random() < 0.3
        terminated = bool(ended and self.np_random.random() < 0.5)
        return observation, reward, terminated, bool(ended and not terminated), info
