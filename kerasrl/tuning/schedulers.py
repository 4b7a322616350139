"""Which trials go on: what is decided after each result.

Schedulers know trials by what a `Trial` holds (name, status, settings, results), and
keep nothing that JSON cannot say, so that a launcher that was killed goes on as if it
had not been.
"""

from collections.abc import Sequence
from typing import Any

from kerasrl.tuning.decisions import Continue, Decision
from kerasrl.tuning.trial import Trial


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
