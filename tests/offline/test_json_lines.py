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
        "new_obs": [[1.0, 1.0], [1.5, 1.0], [0.0, 1.0]],
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
    later = {**short, "eps_id": [9, 9, 10]}
    data = offline.load(write(tmp_path / "a.json", short, later), **CARTPOLE)
    # The third step of the first line is a piece whose end nobody knows.
    assert [x.length for x in data.episodes] == [2, 2]
    assert data.episodes[0].observations[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_what_was_emitted_comes_back_with_its_log_probs(tmp_path):
    """They belong together: what an environment took is another number."""
    episodes = make("box")
    for episode in episodes:
        episode.extras["emitted_actions"] = 1.5 * episode.actions
    data = offline.from_episodes(episodes, *SPACES["box"])
    offline.convert(data, tmp_path / "lines", "json")
    spaces = dict(
        zip(("observation_space", "action_space"), SPACES["box"], strict=True)
    )
    found = offline.load(tmp_path / "lines", **spaces)
    assert found.extras == ["emitted_actions", "log_probs"]
    for one, other in zip(found.episodes, episodes, strict=True):
        np.testing.assert_array_equal(
            one.extras["emitted_actions"], other.extras["emitted_actions"]
        )


def test_episodes_that_come_in_turns_are_told_apart_by_their_ids(tmp_path):
    turns = line(eps_id=[1, 2, 1], dones=[False, True, True])
    turns["new_obs"] = [[2.0, 1.0], [9.0, 1.0], [4.0, 1.0]]
    data = offline.load(write(tmp_path / "a.json", turns), **CARTPOLE)
    rewards = sorted(x.rewards.tolist() for x in data.episodes)
    assert rewards == [[1.0, 3.0], [2.0]]


def test_steps_that_do_not_follow_each_other_are_cut_apart(tmp_path):
    stitched = line(dones=[False] * 3)
    del stitched["eps_id"]
    data = offline.load(write(tmp_path / "a.json", stitched), **CARTPOLE)
    # After the second comes [1.5, 1], and the third begins at [2, 1].
    assert [x.length for x in data.episodes] == [2, 1]
    assert data.episodes[0].observations[:, 0].tolist() == [0.0, 1.0, 1.5]


def test_numbers_and_shapes_that_do_not_fit_are_refused(tmp_path):
    bytes_ = gymnasium.spaces.Box(0, 255, (2, 3), np.uint8)
    given = {"observation_space": bytes_, "action_space": CARTPOLE["action_space"]}
    flat = np.arange(18).reshape(3, 6)
    whole = line(obs=flat.tolist(), new_obs=flat.tolist(), eps_id=[1, 2, 3])
    data = offline.load(write(tmp_path / "a.json", whole), **given)
    assert data.episodes[1].observations[0].tolist() == flat[1].reshape(2, 3).tolist()
    for wrong in (flat.reshape(3, 3, 2), flat.T, flat + 250, flat - 1, flat + np.inf):
        wrong = line(obs=wrong.tolist(), new_obs=flat.tolist())
        with pytest.raises(offline.DamagedFile, match="it has"):
            offline.load(write(tmp_path / "b.json", wrong), **given)
    with pytest.raises(offline.DamagedFile, match="True or False"):
        offline.load(write(tmp_path / "b.json", line(dones=[0, 2, 0])), **CARTPOLE)


def test_box_actions_are_within_bounds_or_said_to_be_normalized(tmp_path):
    box = gymnasium.spaces.Box(-2.0, 6.0, (1,))
    given = {**CARTPOLE, "action_space": box}
    path = write(tmp_path / "a.json", line(actions=[[-1.0], [0.0], [1.0]]))
    data = offline.load(path, actions_normalized=True, **given)
    taken = np.concatenate([x.actions for x in data.episodes])
    assert taken.ravel().tolist() == [-2.0, 2.0, 6.0]
    beyond = write(tmp_path / "b.json", line(actions=[[-3.0], [0.0], [1.0]]))
    for normalized in (False, True):
        with pytest.raises(offline.DamagedFile, match="actions_normalized"):
            offline.load(beyond, actions_normalized=normalized, **given)
    offline.convert(data, tmp_path / "own")
    with pytest.raises(ValueError, match="Leave it out"):
        offline.load(tmp_path / "own", actions_normalized=True)


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    episodes = make("discrete")
    episodes[2].extras["log_probs"][0] = -np.inf  # No number of JSON.
    data = offline.from_episodes(episodes, *SPACES["discrete"])
    with pytest.raises(ValueError, match="JSON"):
        offline.convert(data, tmp_path, "json")
    assert list(tmp_path.iterdir()) == []


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
