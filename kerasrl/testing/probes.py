"""Environments whose optimal return or value is known."""

import gymnasium
import numpy as np
from gymnasium import spaces


class IdentityEnv(gymnasium.Env):
    """The action must repeat the observation: one of `size` choices.

    Known answers: reward 1 where they are equal, else 0, so the best return is
    `length`, and a policy that ignores the observation averages `length / size`. Every
    action is judged at once, so any discount will do.

    Args:
        size: Integer, number of choices.
        length: Integer, steps in an episode, which ends by termination.

    Example:

    ```python
    kerasrl.PPO().fit(IdentityEnv, steps=5_000)
    ```
    """

    def __init__(self, size=2, length=10):
        self.size = size
        self.length = length
        self.observation_space = spaces.Discrete(size)
        self.action_space = spaces.Discrete(size)
        self._target = 0
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._draw(), {}

    def step(self, action):
        reward = float(int(action) == self._target)
        self._step += 1
        return self._draw(), reward, self._step >= self.length, False, {}

    def _draw(self):
        self._target = int(self.np_random.integers(self.size))
        return self._target


class ContinuousIdentityEnv(gymnasium.Env):
    """The action must repeat the observation: `size` numbers in [-1, 1].

    Known answers: the reward is minus the mean squared distance, so the best return is
    0, and a policy that ignores the observation gets at best `-length / 3`.

    Args:
        size: Integer, number of entries.
        length: Integer, steps in an episode, which ends by termination.

    Example:

    ```python
    kerasrl.PPO().fit(ContinuousIdentityEnv, steps=5_000)
    ```
    """

    def __init__(self, size=1, length=10):
        self.size = size
        self.length = length
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self._target = np.zeros(size, np.float32)
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._draw(), {}

    def step(self, action):
        reward = -float(np.mean(np.square(np.asarray(action) - self._target)))
        self._step += 1
        return self._draw(), reward, self._step >= self.length, False, {}

    def _draw(self):
        target = self.np_random.uniform(-1.0, 1.0, self.size)
        self._target = target.astype(np.float32)
        return self._target.copy()


class ConstantRewardEnv(gymnasium.Env):
    """Reward 1 for ever, only cut off by a time limit.

    The observation is always zero, so nothing tells how much time is left.

    Known answers: with a bootstrap at truncations V = 1 / (1 - gamma), 10 for gamma
    0.9, whatever the time limit. An agent that treats truncation as termination finds
    less: on average `(1 - gamma ** k) / (1 - gamma)` over the remaining steps k.

    Args:
        length: Integer, steps until truncation.
        reward: Float.

    Example:

    ```python
    agent = kerasrl.A2C(gamma=0.9)
    agent.fit(ConstantRewardEnv, steps=5_000)
    ```
    """

    def __init__(self, length=10, reward=1.0):
        self.length = length
        self.reward = reward
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._step += 1
        truncated = self._step >= self.length
        return np.zeros(1, np.float32), self.reward, False, truncated, {}


class TwoRoundEnv(gymnasium.Env):
    """Two choices in a row, of which the tempting first one is wrong.

    The first action `a` gives `first[a]` and decides what the second round pays:
    `second[a][b]` for the second action `b`. By default the first action 1 pays at
    once (1 against 0), but the best total is reached by 0, then 1.

    Observations: one of three states (start, after 0, after 1), one-hot.

    Known answers with the defaults: the best return is 3; the greedy first action
    reaches at most 2; uniformly random play averages 1.5. The best values with discount
    gamma are `3 gamma` at the start, 3 after 0 and 1 after 1.

    Args:
        first: Two rewards of the first round.
        second: Two pairs of rewards of the second round.

    Example:

    ```python
    agent.evaluate(TwoRoundEnv)["return_mean"]  # 3.0 for a trained agent
    ```
    """

    def __init__(self, first=(0.0, 1.0), second=((0.0, 3.0), (0.0, 1.0))):
        self.first = first
        self.second = second
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._state = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = 0
        return self._observation(), {}

    def step(self, action):
        action = int(action)
        if self._state == 0:
            reward, terminated = float(self.first[action]), False
            self._state = 1 + action
        else:
            reward, terminated = float(self.second[self._state - 1][action]), True
        return self._observation(), reward, terminated, False, {}

    def _observation(self):
        return np.eye(3, dtype=np.float32)[self._state]
