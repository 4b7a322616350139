"""What a function that is a trial is given, and says."""

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasrl.checks import nearest
from kerasrl.experiment import read_stop
from kerasrl.tuning.link import Leave, Link
from kerasrl.tuning.result_files import keep_rows
from kerasrl.tuning.trial import Trial

#: What every row has besides what is reported.
COUNTED = ("epochs", "time_total_s")


class Context:
    """A trial as the function that runs it sees it.

    An experiment's `run` may be a function of this, `module:name` or `file.py:name`,
    instead of an algorithm: anything that has settings and results.

    Attributes:
        settings: nested dict of plain values, what the trial tries.
        seed: int.
        env: str or None, the experiment's `env`.
        directory: path, where the trial keeps its files.
        checkpoint: path or None, what the trial goes on from: what it gave to `report`,
            or a copy of what another trial did.

    Example:

    ```python
    def train(context):
        level = 0.0
        for epoch in range(10):
            level += context.settings["speed"]
            context.report({"episode_return_mean": level})
    ```
    """

    def __init__(self, trial: Trial, link: Link) -> None:
        self.settings = trial.settings
        self.seed = trial.seed
        self.env = trial.env
        self.directory = trial.directory
        self.checkpoint = trial.checkpoint
        self._link = link
        self._stop = read_stop(trial.stop)
        self._rows = keep_rows(trial, self._is_before_checkpoint)
        self._before = self._rows[-1].get("time_total_s", 0.0) if self._rows else 0.0
        self._start = time.monotonic()
        link.start(len(self._rows))

    def _is_before_checkpoint(self, row: dict[str, Any]) -> bool:
        name = row.get("checkpoint")
        return self.checkpoint is not None and name == self.checkpoint.name

    def prepare(self, function: Callable[["Context"], Any]) -> Callable[[], str]:
        """What calls the function, and returns an empty reason."""

        @functools.wraps(function)
        def call() -> str:
            self._refuse_met()
            function(self)
            return ""

        return call

    def report(
        self, result: dict[str, Any], checkpoint: str | Path | None = None
    ) -> None:
        """Write down a result; does not return when the trial is to end.

        Args:
            result: dict from names to numbers; NaN where one is not known yet.
            checkpoint: path in `directory` of a file or folder from which the trial can
                go on after this result, written under a new name or renamed into its
                place. Without one, a trial that crashes begins anew.

        Raises:
            ValueError: for what is no number, a checkpoint elsewhere, or a stop
                criterion that is not reported.
        """
        row: dict[str, Any] = {
            "epoch": len(self._rows),
            "time_total_s": self._before + time.monotonic() - self._start,
            "timestamp": time.time(),
            **{name: _number(name, value) for name, value in result.items()},
        }
        if checkpoint is not None:
            self.checkpoint = self._check_checkpoint(Path(checkpoint))
            row["checkpoint"] = self.checkpoint.name
        for name in self._stop:
            if name not in row and name not in COUNTED:
                raise ValueError(
                    f"The stop criterion {name!r} is not reported. {nearest(name, row)}"
                )
        self._rows.append(row)
        with open(self.directory / "result.json", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        if checkpoint is not None:
            self._link.checkpoint(self.checkpoint)
        answer = self._link.result(row)
        if answer == "checkpoint":
            # That of this result, if there is one.
            self._link.checkpoint(self.checkpoint if checkpoint is not None else None)
        elif answer == "pause":
            # What has ended need not start once more.
            self._refuse_met()
            raise Leave("paused")
        elif answer != "continue":
            raise Leave({"stop": "stopped"}.get(answer, answer))
        self._refuse_met()

    def _refuse_met(self) -> None:
        """Leave if the latest result meets a criterion."""
        if not self._rows:
            return
        values = {**self._rows[-1], "epochs": len(self._rows)}
        for name, limit in self._stop.items():
            value = values.get(name)
            if value is not None and value >= limit:
                reason = f"{name} = {value:g} reached {limit:g}"
                raise Leave("finished", reason)

    def _check_checkpoint(self, path: Path) -> Path:
        path = path if path.is_absolute() else self.directory / path
        if path.parent != self.directory or not path.exists():
            raise ValueError(
                f"Received checkpoint={str(path)!r}. Expected what exists directly in "
                f"{self.directory}."
            )
        return path


def _number(name: str, value: Any) -> float | int | bool | None:
    try:
        plain = value if isinstance(value, bool | int) else float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"Received {name}={value!r} as a result. Expected a number."
        ) from None
    return plain if math.isfinite(plain) else None
