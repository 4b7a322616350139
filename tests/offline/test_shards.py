"""Files of episodes: whole or not there, and never unpickled."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from recorded import SPACES, assert_equal, make

from kerasrl import offline


def written(directory, kind="box", shard_bytes=300, **arguments):
    episodes = make(kind, **arguments)
    with offline.Writer(directory, *SPACES[kind], shard_bytes=shard_bytes) as writer:
        for episode in episodes:
            writer.add(episode)
    assert (writer.num_episodes, writer.num_steps) == (
        len(episodes),
        sum(x.length for x in episodes),
    )
    return episodes


def shards(directory):
    return sorted(directory.glob("shard-*.npz"))


@pytest.mark.parametrize("kind", SPACES)
def test_what_was_written_is_what_is_read(kind, tmp_path):
    episodes = written(tmp_path, kind)
    assert len(shards(tmp_path)) > 1
    data = offline.load(tmp_path)
    assert (data.observation_space, data.action_space) == SPACES[kind]
    assert data.num_steps == 13 and data.num_damaged == 0
    for found, expected in zip(data.episodes, episodes, strict=True):
        assert_equal(found, expected)
    memory = offline.from_episodes(episodes, *SPACES[kind])
    batches = [each.reader(13, seed=0).next() for each in (data, memory)]
    for name in ("rewards", "terminated"):
        np.testing.assert_array_equal(batches[0][name], batches[1][name])


def test_a_shard_is_what_numpy_writes_and_its_arrays_lie_aligned(tmp_path):
    episodes = written(tmp_path, shard_bytes=10**6)
    (path,) = shards(tmp_path)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["lengths"].tolist() == [3, 1, 5, 4]
        rewards = np.concatenate([x.rewards for x in episodes])
        np.testing.assert_array_equal(arrays["rewards.0"], rewards)
    (part,) = offline.load(tmp_path).parts
    assert {offset % 64 for offset, _, _ in part._members.values()} == {0}
    assert isinstance(part.table().columns["rewards"][0], np.memmap)


def test_a_shard_is_one_open_file_however_much_of_it_is_used(tmp_path):
    written(tmp_path, shard_bytes=10**6)
    data = offline.load(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    episodes = [data.episodes[i % 4] for i in range(40)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    reader = data.reader(4, seed=0)
    reader.next()
    del episodes
    # What a reader has loaded lies in memory.
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_added_is_kept_as_it_was(tmp_path):
    (episode,) = make(lengths=[3])
    with offline.Writer(tmp_path, *SPACES["box"]) as writer:
        writer.add(episode)
        expected = episode.observations.copy()
        episode.observations[:] = 0.0
    found = offline.load(tmp_path).episodes[0].observations
    np.testing.assert_array_equal(found, expected)


def test_a_directory_is_read_while_it_is_written(tmp_path):
    episodes = make()
    writer = offline.Writer(tmp_path, *SPACES["box"])
    assert offline.load(tmp_path).num_episodes == 0
    writer.add(episodes[0])
    assert offline.load(tmp_path).num_episodes == 0
    writer.flush()
    other = offline.Writer(tmp_path, *SPACES["box"])
    for each in (writer, other):
        each.add(episodes[1])
        each.close()
    assert [x.length for x in offline.load(tmp_path).episodes] == [3, 1, 1]
    with pytest.raises(ValueError, match="write into another directory"):
        offline.Writer(tmp_path, *SPACES["image"])


def test_episodes_with_other_extras_have_shards_of_their_own(tmp_path):
    episodes = make()
    episodes[1].extras = {"log_probs": np.zeros(1)}
    with offline.Writer(tmp_path, *SPACES["box"]) as writer:
        for episode in episodes:
            writer.add(episode)
    data = offline.load(tmp_path)
    assert data.extras == ["log_probs"] and len(data.parts) == 3
    assert sorted(data.reader(13, seed=0).next()["extras"]) == ["log_probs"]
    assert sorted(data.episodes[0].extras) == ["log_probs", "more"]


def _truncate(path):
    os.truncate(path, path.stat().st_size - 200)


def _cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def _empty(path):
    path.write_bytes(b"")


def _replace(path, name, array, allow_pickle=False):
    """Writes the zip anew, with another array and right checksums."""
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in content.items():
            if each != name:
                archive.writestr(each, data)
        with archive.open(name, "w") as member:
            np.lib.format.write_array(member, array, allow_pickle=allow_pickle)


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("was_unpickled",))


def _pickle(path):
    array = np.array([Bomb()], object)
    _replace(path, "rewards.0.npy", array, allow_pickle=True)


def _shorter(path):
    _replace(path, "rewards.0.npy", np.zeros(1))


def _more(path):
    _replace(path, "surprise.npy", np.zeros(1))


def _negative(path):
    with np.load(path) as arrays:
        lengths = arrays["lengths"]
    lengths[:1] = -1
    _replace(path, "lengths.npy", lengths)


DAMAGES = [_truncate, _cut_in_half, _flip, _empty, _pickle, _shorter, _more, _negative]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_or_skipped_with_a_count(
    damage, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "data")
    path = shards(tmp_path / "data")[0]
    lost = int(offline.load("data").parts[0].lengths.sum())
    damage(path)
    with pytest.raises(offline.DamagedFile, match=path.name):
        offline.load("data")
    with pytest.warns(UserWarning, match="1 damaged files or lines were skipped"):
        data = offline.load("data", damaged="skip")
    assert (data.num_damaged, data.num_steps) == (1, 13 - lost)
    assert not pathlib.Path("was_unpickled").exists()


def test_a_damaged_index_is_refused(tmp_path):
    written(tmp_path)
    index = tmp_path / "dataset.json"
    content = json.loads(index.read_text())
    for changed in ({}, {**content, "version": 9}, {**content, "action_space": 1}):
        index.write_text(json.dumps(changed))
        with pytest.raises(offline.DamagedFile):
            offline.load(tmp_path)
    index.write_text("{")
    with pytest.raises(offline.DamagedFile):
        offline.load(tmp_path)
    index.unlink()
    with pytest.raises(ValueError, match="no data set"):
        offline.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        offline.load(tmp_path / "nothing")


_ENDLESS = """
import sys
sys.path[:0] = sys.argv[2:]
from recorded import SPACES, make
from kerasrl import offline

