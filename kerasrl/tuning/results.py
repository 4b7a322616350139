"""What came out of trials, as tables."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasrl import checks
from kerasrl.plotting import Band, band, plot_learning_curves
from kerasrl.plotting.curves import half_width
from kerasrl.tuning.schedulers import OCCASIONAL
from kerasrl.tuning.trial import FILE, Trial, write_text

SUMMARY = "summary.csv"
METRIC = "episode_return_mean"


class Results:
    """The trials of experiments, and what they reached.

    Attributes:
        trials: list of `Trial`, in the order in which they were to start.
        directory: path of their common directory.
        metric: str, what counts where nothing else is asked for.
        mode: str, "max" or "min".

    Example:

    ```python
    results = kerasrl.tuning.Results.load("sweep")
    results.best().settings
    ```
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        directory: str | Path,
        metric: str = METRIC,
        mode: str = "max",
    ) -> None:
        self.trials = list(trials)
        self.directory = Path(directory)
        self.metric = metric
        self.mode = checks.choice("mode", mode, ("max", "min"))

    @classmethod
    def load(
        cls, directory: str | Path, metric: str = METRIC, mode: str = "max"
    ) -> "Results":
        """The results in a directory, also of trials that run just now.

        Raises:
            ValueError: if there is no trial in it.
        """
        directory = Path(directory).expanduser()
        places = sorted(path.parent for path in directory.rglob(FILE))
        if not places:
            raise ValueError(
                f"There are no trials in {directory}. Expected the directory of a "
                "sweep, in which each trial has a folder with trial.json."
            )
        trials = [Trial.load(place) for place in places]
        trials.sort(key=lambda each: (each.experiment, each.number, each.seed))
        return cls(trials, directory, metric, mode)

    @property
    def failed(self) -> list[Trial]:
        """The trials that crashed more often than they were tried again."""
        return [trial for trial in self.trials if trial.status == "failed"]

    def best(self, metric: str | None = None, mode: str | None = None) -> Trial:
        """The trial whose latest result is best.

        Args:
            metric: str or None, a name in results; None: as when it was made.
            mode: "max", "min" or None, likewise.

        Raises:
            ValueError: if no trial has a result with it.
        """
        metric = self.metric if metric is None else metric
        mode = checks.choice("mode", mode or self.mode, ("max", "min"))
        scored = [(latest(trial, metric), trial) for trial in self.trials]
        found = [(value, trial) for value, trial in scored if math.isfinite(value)]
        if not found:
            known = sorted({name for trial in self.trials for name in trial.result})
            raise ValueError(
                f"No trial has a result {metric!r}. Expected one of: {', '.join(known)}"
            )
        choose = max if mode == "max" else min
        return choose(found, key=lambda pair: pair[0])[1]

    def settings(self) -> list[list[Trial]]:
        """The trials by their settings: lists of those that differ in the seed."""
        groups: dict[tuple[str, int], list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault((trial.experiment, trial.number), []).append(trial)
        return list(groups.values())

    def compare(self) -> list[dict[str, Any]]:
        """One dict for each setting, the best first.

        `setting`, `seeds` (that have a result), `mean` of the latest values over seeds,
        `half_width` of its 95 % confidence interval (NaN of one seed), `env_steps` (the
        mean of those that have begun), `seconds` (the sum), `status`.
        """
        rows = []
        for trials in self.settings():
            values = [latest(trial, self.metric) for trial in trials]
            values = [value for value in values if math.isfinite(value)]
            counts = Counter(trial.status for trial in trials)
            steps = [x.result.get("env_steps") or 0 for x in trials if x.results]
            rows.append(
                {
                    "setting": label(trials[0], self.trials),
                    "seeds": len(values),
                    "mean": mean_of(values),
                    "half_width": float(half_width(np.array(values)))
                    if values
                    else math.nan,
                    "env_steps": mean_of(steps or [0]),
                    "seconds": sum(map(seconds, trials)),
                    "status": ", ".join(f"{n} {x}" for x, n in counts.items()),
                }
            )
        sign = -1 if self.mode == "max" else 1
        return sorted(rows, key=lambda row: by_size(sign * row["mean"]))

    def curves(self, metric: str | None = None) -> dict[str, Band]:
        """The learning curve of each setting over its seeds, the best first.

        Args:
            metric: str or None, a name in results; None: as when it was made.

        Returns:
            dict from settings to `kerasrl.plotting.Band`.
        """
        metric = self.metric if metric is None else metric
        found = {}
        for trials in self.settings():
            each = [series(trial, metric) for trial in trials]
            each = [(places, values) for places, values in each if places]
            if each:
                found[label(trials[0], self.trials)] = band(each)
        order = [row["setting"] for row in self.compare()]
        return {name: found[name] for name in order if name in found}

    def plot(self, path: str | Path, metric: str | None = None, most: int = 8) -> Path:
        """Draw the learning curves of the best settings.

        Args:
            path: path of the picture, such as one that ends in `.png`.
            metric: str or None, a name in results; None: as when it was made.
            most: int, how many settings are drawn.

        Raises:
            ImportError: without Matplotlib (extra `plot`).
            ValueError: if there is no result yet.
        """
        metric = self.metric if metric is None else metric
        best = dict(list(self.curves(metric).items())[:most])
        return plot_learning_curves(best, path, ylabel=metric)

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict for each trial: what it was, how far it came, what it reached.

        Settings are `config.<name>`, nested ones `config.policy.hidden_units`. Results
        are the latest; `<metric>_best` is the best of all epochs.
        """
        choose = max if self.mode == "max" else min
        rows = []
        for trial in self.trials:
            values = [value for value in series(trial, self.metric)[1]]
            rows.append(
                {
                    "trial": trial.name,
                    "experiment": trial.experiment,
                    "number": trial.number,
                    "seed": trial.seed,
                    "status": trial.status,
                    "run": trial.run,
                    "env": trial.env,
                    **{f"config.{name}": x for name, x in flatten(trial.settings)},
                    "epochs": len(trial.results),
                    "env_steps": trial.result.get("env_steps"),
                    self.metric: none_of_nan(latest(trial, self.metric)),
                    f"{self.metric}_best": choose(values, default=None),
                    "time_total_s": round(seconds(trial), 3),
                    "attempts": trial.attempts,
                    "checkpoint": trial.checkpoint and str(trial.checkpoint),
                    "directory": str(trial.directory),
                    "error": trial.error.partition("\n")[0],
                }
            )
        return rows

    def write(self) -> Path:
        """Write `summary.csv` into the directory, whole or not at all."""
        rows = self.to_rows()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        # Settings beside each other, whichever trial had them first.
        place = {name: index for index, name in enumerate(columns)}
        first = min((i for n, i in place.items() if n.startswith("config.")), default=0)
        columns.sort(
            key=lambda name: first if name.startswith("config.") else place[name]
        )
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path = self.directory / SUMMARY
        self.directory.mkdir(parents=True, exist_ok=True)
        write_text(path, text.getvalue())
        return path


def latest(trial: Trial, metric: str) -> float:
    """The latest value of a metric, NaN if there is none.

    What is measured now and then only has the value of its latest measurement.
    """
    if metric.startswith(OCCASIONAL):
        return next(reversed(series(trial, metric)[1]), math.nan)
    value = trial.result.get(metric)
    return float(value) if isinstance(value, int | float) else math.nan


def none_of_nan(value: float) -> float | None:
    """A number as tables have it, in which what is not known is empty."""
    return None if math.isnan(value) else value


def series(
    trial: Trial, metric: str, over: str = "env_steps"
) -> tuple[list[float], list[float]]:
    """A metric over environment steps; epochs in which it is not known are left out.

    Args:
        trial: `Trial`.
        metric: str, a name in its results.
        over: str, likewise; where results lack it, epochs are counted.

    Returns:
        two lists of floats, the places and the values.
    """
    places, values = [], []
    for index, row in enumerate(trial.results):
        value = row.get(metric)
        if isinstance(value, int | float) and math.isfinite(value):
            places.append(float(row.get(over, index)))
            values.append(float(value))
    return places, values


def seconds(trial: Trial) -> float:
    """Seconds that a trial has trained, in all of its processes."""
    found = [row.get("time_this_epoch_s") for row in trial.results]
    each = [float(value) for value in found if isinstance(value, int | float)]
    if len(each) == len(found):
        return sum(each)
    return float(trial.result.get("time_total_s") or 0.0)


def flatten(
    tree: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str | float | int | bool | None]]:
    """Entries of a nested dict under dotted names; lists are one entry."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, str | float | int | bool | None)
            yield f"{prefix}{key}", value if plain else str(value)


def label(trial: Trial, trials: Sequence[Trial]) -> str:
    """What tells the setting of a trial from others."""
    several = len({each.experiment for each in trials}) > 1
    tag = trial.tag or f"{trial.run.rpartition(':')[2]} {trial.env or ''}".strip()
    return f"{trial.experiment}: {tag}" if several else tag


def by_size(value: float) -> tuple[bool, float]:
    """A key to sort by that has NaN last."""
    return math.isnan(value), value


def mean_of(values: Iterable[float]) -> float:
    """The mean of those that are finite, NaN if none is."""
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan
