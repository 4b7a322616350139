"""Lines of JSON, in the columns of RLlib, old and new."""

import json
import zipfile

import gymnasium
import numpy as np
import pytest
from recorded import SPACES, assert_equal, dataset, make

from kerasrl import offline

CARTPOLE = {
    "observation_space": gymnasium.spaces.Box(-9, 9, (2,)),
    "action_space": gymnasium.spaces.Discrete(2),
}


def line(ends="dones", **changed):
    return {
        "type": "SampleBatch",
        "obs": [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]],
        "new_obs": [[1.0, 1.0], [1.5, 1.0], [3.0, 1.0]],
        "actions": [0, 1, 1],
        "rewards": [1.0, 2.0, 3.0],
        ends: [False, True, False],
        "eps_id": [7, 7, 8],
        "action_prob": [0.5, 0.25, 0.5],
        **changed,
    }


def write(path, *lines):
    text = (x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.mark.parametrize("kind", SPACES)
def test_lines_come_back_as_episodes(kind, tmp_path):
    data = dataset(kind)
    offline.convert(data, tmp_path / "lines", "json")
    spaces = dict(zip(("observation_space", "action_space"), SPACES[kind], strict=True))
    found = offline.load(tmp_path / "lines", **spaces)
    assert found.extras == ["log_probs"]
    for episode, expected in zip(found.episodes, make(kind), strict=True):
        expected.extras = {"log_probs": expected.extras["log_probs"]}
        assert_equal(episode, expected)


@pytest.mark.parametrize("ends", ["dones", "terminateds"])
def test_lines_of_rllib_are_read(ends, tmp_path):
    path = write(tmp_path / "a.json", line(ends), line(ends, eps_id=[8, 8, 9]))
    data = offline.load(path, **CARTPOLE)
    assert [x.length for x in data.episodes] == [2, 3, 1]
    first, second, _ = data.episodes
    assert first.terminated and second.terminated
    assert first.observations[:, 0].tolist() == [0.0, 1.0, 1.5]
    np.testing.assert_allclose(np.exp(first.extras["log_probs"]), [0.5, 0.25])
    batch = {"type": "MultiAgentBatch", "count": 3, "policy_batches": {"p": line()}}
    data = offline.load(write(tmp_path / "b.json", batch), **CARTPOLE)
    assert [x.length for x in data.episodes] == [2, 1]
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(path, "inner/output.json")
    data = offline.load(tmp_path / "c.zip", **CARTPOLE)
    assert data.num_steps == 6


def test_without_what_followed_the_last_observation_is_used(tmp_path):
    short = line()
    del short["new_obs"]
    data = offline.load(write(tmp_path / "a.json", short, short), **CARTPOLE)
    # The third step of the first line is a piece whose end nobody knows.
    assert [x.length for x in data.episodes] == [2, 2]
    assert data.episodes[0].observations[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_packed_and_damaged_lines_are_refused_or_skipped_with_a_count(tmp_path):
    packed = line(obs="BCJNGGRwuAUAAAAAAAAF/xEAAAA=")
    multi = {"type": "MultiAgentBatch", "policy_batches": {"a": line(), "b": line()}}
    bad = [packed, '{"type": "Samp', line(rewards=[1.0]), line(actions=[0, 5, 0])]
    bad += [multi, line(obs=[["a", "b"]] * 3), "[]"]
    path = write(tmp_path / "a.json", line(), *bad)
    with pytest.raises(offline.DamagedFile, match="unpickled"):
        offline.load(write(tmp_path / "b.json", packed), **CARTPOLE)
    with pytest.warns(UserWarning, match="7 damaged"):
        data = offline.load(path, damaged="skip", **CARTPOLE)
    assert data.num_damaged == 7
    assert all(x.length for x in data.episodes)
    with pytest.raises(ValueError, match="do not say their spaces"):
        offline.load(path)
    offline.convert(dataset(), tmp_path / "own")
    with pytest.raises(ValueError, match="says its own"):
        offline.load(tmp_path / "own", **CARTPOLE)
    with pytest.raises(ValueError, match="there already"):
        offline.convert(dataset(), tmp_path / "own")
    with pytest.raises(ValueError, match="same of all"):
        offline.merge([dataset(), dataset("image")], tmp_path / "both")
    with pytest.raises(ValueError, match="no data sets"):
        offline.merge([], tmp_path / "both")
