"""A warning about returns that the losses were not made for."""

import math
import warnings
from typing import Any

import numpy as np

from kerasrl.callbacks.callback import Callback


class RewardScaleWarning(Callback):
    """Warns once when rewards are of a scale that the losses handle badly.

    The value loss grows with the square of the returns while the policy loss does not
    (advantages are normalised), and one gradient clip holds both: with returns in the
    thousands the policy hardly moves; with tiny ones the value function hardly learns.
    And where `value_clip` bounds the change of a value per update, it must not be tiny
    beside the values. All three look like "it does not learn".

    An agent with `normalize_rewards` is left alone.

    The scale is the root mean square of the discounted return, summed as rewards come
    in and cut at episode ends, over the first few rollouts. A check costs one pass over
    the rewards and stops after these rollouts.

    Args:
        low, high: floats; warn when the scale is below or above.
        value_clip_ratio: float; warn when the scale is more than so many times the
            agent's `value_clip`, if it has one.
        rollouts: int, how many rollouts to measure before judging.

    Attributes:
        scale: float, as measured so far; NaN before the first rollout.

    Raises:
        ValueError: if `low >= high` or `rollouts` is below 1.

    Example:

    ```python
    agent.fit(
        "Pendulum-v1",
        steps=100_000,
        callbacks=[kerasrl.callbacks.RewardScaleWarning()],
    )
    ```
    """

    def __init__(
        self,
        low: float = 1e-3,
        high: float = 500.0,
        value_clip_ratio: float = 100.0,
        rollouts: int = 10,
    ) -> None:
        super().__init__()
        if not 0 <= low < high:
            raise ValueError(
                f"Expected 0 <= low < high. Received: low={low}, high={high}"
            )
        if rollouts < 1:
            raise ValueError(f"rollouts must be at least 1. Received: {rollouts}")
        self.low = low
        self.high = high
        self.value_clip_ratio = value_clip_ratio
        self.rollouts = rollouts
        self.scale = math.nan
        self._measured = 0
        self._squares = 0.0
        self._count = 0
        self._running: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._running = None

    def on_rollout_end(self, rollout: Any) -> None:
        # An agent that scales rewards itself has seen to it.
        if self._measured >= self.rollouts:
            return
        # Nor are those of several policies of one scale.
        if not hasattr(self.agent, "gamma") or self.agent.normalize_rewards:
            return
        gamma = float(self.agent.gamma)
        rewards = np.asarray(rollout.rewards, dtype="float64")
        ended = np.asarray(rollout.terminated) | np.asarray(rollout.truncated)
        valid = np.asarray(rollout.valid)
        if self._running is None:
            self._running = np.zeros(rewards.shape[1])
        self._running[np.asarray(rollout.episode_starts[0])] = 0.0
        for reward, end, counts in zip(rewards, ended, valid, strict=True):
            self._running = gamma * self._running + reward
            self._squares += float(np.square(self._running[counts]).sum())
            self._count += int(counts.sum())
            self._running[end] = 0.0
        self.scale = math.sqrt(self._squares / max(self._count, 1))
        self._measured += 1
        if self._measured == self.rollouts:
            self._judge()

    def _judge(self) -> None:
        clip = getattr(self.agent, "value_clip", None)
        if clip is not None and self.scale > self.value_clip_ratio * clip:
            _warn(
                f"Returns are of the order of {self.scale:.3g}, but value_clip={clip} "
                "lets a value change by no more than that per update. Raise "
                "value_clip, set it to None, or set normalize_rewards=True."
            )
        elif self.scale > self.high:
            _warn(
                f"Returns are of the order of {self.scale:.3g}: the value loss will "
                f"drown the policy loss (expected at most {self.high:g}). Scale the "
                "rewards (normalize_rewards=True does), or lower value_coef."
            )
        elif 0 < self.scale < self.low:
            _warn(
                f"Returns are of the order of {self.scale:.3g}: the value function "
                f"will hardly learn (expected at least {self.low:g}). Scale the "
                "rewards."
            )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
