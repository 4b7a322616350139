"""A trial: one training, with one setting and one seed."""

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

#: "stopped" by a scheduler or a searcher, before its own end.
STATUSES = ("pending", "running", "paused", "finished", "stopped", "failed")
#: Nothing is left to do for trials that are one of these.
ENDED = ("finished", "stopped", "failed")
#: These may be started.
WAITING = ("pending", "paused")
FILE = "trial.json"


@dataclass
class Trial:
    """One training in a directory of its own.

    Its state is in `trial.json` there, always whole, so that another launcher goes on
    where one was killed. Its results are the lines of `result.json` beside it.

    Attributes:
        name: str, such as "PPO_CartPole-v1_00003_gamma=0.9_seed=1".
        run: str, the algorithm, or `module:name` of an agent's class or a function.
        env: str or None, the environment.
        stop: dict from names of results to numbers; the trial is finished when one of
            them is reached.
        settings: nested dict of plain values, the hyperparameters without the seed.
        seed: int.
        directory: path.
        number: int, of the setting among those of its experiment. Trials with the same
            setting and other seeds have the same.
        tag: str, in which its setting differs from others: "gamma=0.9".
        experiment: str, name of its experiment.
        options: dict of plain values, what else its process needs to know.
        status: one of `STATUSES`.
        results: list of dicts, one for each epoch.
        attempts: int, how many times it crashed.
        error: str, the end of its log if it has failed; else "".
        checkpoint: path of its latest whole checkpoint, or None.
        lineage: list of dicts, one for each time that it took over another's weights.

    Example:

    ```python
    trial = Trial("PPO_0", "PPO", "CartPole-v1", {"env_steps": 1000}, {"gamma": 0.9},
                  seed=0, directory=Path("sweep/PPO_0"))
    trial.save()
    Trial.load("sweep/PPO_0").settings  # {"gamma": 0.9}
    ```
    """

    name: str
    run: str
    env: str | None
    stop: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    directory: Path
    number: int = 0
    tag: str = ""
    experiment: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    status: str = "pending"
    results: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0
    error: str = ""
    checkpoint: Path | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.status in ENDED

    @property
    def result(self) -> dict[str, Any]:
        """Its latest result; empty before the first."""
        return self.results[-1] if self.results else {}

    def to_json(self) -> dict[str, Any]:
        """Its state in JSON's types: all but its results, which have their own file."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        del state["results"]
        state["directory"] = str(self.directory)
        # By its name, so that the directory may be moved.
        state["checkpoint"] = self.checkpoint and self.checkpoint.name
        return state

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "Trial":
        """The trial of a state, without its results."""
        known = {each.name for each in fields(cls)} - {"results"}
        given = {name: value for name, value in state.items() if name in known}
        directory = Path(state["directory"])
        name = state.get("checkpoint")
        checkpoint = None if name is None else directory / Path(name).name
        return cls(**{**given, "directory": directory, "checkpoint": checkpoint})

    def save(self) -> None:
        """Write its state, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / FILE, self.to_json())

    @classmethod
    def load(cls, directory: str | Path) -> "Trial":
        """The trial of a directory, with its results.

        Raises:
            ValueError: if there is no trial that can be read.
        """
        path = Path(directory) / FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            # Wherever the directory is by now.
            trial = cls.from_json({**state, "directory": str(path.parent)})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is not the state of a trial: {error}. Expected what "
                "`Trial.save` writes."
            ) from error
        trial.read_results()
        if trial.checkpoint is not None and not trial.checkpoint.exists():
            trial.checkpoint = newest_checkpoint(trial.directory)
        return trial

    def read_results(self) -> None:
        """Have those results that are on disk."""
        self.results = read_results(self.directory)


def read_results(directory: Path) -> list[dict[str, Any]]:
    """The lines of `result.json` in a directory; what is not whole is left out."""
    try:
        lines = (directory / "result.json").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # The process was killed while it wrote this.
        if isinstance(row, dict):
            found.append(row)
    return found


def newest_checkpoint(directory: Path) -> Path | None:
    """The numbered checkpoint in a directory with the largest number, or None."""
    found = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in directory.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
    }
    return found[max(found)] if found else None


def append_line(path: Path, value: Any) -> None:
    """Add a line of JSON to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_json(path: Path) -> Any:
    """What a file of JSON holds; a ValueError that names it if it holds none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
