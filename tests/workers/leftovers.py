"""What tests of workers look for after them: processes and shared memory."""

import os


def shared_memory():
    """The names of all segments of shared memory of the machine, by their inodes."""
    with os.scandir("/dev/shm") as entries:
        return {entry.inode(): entry.name for entry in entries}


def left_since(before, owners=()):
    """Segments that came since and that no process of another test has mapped.

    The machine's segments are everyone's: tests in a second process have theirs.
    What this process and the `owners` (ids of processes) have mapped counts as left.
    """
    left = {key: name for key, name in shared_memory().items() if key not in before}
    for process in filter(str.isdigit, os.listdir("/proc") if left else ()):
        if int(process) in {os.getpid(), *owners}:
            continue
        try:
            with open(f"/proc/{process}/maps") as file:
                # A semaphore is mapped under another name than it has in the end.
                mapped = {int(line.split()[4]) for line in file if "/dev/shm/" in line}
        except OSError:
            continue
        left = {key: name for key, name in left.items() if key not in mapped}
    return left


def processes_with(tag):
    """The ids of all processes that were started with an environment variable."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if tag.encode() in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue
    return found
