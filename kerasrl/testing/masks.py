"""Environments in which not every action may be taken."""

import gymnasium
import numpy as np
from gymnasium import spaces

_SOURCES = ("observation", "info", "method", "none")


class IllegalActionsEnv(gymnasium.Env):
    """Wants the choice that it shows, and forbids others, as many as it is told.

    What is legal is drawn anew at every step; the choice that pays always is. The best
    return is `episode_length`. A policy that may choose anything gets a point only by
    guessing; one that honours masks guesses among fewer.

    An illegal action is an error, so that a run without one is a proof. Where the
    episode terminates nothing is legal any more.

    Args:
        options: Integer, number of actions; or sequence of integers, for
            `MultiDiscrete` actions that are right if every choice is.
        num_illegal: Integer, how many options of each choice are illegal.
        source: How the mask is told: `"observation"`, `"info"`, `"method"`
            (`action_masks()`), or `"none"`; then illegal actions only pay nothing.
        episode_length: Integer.
        terminates: Bool, whether episodes terminate at the end, or are truncated.
        start: Integer, from which actions are counted.

    Example:

    ```python
    kerasrl.PPO().fit(lambda: IllegalActionsEnv(70, 55), steps=2_048)
    ```
    """

    def __init__(
        self,
        options=70,
        num_illegal=55,
        source="method",
        episode_length=100,
        terminates=False,
        start=0,
    ):
        if source not in _SOURCES:
            raise ValueError(f"Received source={source!r}. Expected one of {_SOURCES}.")
        self.counts = np.atleast_1d(np.array(options, np.int64))
        if not 0 <= num_illegal < self.counts.min():
            raise ValueError(
                f"Received num_illegal={num_illegal}. Expected less than the "
                f"{self.counts.min()} options of each choice."
            )
        self.num_illegal = num_illegal
        self.source = source
        self.episode_length = episode_length
        self.terminates = terminates
        self.start = start
        self.observation_space = spaces.MultiDiscrete(self.counts)
        if np.ndim(options):
            starts = np.full(len(self.counts), start)
            self.action_space = spaces.MultiDiscrete(self.counts, start=starts)
        else:
            self.action_space = spaces.Discrete(int(options), start=start)
        if source == "observation":
            mask = spaces.MultiBinary(int(self.counts.sum()))
            self.observation_space = spaces.Dict(
                {"observation": self.observation_space, "action_mask": mask}
            )
        if source == "method":
            self.action_masks = self._flat_mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        self._draw()
        return self._observe(), self._info()

    def step(self, action):
        choices = np.atleast_1d(action) - self.start
        pairs = list(zip(self._legal, choices, strict=True))
        is_legal = all(c in np.flatnonzero(legal) for legal, c in pairs)
        if not is_legal and self.source != "none":
            raise ValueError(
                f"Received the action {choices}. Expected one of "
                f"{[np.flatnonzero(legal) for legal in self._legal]}."
            )
        reward = float((choices == self._wanted).all())
        self._steps += 1
        ends = self._steps == self.episode_length
        self._draw()
        if ends and self.terminates:
            self._legal = [np.zeros(count, np.int8) for count in self.counts]
        terminated, truncated = ends and self.terminates, ends and not self.terminates
        return self._observe(), reward, terminated, truncated, self._info()

    def _draw(self):
        self._wanted = self.np_random.integers(self.counts)
        self._legal = []
        for count, wanted in zip(self.counts, self._wanted, strict=True):
            others = np.delete(np.arange(count), wanted)
            legal = np.ones(count, np.int8)
            legal[self.np_random.permutation(others)[: self.num_illegal]] = 0
            self._legal.append(legal)

    def _flat_mask(self):
        return np.concatenate(self._legal)

    def _observe(self):
        if self.source != "observation":
            return self._wanted.copy()
        return {"observation": self._wanted.copy(), "action_mask": self._flat_mask()}

    def _info(self):
        return {"action_mask": self._flat_mask()} if self.source == "info" else {}
