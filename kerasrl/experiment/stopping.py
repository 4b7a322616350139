"""When training stops."""

import math
from typing import Any

from kerasrl.experiment.reading import COUNTERS
from kerasrl.experiment.refusals import refuse, unknown
from kerasrl.logs import LOGGED


def make_stop(
    criteria: dict[str, Any],
    agent: Any,
    modules: tuple[str, ...],
    evaluation: Any = None,
) -> Any:
    """The callback that stops training, once the names of criteria are checked.

    A name that is not in `LOGGED` can only come from code of the user's: custom metrics
    of a policy or of episodes, or callbacks that an agent adds. So it is refused here
    unless there is such code, in a module of `--import` or of the algorithm. What is
    left, also a metric of another algorithm's, is refused when the first epoch ends
    without it.

    Args:
        criteria: dict of numbers.
        agent: an `Agent`.
        modules: the modules of `--import`.
        evaluation: the callback that evaluates while training, or None.

    Returns:
        A `kerasrl.callbacks.StopOn`.
    """
    from kerasrl.callbacks import StopOn

    known = {*LOGGED, *COUNTERS}
    if evaluation is not None:
        known |= {f"evaluation_{name}" for name in ("return_mean", "length_mean")}
    # Of several agents, names have the ids of policies at their ends.
    is_ours = type(agent).__module__.startswith("kerasrl.")
    if not modules and is_ours and not hasattr(agent, "agents"):
        for name in criteria:
            if name not in known:
                refuse(unknown("stop criterion", name, known))

    class Stop(StopOn):
        checked = False

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            logs = logs or {}
            # Before the first update nobody knows what it logs.
            if not self.checked and "loss" in logs:
                check_names(criteria, agent, {*logs, *COUNTERS})
                self.checked = True
            present = {*logs, *COUNTERS}
            left_out = {name: math.nan for name in criteria if name not in present}
            super().on_epoch_end(epoch, {**logs, **left_out})

    return Stop(criteria)


def check_names(criteria: dict[str, Any], agent: Any, values: set[str]) -> None:
    """Refuse criteria that an epoch with updates did not log."""
    for name in criteria:
        if name in LOGGED and name not in values:
            refuse(
                f"{type(agent).__name__} does not log the stop criterion {name!r}. "
                f"Expected one of: {', '.join(sorted(values))}."
            )
        if name not in values:
            refuse(unknown("stop criterion", name, values))
