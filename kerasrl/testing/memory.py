"""Environments that only a policy with memory can solve."""

import gymnasium
import numpy as np
from gymnasium import spaces


class MemoryEnv(gymnasium.Env):
    """The first observation must be remembered until the end.

    Only the first observation shows the cue, one of two one-hot vectors of length 2;
    the others are zeros. The last action earns 1 if it names the cue, else -1; all
    other rewards are 0.

    Known answers: a policy with memory reaches return 1, one without averages 0.

    Args:
        delay: Integer, blank observations between the cue and the last action's own.

    Example:

    ```python
    kerasrl.PPO(policy={"cell": "lstm"}).fit(MemoryEnv, steps=20_000)
    ```
    """

    def __init__(self, delay=2):
        self.delay = delay
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._cue = 0
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(2))
        self._step = 0
        return np.eye(2, dtype=np.float32)[self._cue], {"cue": self._cue}

    def step(self, action):
        self._step += 1
        terminated = self._step > self.delay + 1
        reward = 0.0
        if terminated:
            reward = 1.0 if int(action) == self._cue else -1.0
        return np.zeros(2, np.float32), reward, terminated, False, {}


class StatelessCartPole(gymnasium.ObservationWrapper):
    """CartPole-v1 without the velocities; needs memory.

    Observation: position and angle only. Known as `"StatelessCartPole-v1"` to `fit`,
    `make_envs` and the command line. 500 steps at most, reward 1 a step.

    Known answers: a recurrent policy reaches several hundred; a feed-forward one stays
    far below, for it cannot tell which way the pole moves.

    Args:
        render_mode: As for `CartPole-v1`.

    Example:

    ```python
    kerasrl.PPO(policy={"cell": "lstm"}).fit("StatelessCartPole-v1", steps=10_000)
    ```
    """

    def __init__(self, render_mode=None):
        env = gymnasium.make(
            "CartPole-v1", render_mode=render_mode, disable_env_checker=True
        )
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Box(
            space.low[[0, 2]], space.high[[0, 2]], dtype=np.float32
        )

    def observation(self, observation):
        """Leaves out the velocities.

        Args:
            observation: float32 `[4]`.

        Returns:
            float32 `[2]`.
        """
        return observation[[0, 2]]


class StatelessPendulum(gymnasium.ObservationWrapper):
    """Pendulum-v1 without the angular velocity; needs memory.

    Observation: cosine and sine of the angle only. Known as `"StatelessPendulum-v1"`
    to `fit`, `make_envs` and the command line. 200 steps, rewards as in Pendulum-v1.

    Known answers: a recurrent policy swings the pendulum up and holds it, for -150 or
    so; a feed-forward one, which cannot tell which way it swings, stays far below.

    Args:
        render_mode: As for `Pendulum-v1`.

    Example:

    ```python
    kerasrl.SAC(policy={"cell": "lstm"}).fit("StatelessPendulum-v1", steps=10_000)
    ```
    """

    def __init__(self, render_mode=None):
        env = gymnasium.make(
            "Pendulum-v1", render_mode=render_mode, disable_env_checker=True
        )
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Box(
            space.low[:2], space.high[:2], dtype=np.float32
        )

    def observation(self, observation):
        """Leaves out the velocity.

        Args:
            observation: float32 `[3]`.

        Returns:
            float32 `[2]`.
        """
        return observation[:2]
