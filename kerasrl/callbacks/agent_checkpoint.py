"""Whole-agent checkpoints during training."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasrl.callbacks.callback import Callback

BEST = "checkpoint-best"


class AgentCheckpoint(Callback):
    """Saves the agent every so many iterations, the last few and the best.

    `keras.callbacks.ModelCheckpoint` saves the policy. This saves the agent: policy,
    optimizer, counters and random generators, so that `kerasrl.load(...)` goes on from
    there. Files are `checkpoint-<iterations>` and `checkpoint-best`; a file appears
    whole or not at all. One more is written when training ends.

    An agent whose loss or weights are no longer finite is not saved, so what is on disk
    stays good. A monitored value of NaN (no episode has ended, no evaluation in this
    epoch) never becomes the best.

    Args:
        directory: str or path; made when missing.
        every: int, iterations between checkpoints. 0 saves only the best and the last.
        keep: int or None, how many of its numbered checkpoints to keep; None keeps all.
        monitor: str, name in the epoch's logs that decides which is the best.
        mode: `"max"` or `"min"`.
        keep_best: bool, whether to keep the best.
        resumed_from: path or None. The checkpoint that the agent was loaded from; if it
            is in `directory`, the numbered ones up to the agent's count of iterations
            and the best are those of this training, and kept or removed like its own.

    Attributes:
        best: float or None, the monitored value of `checkpoint-best`.
        last_path: path of the latest checkpoint, or None.
        best_path: path of the best checkpoint, or None.

    Raises:
        ValueError: for a negative `every`, a `keep` below 1, an unknown `mode`, or, at
            the end of the first epoch, a `monitor` that is not in the logs.

    Example:

    ```python
    checkpoint = kerasrl.callbacks.AgentCheckpoint("run", every=10)
    agent.fit("CartPole-v1", steps=100_000, callbacks=[checkpoint])
    agent = kerasrl.load(checkpoint.best_path)
    ```
    """

    def __init__(
        self,
        directory: str | Path,
        every: int = 10,
        keep: int | None = 3,
        monitor: str = "episode_return_mean",
        mode: str = "max",
        keep_best: bool = True,
        resumed_from: str | Path | None = None,
    ) -> None:
        super().__init__()
        if every < 0:
            raise ValueError(
                f"every must be a number of iterations, or 0. Received: {every}"
            )
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, or None. Received: {keep}")
        if mode not in ("max", "min"):
            raise ValueError(f'mode must be "max" or "min". Received: {mode!r}')
        self.directory = Path(directory).expanduser()
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self.mode = mode
        self.keep_best = keep_best
        self.resumed_from = None if resumed_from is None else Path(resumed_from)
        self.best: float | None = None
        self.last_path: Path | None = None
        self.best_path: Path | None = None
        self._saved: list[Path] = []
        self._weights: list[Any] = []
        self._loss_is_finite = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # What cannot be saved shall not be found out after hours.
        self.agent.check_savable(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        goes_on = (
            self.resumed_from is not None
            and self.resumed_from.expanduser().resolve().parent
            == self.directory.resolve()
        )
        if goes_on and not self._saved:
            self._saved = self._earlier()
        if self.best is None and self.keep_best and self.agent.iterations > 0:
            self._read_best(goes_on)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        loss = (logs or {}).get("loss")
        self._loss_is_finite = loss is None or math.isfinite(float(loss))
        if self.every and self.agent.iterations % self.every == 0:
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.keep_best:
            return
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"AgentCheckpoint monitors {self.monitor!r}, which is not in the logs. "
                f"Expected one of: {', '.join(sorted(logs))}. A callback that adds it "
                "must come earlier in the list."
            )
        value = float(logs[self.monitor])
        if math.isnan(value) or not self._is_better(value) or not self._is_sound():
            return
        path = self.directory / BEST
        self.agent.save(path)
        self.best, self.best_path = value, path
        if self.agent.replicas.is_chief:
            self._write_best()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.save()

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.mode == "max" else value < self.best

    def _is_sound(self) -> bool:
        """The last loss can be finite though the update after it was not."""
        return self._loss_is_finite and all(
            np.isfinite(np.asarray(weights)).all()
            for weights in self.model.get_weights()
            if np.asarray(weights).dtype.kind == "f"
        )

    def save(self) -> None:
        """Save the agent as it is now, unless that is on disk or is not finite."""
        path = self.directory / f"checkpoint-{int(self.agent.iterations)}"
        weights = self.model.get_weights()
        is_new = path != self.last_path
        # What callbacks and optimizers restore or average when training ends counts.
        if not is_new and all(map(np.array_equal, weights, self._weights)):
            return
        if not self._is_sound():
            return
        saved = self.agent.save(path)
        self._saved = [*(each for each in self._saved if each != saved), saved]
        self.last_path, self._weights = path, weights
        while self.keep is not None and len(self._saved) > self.keep:
            self._saved.pop(0).unlink(missing_ok=True)
        self.agent.replicas.committed()

    def _earlier(self) -> list[Path]:
        """Numbered checkpoints that an earlier process of this training has written."""
        found = {}
        for path in self.directory.glob("checkpoint-*"):
            number = path.name.removeprefix("checkpoint-")
            if number.isdigit() and int(number) <= self.agent.iterations:
                found[int(number)] = path
        return [found[number] for number in sorted(found)]

    def _best_record(self) -> Path:
        return self.directory / f"{BEST}.json"

    def _write_best(self) -> None:
        record = {
            "monitor": self.monitor,
            "mode": self.mode,
            "value": self.best if math.isfinite(self.best or 0.0) else None,
            "iterations": int(self.agent.iterations),
            "env_steps": int(self.agent.env_steps),
        }
        temporary = self._best_record().with_suffix(".json.tmp")
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._best_record())

    def _read_best(self, goes_on: bool) -> None:
        """A resumed run goes on with the best of the run it resumes.

        Also if that came later: the agent may have taken over what another one had
        learnt in fewer iterations.
        """
        try:
            record = json.loads(self._best_record().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        path = self.directory / BEST
        if (
            path.exists()
            and record.get("monitor") == self.monitor
            and record.get("mode") == self.mode
            and (goes_on or record.get("iterations", math.inf) <= self.agent.iterations)
        ):
            self.best, self.best_path = record["value"], path
