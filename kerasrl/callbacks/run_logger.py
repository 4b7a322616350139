"""A directory for each run, and what happened in it."""

import csv
import importlib.metadata
import json
import math
import os
import platform
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from kerasrl.callbacks.callback import Callback

RESULTS = Path("~/kerasrl_results")
#: What `params.json` says once, however often a run is gone on with, unless it changes.
OF_THE_AGENT = ("algorithm", "seed", "config")
PACKAGES = ("kerasrl", "keras", "tensorflow", "gymnasium", "numpy")


class RunLogger(Callback):
    """Writes what a run was and how it went, in files that other tools read.

    | file | content |
    | --- | --- |
    | `params.json` | algorithm, environment, seed, steps, arguments, versions, ... |
    | `result.json` | one line of strict JSON an epoch; what is not a number is null |
    | `progress.csv` | the same as a table whose columns stay in place |

    Each line has the epoch's logs and `epoch`, `iterations`, `env_steps`,
    `time_this_epoch_s`, `time_total_s` (of this `fit`) and `timestamp` (seconds since
    1970).

    In the directory of a run that is gone on with, lines are added and epochs are
    counted on; `params.json` keeps what the first `fit` wrote and lists each further
    one under `resumed`. An agent that has not trained yet begins a new `params.json`.

    Put it after callbacks that add to the logs.

    Args:
        directory: str, path or None. None makes a new directory
            `~/kerasrl_results/<ALGO>_<env>_<stamp>`.
        extra: dict or None, more entries for `params.json`.

    Attributes:
        directory: path of the run, known from the start of training.
        row: dict, the last line of `result.json`; empty before the first.
        rows_before: list of dicts or None, to be set where a training goes on in
            another process: the lines of `result.json` that it goes on from, also in
            its count of seconds. None: epochs go on from the lines up to the agent's
            environment steps, seconds begin at 0.

    Example:

    ```python
    logger = kerasrl.callbacks.RunLogger()
    agent.fit("CartPole-v1", steps=100_000, callbacks=[logger])
    print(logger.directory)
    ```
    """

    chief_only = True

    def __init__(
        self,
        directory: str | Path | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.directory = None if directory is None else Path(directory).expanduser()
        self.extra = dict(extra or {})
        self.row: dict[str, Any] = {}
        self.rows_before: list[dict[str, Any]] | None = None
        self._seconds_before = 0.0
        self._columns: list[str] = []
        self._next_epoch: int | None = None
        self._start = self._epoch_start = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.directory is None:
            self.directory = new_run_directory(
                type(self.agent).__name__, self.agent.env_name
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self._start = self._epoch_start = time.monotonic()
        self._write_params(self.directory / "params.json")
        self._columns = read_columns(self.directory / "progress.csv")
        self._next_epoch, self._seconds_before = None, 0.0
        if self.rows_before:
            self._next_epoch = len(self.rows_before)
            self._seconds_before = seconds_of(self.rows_before)
            self.rows_before = None
        elif self.agent.iterations > 0:
            self._next_epoch = epochs_until(
                self.directory / "result.json", int(self.agent.env_steps)
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if self._next_epoch is not None:
            epoch = self._next_epoch
            self._next_epoch += 1
        row = {
            "epoch": epoch,
            "iterations": int(self.agent.iterations),
            "env_steps": int(self.agent.env_steps),
            "time_this_epoch_s": now - self._epoch_start,
            "time_total_s": self._seconds_before + now - self._start,
            "timestamp": time.time(),
            **{
                name: value
                for name, value in (logs or {}).items()
                # `fit` logs floats.
                if name != "env_steps"
            },
        }
        self._epoch_start = now
        self.row = row = {key: jsonable(value) for key, value in row.items()}
        directory = self._directory()
        with open(directory / "result.json", "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        self._write_row(directory / "progress.csv", row)

    def _directory(self) -> Path:
        if self.directory is None:
            raise RuntimeError("RunLogger has no directory before `on_train_begin`.")
        return self.directory

    def _write_params(self, path: Path) -> None:
        optimizer = getattr(self.model, "optimizer", None)
        envs = getattr(self.agent, "envs", None)
        fit = dict(self.params or {})
        params = {
            "algorithm": type(self.agent).__name__,
            "env": self.agent.env_name,
            "seed": getattr(self.agent, "seed", None),
            "steps": fit.pop("environment_steps", None),
            "num_envs": None if envs is None else envs.num_envs,
            "config": describe(self.agent),
            "optimizer": None
            if optimizer is None
            else {
                "class_name": type(optimizer).__name__,
                "config": optimizer.get_config(),
            },
            "fit": fit,
            "command": sys.argv,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
            **self.extra,
        }
        first = read_params(path) if self.agent.iterations > 0 else None
        if first is not None:
            last = dict(first)
            for each in first.get("resumed", ()):
                last |= each
            again = {
                name: value
                for name, value in params.items()
                # What the agent is changes only where it has taken over another's.
                if name not in OF_THE_AGENT or jsonable(value) != last.get(name)
            }
            again["env_steps"] = int(self.agent.env_steps)
            params = {**first, "resumed": [*first.get("resumed", ()), again]}
        text = json.dumps(jsonable(params), indent=2, allow_nan=False)
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)

    def _write_row(self, path: Path, row: dict[str, Any]) -> None:
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            if path.exists():
                add_columns(path, self._columns)
            else:
                with open(path, "w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerow(self._columns)
        with open(path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(
                [
                    "nan" if row.get(name) is None else row[name]
                    for name in self._columns
                ]
            )


def describe(agent: Any) -> dict[str, Any]:
    """The settings of an agent, also of one that cannot be saved."""
    try:
        return agent.get_config()
    except ValueError:
        # A function of one's own cannot be saved, but it can be described.
        return {name: getattr(agent, name) for name in agent.hyperparameters()}


def new_run_directory(algorithm: str, env: str, root: str | Path | None = None) -> Path:
    """Make a directory `<root>/<algorithm>_<env>_<stamp>` that nobody has yet.

    Args:
        algorithm: str, the name of the agent's class.
        env: str, the environment's name.
        root: path or None for `~/kerasrl_results`.

    Returns:
        path of the new, empty directory. Two runs started in the same second get two.
    """
    root = Path(RESULTS if root is None else root).expanduser()
    name = re.sub(r"[^\w.-]+", "-", f"{algorithm}_{env}")
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        suffix = "" if number == 1 else f"_{number}"
        path = root / f"{name}_{stamp}{suffix}"
        try:
            # `mkdir` either makes it or fails: no gap for another process.
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


def versions() -> dict[str, str | None]:
    """Versions of Python, the platform and the packages that decide results."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in PACKAGES:
        module = sys.modules.get(name)
        try:
            found[name] = getattr(module, "__version__", None) or (
                importlib.metadata.version(name)
            )
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def jsonable(value: Any) -> Any:
    """The value in strict JSON's types; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if value is None or isinstance(value, bool | int | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


def read_params(path: Path) -> dict[str, Any] | None:
    """What a `params.json` holds, or None where there is none that can be read."""
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(params, dict) or not isinstance(params.get("resumed", []), list):
        return None
    return params


def seconds_of(rows: list[dict[str, Any]]) -> float:
    """Seconds that the epochs of some lines of `result.json` took."""
    return sum(row.get("time_this_epoch_s") or 0.0 for row in rows)


def epochs_until(path: Path, env_steps: int) -> int | None:
    """Epochs that a `result.json` has up to a number of environment steps, or None."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, reversed(lines)):
            if row["env_steps"] <= env_steps:
                return int(row["epoch"]) + 1
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None


def read_columns(path: Path) -> list[str]:
    """The header of a table, or an empty list if there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])
    except OSError:
        return []


def add_columns(path: Path, columns: list[str]) -> None:
    """Write the table anew with more columns at the right, `nan` in the old rows."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    temporary = path.with_suffix(".csv.tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows[1:]:
            writer.writerow(row + ["nan"] * (len(columns) - len(row)))
    os.replace(temporary, path)
