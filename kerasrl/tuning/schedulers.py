"""Which trials go on: what is decided after each result.

Schedulers know trials by what a `Trial` holds, and remember nothing that JSON cannot
say, so that a launcher that was killed goes on as if it had not been.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasrl import checks
from kerasrl.tuning.decisions import Continue, Decision, Stop
from kerasrl.tuning.trial import Trial

MODES = ("max", "min")
#: Measured now and then only: a result without one says nothing.
OCCASIONAL = "evaluation"


class Scheduler:
    """Lets every trial run to its end, in order; the base of those that do not.

    The launcher calls `on_result` after each result and does what it returns, `on_end`
    when a trial has ended, `choose` when a slot is free, and `on_start` for the trial
    that was chosen. It writes `get_state()` to disk after each call, and gives it to
    `set_state` when it goes on.
    """

    def on_result(
        self, trial: Trial, result: dict[str, Any], trials: Sequence[Trial]
    ) -> Decision:
        """Decide about a trial that has a new result.

        Args:
            trial: `Trial` that reports.
            result: dict, the result; also the last of `trial.results`.
            trials: sequence of all trials of the experiment.

        Returns:
            `Continue`, `Stop`, `Pause` or `Exploit`.
        """
        return Continue()

    def on_end(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Called when a trial has finished, was stopped or has failed for good."""

    def choose(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial that may use a free slot next, or None: the first that waits."""
        waiting = ("pending", "paused")
        return next((each for each in trials if each.status in waiting), None)

    def on_start(self, trial: Trial, trials: Sequence[Trial]) -> Decision:
        """Decide how a chosen trial starts: `Continue`, or `Exploit` another first.

        That of another trial is taken at once: its checkpoint of this moment counts.
        """
        return Continue()

    def get_state(self) -> dict[str, Any]:
        """What the scheduler has to remember, in the types of JSON."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""


class Measure:
    """What schedulers compare: a number of each result, at a time of its training.

    Args:
        metric: str, name of a number in results.
        mode: `"max"` or `"min"`, which end of it is good.
        time_attr: str, name of what results count time by.

    Raises:
        ValueError: for another mode.
    """

    def __init__(self, metric: str, mode: str, time_attr: str) -> None:
        self.metric = metric
        self.mode = checks.choice("mode", mode, MODES)
        self.time_attr = time_attr

    def time(self, result: dict[str, Any]) -> float:
        """When a result was reported; a ValueError if it does not say so."""
        value: Any = result.get(self.time_attr)
        if not checks.is_number(value):
            raise ValueError(
                f"Received a result with {self.time_attr}={value!r}. Expected a number "
                f"by which time is counted. {checks.nearest(self.time_attr, result)}"
            )
        return float(value)

    def score(self, trial: Trial, result: dict[str, Any]) -> float | None:
        """How good a result of a trial is, more is better; None if it does not say.

        What is no finite number says nothing until there was one: no episode has ended
        yet. After that, something has diverged, which is worse than every number. Of
        an evaluation it says nothing: there was none in this epoch.

        Raises:
            ValueError: if results do not hold the metric.
        """
        value: Any = result.get(self.metric)
        if not checks.is_number(value) and self.metric.startswith(OCCASIONAL):
            return None
        if self.metric not in result:
            raise ValueError(
                f"Received metric={self.metric!r}, which results do not hold. "
                f"{checks.nearest(self.metric, result)}"
            )
        if not checks.is_number(value):
            rows = itertools.takewhile(lambda row: row is not result, trial.results)
            before = (row.get(self.metric) for row in rows)
            return -math.inf if any(map(checks.is_number, before)) else None
        return float(value) if self.mode == "max" else -float(value)


class MedianStopping(Scheduler):
    """Stops a trial whose best result is below the median of what others averaged.

    At time `t`, the best score that a trial has had is compared with the median, over
    all other trials that came as far, of their mean scores until `t`. Trials that
    finished count as well.

    Paper: Golovin et al. (2017), Google Vizier, section 3.2.2.

    Args:
        metric: str, name of a number in results.
        mode: `"max"` or `"min"`.
        time_attr: str, name of what results count time by.
        grace_period: number in the units of `time_attr`; before it, no trial is stopped
            and no result counts.
        min_trials: positive integer, how many other trials are needed.

    Raises:
        ValueError: for what cannot be meant.

    Example:

    ```python
    scheduler = MedianStopping(grace_period=20_000)
    ```
    """

    def __init__(
        self,
        metric: str = "episode_return_mean",
        mode: str = "max",
        time_attr: str = "env_steps",
        grace_period: float = 0,
        min_trials: int = 3,
    ) -> None:
        self.measure = Measure(metric, mode, time_attr)
        self.grace_period = checks.positive("grace_period", grace_period, zero=True)
        self.min_trials = checks.positive_integer("min_trials", min_trials)

    def on_result(
        self, trial: Trial, result: dict[str, Any], trials: Sequence[Trial]
    ) -> Decision:
        now = self.measure.time(result)
        if now < self.grace_period or self.measure.score(trial, result) is None:
            return Continue()
        means = [
            statistics.fmean(self._scores(each, now))
            for each in trials
            if each is not trial and self._came_as_far(each, now)
        ]
        if len(means) < self.min_trials:
            return Continue()
        best, median = max(self._scores(trial, now)), statistics.median(means)
        if best >= median:
            return Continue()
        sign = 1 if self.measure.mode == "max" else -1
        return Stop(
            f"its best {self.measure.metric}, {sign * best:.5g}, is worse than "
            f"{sign * median:.5g}, the median of {len(means)} others, at {now:g} "
            f"{self.measure.time_attr}"
        )

    def _came_as_far(self, trial: Trial, now: float) -> bool:
        is_far = any(self.measure.time(each) >= now for each in trial.results)
        return is_far and bool(self._scores(trial, now))

    def _scores(self, trial: Trial, now: float) -> list[float]:
        scores = [
            self.measure.score(trial, result)
            for result in trial.results
            if self.grace_period <= self.measure.time(result) <= now
        ]
        return [each for each in scores if each is not None]


class SuccessiveHalving(Scheduler):
    """Stops trials early, so that the best of them get most of the time: ASHA.

    There are rungs at `grace_period * reduction_factor ** k`. A trial that reaches one
    goes on if its score is among the best `1 / reduction_factor` of those that reached
    it before. Nobody waits: the first always goes on.

    Paper: Li et al. (2018), https://arxiv.org/abs/1810.05934.

    Args:
        metric: str, name of a number in results.
        mode: `"max"` or `"min"`.
        time_attr: str, name of what results count time by.
        grace_period: positive number in the units of `time_attr`, the first rung.
        reduction_factor: number above 1, how many trials there are for each that goes
            on.

    Raises:
        ValueError: for what cannot be meant.

    Example:

    ```python
    scheduler = SuccessiveHalving(grace_period=10_000, reduction_factor=3)
    ```
    """

    def __init__(
        self,
        metric: str = "episode_return_mean",
        mode: str = "max",
        time_attr: str = "env_steps",
        grace_period: float = 10_000,
        reduction_factor: float = 4,
    ) -> None:
        self.measure = Measure(metric, mode, time_attr)
        self.grace_period = checks.positive(
            "grace_period", grace_period, optional=False
        )
        self.reduction_factor = checks.finite("reduction_factor", reduction_factor)
        if self.reduction_factor <= 1:
            raise ValueError(
                f"Received reduction_factor={reduction_factor!r}. Expected a number "
                "above 1."
            )
        #: For each rung: the score of each trial that reached it, by its name.
        self.rungs: list[dict[str, float | None]] = []
        #: Why trials were stopped, by their names: a launcher may be killed before they
        #: were, and they then come to the same rung again.
        self.stopped: dict[str, str] = {}

    def on_result(
        self, trial: Trial, result: dict[str, Any], trials: Sequence[Trial]
    ) -> Decision:
        if trial.name in self.stopped:
            return Stop(self.stopped[trial.name])
        score = self.measure.score(trial, result)
        rung = self._rung(self.measure.time(result))
        if score is None or rung is None:
            return Continue()
        while len(self.rungs) <= rung:
            self.rungs.append({})
        scores = self.rungs[rung]
        if trial.name in scores:
            return Continue()
        others = [each for each in scores.values() if each is not None]
        # None is what JSON has for a score that is no number.
        scores[trial.name] = score if math.isfinite(score) else None
        if not others:
            return Continue()
        least = float(np.quantile(others, 1 - 1 / self.reduction_factor))
        if score >= least:
            return Continue()
        sign = 1 if self.measure.mode == "max" else -1
        self.stopped[trial.name] = (
            f"its {self.measure.metric}, {sign * score:.5g}, is worse than "
            f"{sign * least:.5g}, asked for at rung {rung} after {len(others)} others"
        )
        return Stop(self.stopped[trial.name])

    def _rung(self, now: float) -> int | None:
        """The highest rung that is reached by now, or None."""
        if now < self.grace_period:
            return None
        rungs = math.log(now / self.grace_period, self.reduction_factor)
        # 3 ** 5 / 3 has a logarithm of 3.9999999999999996.
        return math.floor(rungs + 1e-9)

    def get_state(self) -> dict[str, Any]:
        rungs = [dict(scores) for scores in self.rungs]
        return {"rungs": rungs, "stopped": dict(self.stopped)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rungs = [dict(scores) for scores in state["rungs"]]
        self.stopped = dict(state.get("stopped", {}))
