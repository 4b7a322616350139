"""Goals that can be exchanged for others."""

import gymnasium
import numpy as np
from gymnasium import spaces


class BitFlippingEnv(gymnasium.Env):
    """Bits are flipped, one at a time, until they are those of the goal.

    From Andrychowicz et al. (2017), https://arxiv.org/abs/1707.01495. The observation
    is a dict of `observation` and `achieved_goal`, both the bits, and `desired_goal`.
    Bits and goal are drawn at random, and differ. Each step earns -1, but the one that
    reaches the goal, which ends the episode, 0; after `num_bits` steps it is cut off.
    Known as `"BitFlipping-v1"` to `fit`, `make_envs` and the command line.

    Known answers: flipping the bits that differ, `d` of them, returns `1 - d`; random
    play hardly ever reaches the goal, and returns `-num_bits`. Many bits are therefore
    learnt with `hindsight` only.

    Args:
        num_bits: Integer of at least 2.

    Raises:
        ValueError: `num_bits` is less than 2.

    Example:

    ```python
    kerasrl.DQN(hindsight="future").fit("BitFlipping-v1", steps=100_000)
    ```
    """

    def __init__(self, num_bits=15):
        if num_bits < 2:
            raise ValueError(f"`num_bits` must be at least 2. Received: {num_bits}.")
        self.num_bits = num_bits
        keys = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = spaces.Dict(
            {key: spaces.MultiBinary(num_bits) for key in keys}
        )
        self.action_space = spaces.Discrete(num_bits)
        self._bits = self._goal = np.zeros(num_bits, np.int8)
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        self._bits = self._draw()
        self._goal = self._draw()
        while (self._goal == self._bits).all():
            self._goal = self._draw()
        return self._observation(), {}

    def step(self, action):
        self._step += 1
        self._bits[action] = 1 - self._bits[action]
        observation = self._observation()
        goals = observation["achieved_goal"], observation["desired_goal"]
        terminated = bool(self.compute_terminated(*goals, {}))
        return (
            observation,
            float(self.compute_reward(*goals, {})),
            terminated,
            not terminated and self._step >= self.num_bits,
            {"is_success": terminated},
        )

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Rewards of steps, if the goals had been others.

        Args:
            achieved_goal: `[..., num_bits]`.
            desired_goal: `[..., num_bits]`.
            info: Anything.

        Returns:
            float32 `[...]`.
        """
        reached = self.compute_terminated(achieved_goal, desired_goal, info)
        return np.asarray(reached, np.float32) - np.float32(1.0)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        """Whether steps end the episode, bool `[...]`, as of `compute_reward`."""
        return (achieved_goal == desired_goal).all(axis=-1)

    def _draw(self):
        return self.np_random.integers(2, size=self.num_bits).astype(np.int8)

    def _observation(self):
        return {
            "observation": self._bits.copy(),
            "achieved_goal": self._bits.copy(),
            "desired_goal": self._goal.copy(),
        }
