"""Estimates while training."""

import math
from typing import Any

from kerasrl.callbacks import Callback
from kerasrl.estimates.estimation import checked_methods, estimate


class OffPolicyEstimation(Callback):
    """Estimates from a dataset how well the policy would do, while it trains.

    For training without an environment. Use episodes that are not learnt from:
    `dataset.split([0.9, 0.1])`. Put this callback before those that monitor it.

    Adds to the epoch's logs, for each method, `estimated_return_<method>` and
    `estimated_return_<method>_low`, the lower end of its interval; and
    `effective_sample_size`, where there are log-probabilities. In epochs without an
    estimate they are NaN.

    Args:
        dataset: `kerasrl.offline.Dataset`.
        methods: name or names of estimates, as for `kerasrl.offline.estimate`.
        every_epochs: int, estimate at the end of every so many epochs.
        **arguments: as for `kerasrl.offline.estimate`.

    Raises:
        ValueError: if `every_epochs` is not positive, or a method is not known.

    Example:

    ```python
    train, test = dataset.split([0.9, 0.1], seed=0)
    estimation = kerasrl.estimates.OffPolicyEstimation(test, methods=["wis"])
    agent.fit(train, steps=10_000, callbacks=[estimation])
    ```
    """

    def __init__(
        self,
        dataset: Any,
        methods: Any = ("wis",),
        every_epochs: int = 1,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if every_epochs < 1:
            raise ValueError(
                f"every_epochs must be at least 1. Received: {every_epochs}"
            )
        self.dataset = dataset
        self.methods = checked_methods(methods)
        self.every_epochs = every_epochs
        self.arguments = arguments
        self._epochs = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._epochs = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs += 1
        found: dict[str, Any] = {}
        if self._epochs % self.every_epochs == 0:
            found = estimate(self.agent, self.dataset, self.methods, **self.arguments)
        if logs is None:
            return
        for method in self.methods:
            value = found.get(method, {"mean": math.nan, "low": math.nan})
            logs[f"estimated_return_{method}"] = value["mean"]
            logs[f"estimated_return_{method}_low"] = value["low"]
        if "effective_sample_size" in found or not found:
            size = found.get("effective_sample_size", math.nan)
            logs["effective_sample_size"] = size
