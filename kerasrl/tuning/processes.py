"""The process of a trial, as its launcher sees it."""

import collections
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasrl.tuning.slots import Slot
from kerasrl.tuning.trial import Trial

LOG = "log.txt"
_MODULE = "kerasrl.tuning.trial_process"
_CHUNK = 65536


class TrialProcess:
    """A process that trains, in a group of its own, and the pipes to and from it.

    What it prints goes to `log.txt` in the trial's directory. It ends itself and its
    group when the launcher is gone, however that ended.

    Args:
        trial: `Trial` whose state is on disk.
        slot: `Slot` that it runs in.
        waits: bool, whether it waits for a decision after each result.
    """

    def __init__(self, trial: Trial, slot: Slot, waits: bool) -> None:
        self.trial = trial
        self.slot = slot
        self.started = time.monotonic()
        #: The message it said goodbye with, if it did.
        self.end: dict[str, Any] | None = None
        #: Whether nothing more can come from it.
        self.is_silent = False
        self._buffer = b""
        self._lines: collections.deque[bytes] = collections.deque()
        self._exit_code: int | None = None
        self.reading, results = os.pipe()
        control, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        log = trial.directory / LOG
        try:
            with open(log, "ab") as file:
                now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
                file.write(f"--- started {now}\n".encode())
                file.flush()
                self.process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", _MODULE, str(trial.directory)),
                        *(str(results), str(control), str(int(waits))),
                    ],
                    pass_fds=(results, control),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=self._environment(),
                    # Ctrl-C is for the launcher, which then ends whole groups.
                    start_new_session=True,
                )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(results)
            os.close(control)

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **self.slot.environment()}
        # To find this very package, and modules of the user's.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        environment.setdefault("KERAS_BACKEND", "tensorflow")
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        environment["PYTHONUNBUFFERED"] = "1"
        return environment

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the process has said since; does not wait.

        What is not taken stays for the next call.
        """
        while True:
            while self._lines:
                message = json.loads(self._lines.popleft())
                if message["kind"] == "end":
                    self.end = message
                yield message
            try:
                chunk = os.read(self.reading, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self.is_silent = True
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            self._lines += lines

    def answer(self, decision: str) -> None:
        """Tell a process that waits what to do."""
        with contextlib.suppress(OSError):  # It has just crashed.
            os.write(self._writing, f"{decision}\n".encode())

    def has_exited(self) -> bool:
        """Whether the process is over. What else is in its group may not be."""
        if self._exit_code is not None:
            return True
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        # The process is not forgotten by that.
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def close(self) -> int:
        """End what is left of the group; return the exit code of the process."""
        if self._exit_code is None:
            # Before it is waited for: until then the group's number is no one else's.
            self.signal(signal.SIGKILL)
            self._exit_code = self.process.wait()
            self._close()
        return self._exit_code

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def _close(self) -> None:
        os.close(self.reading)
        os.close(self._writing)


def end_all(processes: list[TrialProcess], grace: float) -> None:
    """Ask processes and their groups to end, and wait for that for a while.

    Args:
        processes: list of `TrialProcess`.
        grace: float, seconds that they have in all.
    """
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        if all(process.has_exited() for process in processes):
            return
        time.sleep(0.02)


def log_tail(directory: Path, lines: int = 20) -> str:
    """The last lines of a trial's log since its process was started."""
    try:
        with open(directory / LOG, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _CHUNK))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    text = text.rpartition("--- started ")[2].partition("\n")[2]
    return "\n".join(text.splitlines()[-lines:])
