"""What a user sees of trials while they run."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from kerasrl.display import clock, count, number
from kerasrl.tuning.results import Results, latest, seconds
from kerasrl.tuning.trial import Trial

PROGRESS = ("table", "lines", "none")
#: Seconds between two drawings.
_PERIOD = 0.5
#: Seconds between two lines that say how far all are, where there is no table.
_LINE_PERIOD = 60.0
#: Lines around the table's rows.
_MARGIN = 8
#: Which trials are shown first where there is no room for all.
_ORDER = ("running", "failed", "paused", "pending", "finished", "stopped")


class Table:
    """A table of trials that is drawn anew in its place; in a pipe, lines of events.

    Args:
        results: `Results`, whose trials are shown.
        progress: one of `PROGRESS`.
    """

    def __init__(self, results: Results, progress: str = "table") -> None:
        console = Console(soft_wrap=True, highlight=False)
        self.results = results
        self.is_silent = progress == "none"
        self._live: Live | None = None
        self._next = 0.0
        self._start = time.monotonic()
        self._next_line = self._start + _LINE_PERIOD
        self._console = console
        if progress == "table" and console.is_terminal and not console.is_dumb_terminal:
            # Drawn from here alone: no thread of its own.
            self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> "Table":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.update(self.draw(whole=True), refresh=True)
            self._live.stop()

    def begin(self) -> None:
        """Say how many trials there are, and where."""
        trials = self.results.trials
        done = sum(trial.has_ended for trial in trials)
        skipped = f", of which {done} have ended already" if done else ""
        self.say(f"{len(trials)} trials{skipped}, in {self.results.directory}")

    def say(self, text: str) -> None:
        """Print an event."""
        if self.is_silent:
            return
        if self._live is not None:
            self._live.console.print(Text(text))
            self._next = 0.0
            return
        print(text, flush=True)

    def update(self) -> None:
        """Draw the table anew, or say how far all are; not too often."""
        now = time.monotonic()
        if self._live is None and now >= self._next_line:
            self._next_line = now + _LINE_PERIOD
            self.say(self._title())
        if self._live is not None and now >= self._next:
            self._next = now + _PERIOD
            self._live.update(self.draw(), refresh=True)

    def draw(self, whole: bool = False) -> Grid:
        """The table as it is now.

        Args:
            whole: bool, whether it may be longer than the terminal is high.
        """
        trials = self.results.trials
        most = shutil.get_terminal_size().lines - _MARGIN
        shown = trials if whole else first(trials, max(most, 3))
        grid = Grid(title=self._title(), caption=self._caption(shown), box=None)
        grid.add_column("trial", no_wrap=True)
        grid.add_column("settings", overflow="fold")
        for name in ("seed", "status", "steps", self.results.metric, "time"):
            grid.add_column(name, justify="right", no_wrap=name != self.results.metric)
        # It says the same once more: what does not fit on the line is left out.
        grid.add_column("directory", no_wrap=True, overflow="ellipsis")
        for trial in shown:
            grid.add_row(*self._cells(trial))
        return grid

    def _title(self) -> str:
        counts: dict[str, int] = {}
        for trial in self.results.trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
        texts = [f"{counts[x]} {x}" for x in _ORDER if x in counts]
        return f"{', '.join(texts)}, after {clock(time.monotonic() - self._start)}"

    def _caption(self, shown: list[Trial]) -> str:
        more = len(self.results.trials) - len(shown)
        rest = f"and {more} more; " if more else ""
        return f"{rest}directories are in {self.results.directory}"

    def _cells(self, trial: Trial) -> Iterator[Text]:
        steps = trial.result.get("env_steps")
        directory = trial.directory
        if directory.is_relative_to(self.results.directory):
            directory = directory.relative_to(self.results.directory)
        for value in (
            f"{trial.number:05}",
            trial.tag or "-",
            str(trial.seed),
            trial.status,
            "-" if steps is None else count(steps),
            number(latest(trial, self.results.metric)),
            clock(seconds(trial)),
            str(directory),
        ):
            yield Text(value)


def first(trials: list[Trial], most: int) -> list[Trial]:
    """The trials that matter most, in their order."""
    if len(trials) <= most:
        return trials
    kept = sorted(trials, key=lambda trial: _ORDER.index(trial.status))[:most]
    names = {trial.name for trial in kept}
    return [trial for trial in trials if trial.name in names]