writer = offline.Writer(sys.argv[1], *SPACES["box"], shard_bytes=2000)
episodes = make(lengths=[5])
while True:
    writer.add(episodes[0])
    print(writer.num_episodes, flush=True)
"""


def test_who_is_killed_loses_the_open_shard_at_most(tmp_path):
    here = str(pathlib.Path(__file__).parent)
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path), here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(200):
            added = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        added = int((process.stdout.read().splitlines() or [added])[-1])
    data = offline.load(tmp_path)
    per_shard = len(data.parts[0].lengths)
    assert added - per_shard <= data.num_episodes <= added + 1
    expected = make(lengths=[5])[0]
    for episode in data.episodes:
        assert_equal(episode, expected)


def test_a_data_set_in_files_is_read_with_flat_memory(tmp_path):
    """Of 64 MB, no more is resident than some shards at a time."""
    from gymnasium import spaces as gs

    space = gs.Box(0, 255, (64, 64), np.uint8)
    with offline.Writer(tmp_path, space, gs.Discrete(2), shard_bytes=2**21) as writer:
        for number in range(64):
            seen = np.full((257, 64, 64), number, np.uint8)
            rewards = np.full(256, float(number))
            writer.add(offline.Episode(seen, np.zeros(256, int), rewards))
    code = """
import sys
import numpy as np
from kerasrl import offline

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

before = resident()
data = offline.load(sys.argv[1])
reader = data.reader(256, seed=0, memory_bytes=2**23)
most, means = 0, []
while reader.epoch < 1:
    means.append(reader.next()["rewards"].mean())
    most = max(most, resident() - before)
for episode in data.episodes:
    episode.observations.sum()
    most = max(most, resident() - before)
print(most, np.mean(means))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    most, mean = map(float, result.stdout.split())
    assert mean == pytest.approx(31.5)
    assert most < 32
