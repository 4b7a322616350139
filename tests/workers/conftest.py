"""What tests of worker processes must not do."""

import gc
import os
import signal
import time
import uuid

import pytest
from leftovers import left_since, processes_with, shared_memory

_SECONDS = 60


@pytest.fixture
def nothing_is_left(monkeypatch):
    """No test hangs, nor leaves processes, shared memory or file descriptors."""
    tag = f"KERASRL_TEST={uuid.uuid4()}"
    monkeypatch.setenv(*tag.split("="))
    shared = shared_memory()

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
    while (segments := left_since(shared)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not segments
    gc.collect()
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(name) for name in names if os.path.islink(name)]
    assert not [name for name in targets if "memfd:kerasrl (" in name]
