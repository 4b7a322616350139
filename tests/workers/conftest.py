"""What tests of worker processes must not do."""

import gc
import os
import signal
import time
import uuid

import pytest

_SECONDS = 60


@pytest.fixture
def nothing_is_left(monkeypatch):
    """No test hangs, nor leaves processes, shared memory or file descriptors."""
    tag = f"KERASRL_TEST={uuid.uuid4()}"
    monkeypatch.setenv(*tag.split("="))
    shared = set(os.listdir("/dev/shm"))

    def give_up(*_):
        pytest.fail(f"It took longer than {_SECONDS} seconds.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    deadline = time.monotonic() + 5.0
    while (left := processes_with(tag)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    assert set(os.listdir("/dev/shm")) <= shared
    gc.collect()
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(name) for name in names if os.path.islink(name)]
    assert not [name for name in targets if "memfd:kerasrl (" in name]


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
