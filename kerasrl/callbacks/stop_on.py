"""Stopping when a criterion is met."""

import math
import time
from typing import Any

from kerasrl.callbacks.callback import Callback
from kerasrl.checks import nearest


class StopOn(Callback):
    """Stops training as soon as one of several numbers is reached.

    `keras.callbacks.EarlyStopping` stops when nothing improves any more. This stops
    when enough has been reached: a return, a budget of environment steps, a time.

    Args:
        criteria: dict from a name to a number. Training stops when the value is at
            least that number. Names are those of the epoch's logs
            (`episode_return_mean`, `evaluation_return_mean` if a callback before this
            one adds it, ...) and `env_steps`, `episodes`, `iterations` (of the agent's
            whole life), `epochs` and `time_total_s` (of this `fit`). Counters and time
            are looked at after every iteration, the others at the end of every epoch.

    Attributes:
        reason: str or None, the criterion that was met.

    Raises:
        TypeError: if `criteria` is not a dict of numbers.
        ValueError: if it is empty or, at the end of the first epoch, names something
            that is not in the logs.

    Example:

    ```python
    stop = kerasrl.callbacks.StopOn({"episode_return_mean": 475, "time_total_s": 600})
    agent.fit("CartPole-v1", steps=1_000_000, callbacks=[stop])
    ```
    """

    def __init__(self, criteria: dict[str, float]) -> None:
        super().__init__()
        if not isinstance(criteria, dict):
            raise TypeError(
                "criteria must be a dict such as {'episode_return_mean': 475}. "
                f"Received: {criteria!r}"
            )
        if not criteria:
            raise ValueError("criteria is empty: give at least one name and number.")
        for name, value in criteria.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(
                    f"The criterion {name!r} must be a number. Received: {value!r}"
                )
        self.criteria = dict(criteria)
        self.reason: str | None = None
        self._epochs = 0
        self._start = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.reason = None
        self._epochs = 0
        self._start = time.monotonic()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._check(self._counters())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs += 1
        values = {**(logs or {}), **self._counters(), "epochs": self._epochs}
        for name in self.criteria:
            if name not in values:
                raise ValueError(
                    f"StopOn does not know {name!r}. {nearest(name, values)} A "
                    "callback that adds to the logs must come earlier in the list."
                )
        self._check(values)

    def _counters(self) -> dict[str, float]:
        agent = self.agent
        return {
            "env_steps": agent.env_steps,
            "episodes": agent.episodes,
            "iterations": agent.iterations,
            "time_total_s": time.monotonic() - self._start,
        }

    def _check(self, values: dict[str, Any]) -> None:
        for name, limit in self.criteria.items():
            value = values.get(name)
            if value is None or math.isnan(float(value)):
                continue
            if value >= limit:
                self.reason = f"{name} = {float(value):g} reached {limit:g}"
                self.model.stop_training = True
                return
