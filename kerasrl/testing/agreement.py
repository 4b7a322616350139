"""A probe that only actions whose parts depend on each other can solve."""

import gymnasium
import numpy as np
from gymnasium import spaces


class AgreementEnv(gymnasium.Env):
    """Parts of an action must agree, on something else than last time.

    A step pays 1 if all parts are equal and differ from the first part of the action
    before, which the policy does not see; the first step of an episode pays nothing.
    The observation is always zero, so a policy without memory must choose at random,
    and yet alike in all parts.

    Known answers, for a policy without memory: the best return is
    `(length - 1) (1 - 1 / size)`, each choice being equally probable for all parts
    together. Independent parts get at most `(length - 1) / 4`, whatever the size: with
    probabilities p of the first part and q of another, a step pays
    `sum p_i (1 - p_i) q_i`, of which each factor `p_i (1 - p_i)` is 1/4 at most. A
    policy that chooses no part at random gets 0. Known as `"Agreement-v1"` to `fit`,
    `make_envs` and the command line.

    Args:
        size: Integer, number of choices of each part.
        num_parts: Integer, number of parts.
        length: Integer, steps in an episode, which ends by termination.

    Example:

    ```python
    agent = kerasrl.PPO(policy={"autoregressor": "made"})
    agent.fit("Agreement-v1", steps=50_000)
    agent.evaluate("Agreement-v1", deterministic=False)["return_mean"]  # 7.5 at best
    ```
    """

    def __init__(self, size=4, num_parts=2, length=11):
        self.size = size
        self.length = length
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.MultiDiscrete([size] * num_parts)
        self._before = None
        self._step = 0

    @property
    def best_return(self):
        """The best expected return of a policy without memory."""
        return (self.length - 1) * (1 - 1 / self.size)

    @property
    def independent_return(self):
        """The best expected return of such a policy with independent parts."""
        return (self.length - 1) / 4

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._before = None
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        parts = np.asarray(action).tolist()
        agree = len(set(parts)) == 1
        reward = float(self._before not in (None, parts[0]) and agree)
        self._before = parts[0]
        self._step += 1
        ended = self._step >= self.length
        return np.zeros(1, np.float32), reward, ended, False, {}
