"""Which settings are tried next, from what was found before."""

from pathlib import Path
from typing import Any

from kerasrl.tuning.decisions import Continue, Decision
from kerasrl.tuning.trial import Trial


class Searcher:
    """Suggests settings one after another, in the place of grids and draws.

    The launcher calls `start` once, `suggest` when there is a slot for another setting,
    `on_result` after each result of a trial, does what that returns, and `on_end` when
    a trial has ended. A searcher keeps what it learns in files of its own.
    """

    def start(self, directory: Path, num_seeds: int) -> None:
        """Called before all else, also when an experiment goes on.

        Args:
            directory: path of the experiment, to keep files in.
            num_seeds: positive integer, how many trials there are of each setting;
                they have the same `number`.
        """

    def suggest(self, number: int) -> dict[str, Any] | None:
        """Settings to try.

        Args:
            number: integer from 0, that of the setting; the same number once more is
                the same setting.

        Returns:
            nested dict of plain values that go before those of the experiment's
            `config`, or None if nothing is left to try.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `suggest`.")

    def on_result(self, trial: Trial, result: dict[str, Any]) -> Decision:
        """Decide about a trial that has a new result: `Continue` or `Stop`."""
        return Continue()

    def on_end(self, trial: Trial) -> None:
        """Called when a trial has finished, was stopped or has failed for good.

        Once more for each of these when an experiment goes on.
        """
