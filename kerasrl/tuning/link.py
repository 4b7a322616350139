"""A trial's end of the pipes to its launcher."""

import json
import os
import queue
import signal
import threading
from pathlib import Path
from typing import Any


class Leave(BaseException):
    """Ends a trial's process from within, at once: its launcher said so.

    Args:
        status: str, the status of the trial from then on.
        reason: str, why.
    """

    def __init__(self, status: str, reason: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason


class Link:
    """Tells the launcher how a trial goes, and asks it what to do.

    When the launcher is gone, however that ended, the process ends, and all that is in
    its group.

    Args:
        results: int, file descriptor to write messages to.
        control: int, file descriptor to read answers from.
        waits: bool, whether each result is answered.
    """

    def __init__(self, results: int, control: int, waits: bool) -> None:
        self.results = results
        self.waits = waits
        for descriptor in (results, control):
            os.set_inheritable(descriptor, False)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=self._listen, args=(control,), name="kerasrl-launcher", daemon=True
        ).start()

    def _listen(self, control: int) -> None:
        with open(control, encoding="utf-8") as answers:
            for line in answers:
                self._answers.put(line.strip())
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    def start(self, rows: int) -> None:
        """Say that the trial is ready, and how many results it goes on from."""
        self._send(kind="start", rows=rows)

    def result(self, row: dict[str, Any]) -> str:
        """Report a result.

        Args:
            row: dict in JSON's types.

        Returns:
            str, what to do: "continue", "checkpoint", "stop", "pause" or "exploit".
        """
        self._send(kind="result", result=row)
        return self._answers.get() if self.waits else "continue"

    def checkpoint(self, path: str | Path | None) -> None:
        """Say which checkpoint is the latest, or that there is none."""
        self._send(kind="checkpoint", name=path and Path(path).name)

    def end(self, status: str, reason: str = "") -> None:
        """Say how the trial ended, as the last of all."""
        self._send(kind="end", status=status, reason=reason)

    def _send(self, **message: Any) -> None:
        line = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
        while line:
            line = line[os.write(self.results, line) :]
