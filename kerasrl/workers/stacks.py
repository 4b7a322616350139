"""Stacks of running processes: what `kerasrl stack` prints.

A process that called `register` writes the stacks of all its threads, when it gets the
signal SIGUSR1, into memory without a name that others of the same user can open under
`/proc`. Nothing is left behind on disk, and it also works inside a call that hangs.
Linux only; elsewhere `register` does nothing.
"""

import faulthandler
import os
import signal
import time
from pathlib import Path

_NAME = "kerasrl-stack"
_WAIT = 2.0

_registered = False


def register():
    """Lets others ask this process for its stacks.

    Does nothing if the program uses SIGUSR1 for something else.
    """
    global _registered
    if _registered or not hasattr(os, "memfd_create"):
        return
    if signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:
        return
    # Stays open: it is this process's to the end.
    faulthandler.register(signal.SIGUSR1, file=os.memfd_create(_NAME))
    _registered = True


def read(pid):
    """Asks a process for its stacks.

    Args:
        pid: Integer, its id.

    Returns:
        String, or `None` if the process does not exist or did not `register`.
    """
    try:
        path = _find(pid)
        if path is None:
            return None
        before = os.stat(path).st_size
        os.kill(pid, signal.SIGUSR1)
        size, deadline = before, time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            time.sleep(0.02)
            last, size = size, os.stat(path).st_size
            if size > before and size == last:
                break
        return Path(path).read_bytes()[before:].decode(errors="replace")
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return None


def workers_of(pid):
    """The ids of the processes that a process started and that did `register`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the parent is the second after.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == pid and _find(int(path.parent.name)) is not None:
                found.append(int(path.parent.name))
        except OSError:
            continue  # It ended meanwhile, or is not ours to look at.
    return sorted(found)


def _find(pid):
    """The path of a process's memory for stacks, or None."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(path).startswith(f"/memfd:{_NAME}"):
                return path
        except FileNotFoundError:
            continue
    return None
