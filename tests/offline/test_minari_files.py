"""Minari's files: by `h5py` alone, and as `minari` itself reads and writes them."""

import json

import h5py
import minari
import numpy as np
import pytest
from recorded import SPACES, assert_equal, dataset, make

from kerasrl import offline


def expected_of(kind):
    """Episodes as they come back: Minari's ends are two, its extras are infos."""
    episodes = make(kind)
    for episode in episodes:
        episode.truncated = episode.truncated or not episode.terminated
        episode.extras = {"log_probs": episode.extras["log_probs"]}
    return episodes


@pytest.mark.parametrize("kind", SPACES)
def test_what_was_written_is_what_is_read(kind, tmp_path, monkeypatch):
    offline.convert(dataset(kind), tmp_path / "mine/x-v0", "minari")
    data = offline.load(tmp_path / "mine/x-v0")
    assert (data.observation_space, data.action_space) == SPACES[kind]
    for found, expected in zip(data.episodes, expected_of(kind), strict=True):
        assert_equal(found, expected)
    assert data.reader(13, seed=0).next()["rewards"].shape == (13,)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert offline.load("mine/x-v0").num_steps == 13


def test_what_was_emitted_and_what_is_normalized(tmp_path):
    """Densities of what is laid over other bounds are those of the new numbers."""
    episodes = make("box")
    for episode in episodes:
        episode.actions = np.clip(episode.actions, -1.0, 1.0)
        episode.extras["log_probs"] = np.full(len(episode.rewards), -1.5, np.float32)
    data = offline.from_episodes(episodes, *SPACES["box"])
    offline.convert(data, tmp_path / "x-v0", "minari")
    found = offline.load(tmp_path / "x-v0", actions_normalized=True)
    size = SPACES["box"][1].shape[0]
    for one, other in zip(found.episodes, episodes, strict=True):
        np.testing.assert_allclose(one.actions, 2.0 * other.actions, atol=1e-6)
        expected = -1.5 - size * np.log(2.0)
        np.testing.assert_allclose(one.extras["log_probs"], expected, rtol=1e-6)
    for episode in episodes:
        episode.extras["emitted_actions"] = 3.0 * episode.actions
    data = offline.from_episodes(episodes, *SPACES["box"])
    offline.convert(data, tmp_path / "y-v0", "minari")
    for one, other in zip(
        offline.load(tmp_path / "y-v0").episodes, episodes, strict=True
    ):
        np.testing.assert_array_equal(
            one.extras["emitted_actions"], other.extras["emitted_actions"]
        )
    with pytest.raises((ValueError, offline.DamagedFile), match="Leave it out"):
        offline.load(tmp_path / "y-v0", actions_normalized=True)


@pytest.mark.parametrize("kind", SPACES)
def test_minari_reads_what_was_written(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    offline.convert(
        dataset(kind), tmp_path / "mine/x-v0", "minari", dataset_id="mine/x-v0"
    )
    data = minari.load_dataset("mine/x-v0")
    assert (data.total_episodes, data.total_steps) == (4, 13)
    assert (data.observation_space, data.action_space) == SPACES[kind]
    for found, expected in zip(data.iterate_episodes(), expected_of(kind), strict=True):
        np.testing.assert_array_equal(found.rewards, expected.rewards)
        assert found.terminations[-1] == expected.terminated
        assert found.truncations[-1] == expected.truncated
        if kind != "nested":
            np.testing.assert_array_equal(found.observations, expected.observations)
            np.testing.assert_array_equal(found.actions, expected.actions)
    nested = kind == "nested"
    if nested:
        x = next(iter(data.iterate_episodes())).observations["pair"][1]["x"]
        first = make(kind)[0].observations["pair"][1]["x"]
        np.testing.assert_array_equal(x, first)


# It advises who publishes.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["box", "image", "nested"])
def test_what_minari_wrote_is_read(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffers = []
    for number, episode in enumerate(expected_of(kind)):
        ends = np.zeros((2, episode.length), bool)
        ends[:, -1] = episode.terminated, episode.truncated
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                id=number,
                observations=episode.observations,
                actions=episode.actions,
                rewards=list(episode.rewards),
                terminations=list(ends[0]),
                truncations=list(ends[1]),
                infos=None,
            )
        )
    observation_space, action_space = SPACES[kind]
    minari.create_dataset_from_buffers(
        "theirs/x-v0",
        buffers,
        observation_space=observation_space,
        action_space=action_space,
        jpeg_encoding=False,
        algorithm_name="none",
        author="me",
        author_email="me@example.org",
        code_permalink="none",
        description="none",
    )
    data = offline.load("theirs/x-v0")
    for found, expected in zip(data.episodes, expected_of(kind), strict=True):
        expected.extras = {}
        assert_equal(found, expected)
    assert data.metadata["algorithm_name"] == "none"


def test_damaged_files_and_episodes_are_refused_or_skipped(tmp_path):
    path = tmp_path / "x-v0"
    offline.convert(dataset(), path, "minari")
    file = path / "data/main_data.hdf5"
    whole = file.read_bytes()
    with h5py.File(file, "a") as opened:
        del opened["episode_1"]["rewards"]
        opened["episode_2"]["rewards"][0] = np.nan
    with pytest.raises(offline.DamagedFile, match="episode_1"):
        offline.load(path)
    with pytest.warns(UserWarning, match="2 damaged"):
        data = offline.load(path, damaged="skip")
    assert [x.length for x in data.episodes] == [3, 4]
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(offline.DamagedFile):
        offline.load(path)
    file.write_bytes(whole)
    index = path / "data/metadata.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "total_episodes": 9}))
    with pytest.raises(offline.DamagedFile, match="4 episodes of 9"):
        offline.load(path)
    index.write_text(json.dumps({**content, "observation_space": "{}"}))
    with pytest.raises(offline.DamagedFile):
        offline.load(path)
