import shutil

import numpy as np
import pytest
from gymnasium import spaces

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer, memory

IMAGES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = spaces.Discrete(4)
GIGABYTE = 10**9


def test_what_does_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * GIGABYTE)
    monkeypatch.setattr(np, "zeros", None)
    # A million rows: 28 224 bytes of images, 8 of actions and starts, 5 of the rest.
    match = (
        r"needs 28\.2 GB of main memory\. Available: 3\.0 GB\. .*`capacity`.*"
        r"`frame_stack`.*`directory`"
    )
    with pytest.raises(MemoryError, match=match):
        memory.allocate({"observations": ((1_000_000, 4, 84, 84), np.uint8)})


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_buffers_need_what_they_take(kind, monkeypatch):
    buffer = kind(1000, IMAGES, ACTIONS)
    monkeypatch.setattr(memory, "available_memory", lambda: buffer.nbytes)
    assert kind(1000, IMAGES, ACTIONS).nbytes == buffer.nbytes
    monkeypatch.setattr(memory, "available_memory", lambda: buffer.nbytes - 1)
    with pytest.raises(MemoryError, match=r"needs 28\.\d MB of main memory"):
        kind(1000, IMAGES, ACTIONS)
    small = kind(1000, IMAGES, ACTIONS, frame_stack=4)
    assert small.nbytes < buffer.nbytes / 3.9


def test_files_need_disk_space(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(
        MemoryError, match=r"28\.\d MB of disk space in .*another `direc"
    ):
        ReplayBuffer(1000, IMAGES, ACTIONS, directory=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    buffer = ReplayBuffer(1000, IMAGES, ACTIONS, directory=tmp_path / "new")
    assert buffer.nbytes > 28 * 10**6


def test_nothing_is_refused_where_nothing_is_known(monkeypatch):
    monkeypatch.setattr(memory, "_machine_memory", lambda: None)
    monkeypatch.setattr(memory, "_CGROUP_FILES", (("/no/such", "/file"),))
    assert memory.available_memory() is None
    assert len(ReplayBuffer(100, IMAGES, ACTIONS)) == 0


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    limit, usage = tmp_path / "limit", tmp_path / "usage"
    monkeypatch.setattr(memory, "_machine_memory", lambda: 5000)
    monkeypatch.setattr(memory, "_CGROUP_FILES", ((str(limit), str(usage)),))
    for text, available in (("max", 5000), ("1000", 600), ("9999", 5000)):
        limit.write_text(text + "\n")
        usage.write_text("400\n")
        assert memory.available_memory() == available
    limit.write_text("100")
    assert memory.available_memory() == 0
