"""Scaling of rewards by the spread of discounted returns."""

import numpy as np


class RewardScaler:
    """Divides rewards by the running standard deviation of the discounted return.

    The return is summed forward in time, `R_t = gamma * R_{t-1} + r_t`, and starts
    again after every ending. All rewards of a rollout are divided by the same number,
    which includes that rollout, so the order of advantages within it is kept.

    Paper: Engstrom et al. (2020), https://arxiv.org/abs/2005.12729, section 3.

    Args:
        gamma: Float, discount factor.
        epsilon: Float added to the variance.
        clip: Float, bound of scaled rewards.
        gather: `None`, or a function that takes a float64 array and returns the list
            of those of all processes whose rewards are to have the same scale.

    Example:

    ```python
    scaler = RewardScaler(gamma=0.99)
    scaler.start(num_envs=8)
    rewards = scaler(rollout)
    ```
    """

    def __init__(self, gamma, epsilon=1e-8, clip=10.0, gather=None):
        self.gamma = gamma
        self.epsilon = epsilon
        self.clip = clip
        self.gather = gather
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0
        self._returns = None

    def start(self, num_envs):
        """Forgets the unfinished returns: the environments were reset."""
        self._returns = np.zeros(num_envs)

    def __call__(self, rollout):
        """Learns from a rollout and returns its rewards, scaled.

        Args:
            rollout: A `kerasrl.rollouts.Rollout`.

        Returns:
            float32 `[T, B]`.
        """
        returns = np.empty(rollout.rewards.shape)
        for first, columns in rollout.parts():
            returns[:, columns] = self._sums(rollout, first, columns)
        summary = _summarize(returns[rollout.valid])
        summaries = [summary] if self.gather is None else self.gather(summary)
        for each in summaries:
            self._merge(*each.tolist())
        return self.scale(rollout.rewards)

    def _sums(self, rollout, first, columns):
        """Returns of the columns of one part, `[T, b]`, summed forward in time."""
        own = slice(first, first + columns.stop - columns.start)
        if self._returns is None:
            self.start(0)
        # It may be told of one worker after the other, and not of how many there are.
        missing = own.stop - len(self._returns)
        if missing > 0:
            self._returns = np.pad(self._returns, (0, missing))
        running = self._returns[own]
        # Also where the rollout before was of other episodes.
        running[rollout.episode_starts[0, columns]] = 0.0
        ends = (rollout.terminated | rollout.truncated)[:, columns]
        returns = np.empty(ends.shape)
        for time, rewards in enumerate(rollout.rewards[:, columns]):
            running *= self.gamma
            running += rewards
            returns[time] = running
            running[ends[time]] = 0.0
        return returns

    def scale(self, rewards):
        """Returns rewards `[...]` divided by the scale learnt so far, float32."""
        # Returns that have not varied yet say nothing of their scale.
        variance = self.squares / self.count if self.squares else 1.0
        scaled = rewards / np.sqrt(variance + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def _merge(self, size, mean, squares):
        if not size:
            return
        # Chan, Golub and LeVeque (1979).
        count = self.count + size
        delta = mean - self.mean
        self.squares += squares
        self.squares += delta**2 * self.count * size / count
        self.mean += delta * size / count
        self.count = count

    def get_state(self):
        """Returns the statistics as JSON-compatible data."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def set_state(self, state):
        """Restores what `get_state` returned."""
        self.count = state["count"]
        self.mean = state["mean"]
        self.squares = state["squares"]


def _summarize(values):
    """Number, mean and sum of squared deviations, float64 `[3]`."""
    if not values.size:
        return np.zeros(3)
    return np.array([values.size, values.mean(), values.var() * values.size])
