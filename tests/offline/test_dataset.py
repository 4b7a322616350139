"""Data sets in memory: what is in them, in batches, rollouts and replay."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces as gs
from recorded import SPACES, assert_equal, dataset, make

from kerasrl import offline


@pytest.mark.parametrize("kind", SPACES)
def test_episodes_come_back_as_they_went_in(kind):
    episodes = make(kind)
    data = offline.from_episodes(episodes, *SPACES[kind])
    assert (data.num_episodes, data.num_steps) == (4, 13)
    assert data.extras == ["log_probs", "more"]
    for found, expected in zip(data.episodes, episodes, strict=True):
        assert_equal(found, expected)
    assert_equal(data.episodes[-2], episodes[2])
    with pytest.raises(IndexError, match="4 episodes"):
        data.episodes[4]


def test_a_batch_has_the_steps_of_the_episodes():
    """Each once an epoch, with what followed it."""
    episodes = make("discrete")
    reader = dataset("discrete").reader(batch_size=13, seed=0)
    batch = reader.next()
    assert reader.epoch == 1
    expected = []
    for episode in episodes:
        for time in range(episode.length):
            is_last = time == episode.length - 1
            expected.append(
                (
                    *(episode.observations[time + i] for i in (0, 1)),
                    episode.actions[time],
                    np.float32(episode.rewards[time]),
                    is_last and episode.terminated,
                    is_last and episode.truncated,
                    episode.extras["log_probs"][time],
                    *episode.extras["more"]["x"][time],
                )
            )
    found = zip(
        *(batch[name] for name in ("observations", "next_observations", "actions")),
        *(batch[name] for name in ("rewards", "terminated", "truncated")),
        batch["extras"]["log_probs"],
        *batch["extras"]["more"]["x"].T,
        strict=True,
    )
    assert sorted(found) == sorted(expected)
    assert batch["rewards"].dtype == np.float32


def test_actions_of_a_batch_are_as_policies_emit_them():
    image = dataset("image").reader(13, seed=0).next()
    assert set(image["actions"].tolist()) <= {0, 1, 2}
    nested = dataset("nested").reader(13, seed=0).next()
    choice, rest = nested["actions"]
    assert set(choice.tolist()) <= {0, 1}
    assert rest["to"].dtype == np.float32
    assert nested["observations"]["pair"][1]["x"].shape == (13, 2)
    doubles = dataset("doubles").reader(4, seed=0).next()
    assert doubles["observations"].dtype == np.float32
    assert doubles["actions"].dtype == np.float32


def test_returns_to_go_are_those_of_the_definition():
    episodes, gamma = make("box"), 0.9
    batch = dataset("box").reader(13, seed=3, gamma=gamma).next()
    for episode in episodes:
        for time in range(episode.length):
            row = np.argmin(abs(batch["rewards"] - np.float32(episode.rewards[time])))
            rest = episode.rewards[time:]
            expected = sum(gamma**i * r for i, r in enumerate(rest))
            np.testing.assert_allclose(batch["returns_to_go"][row], expected, 1e-5)
            discount = 0.0 if episode.terminated else gamma ** len(rest)
            np.testing.assert_allclose(batch["final_discounts"][row], discount, 1e-6)
            np.testing.assert_array_equal(
                batch["final_observations"][row], episode.observations[-1]
            )


def test_sequences_are_pieces_of_episodes():
    episodes = make("box")
    reader = dataset("box").reader(6, seed=1, sequence_length=3)
    batch = reader.next()
    assert reader.epoch == 1 and batch["mask"].sum() == 13
    assert batch["episode_starts"].sum() == 4
    found = {}
    for row in range(6):
        size = batch["mask"][row].sum()
        assert batch["mask"][row, :size].all()
        assert not batch["observations"][row, size:].any()
        found[float(batch["rewards"][row, 0])] = batch["rewards"][row, :size]
    for episode in episodes:
        for start in range(0, episode.length, 3):
            rewards = episode.rewards[start : start + 3].astype("float32")
            np.testing.assert_array_equal(found[float(rewards[0])], rewards)


@pytest.mark.parametrize("sequence_length", [None, 2])
def test_readers_go_on_where_another_stopped(sequence_length):
    data = dataset("box", lengths=[4] * 30)
    # Several parts, of which two are in memory at a time.
    parts = data.split([1, 1, 1, 1, 1], seed=0)
    data = offline.Dataset(*SPACES["box"], [part.parts[0] for part in parts])
    arguments = {"batch_size": 7, "sequence_length": sequence_length}
    arguments["memory_bytes"] = 2 * data.nbytes // 5 + 200
    reader = data.reader(seed=5, **arguments)
    for _ in range(5):
        reader.next()
    state = reader.state()
    expected = [reader.next()["rewards"] for _ in range(40)]
    assert reader.epoch >= 1
    other = data.reader(seed=6, **arguments)
    other.set_state(state)
    for rewards in expected:
        np.testing.assert_array_equal(other.next()["rewards"], rewards)
    with pytest.raises(ValueError, match="go on with the same data"):
        parts[0].reader(seed=0).set_state(state)
    before = other.state()
    for wrong in ({"position": 10**6}, {"group": 10**6}):
        with pytest.raises(ValueError, match="state of a reader"):
            other.set_state({**state, **wrong})
        assert other.state() == before


def test_every_step_is_read_once_an_epoch_from_parts_too():
    data = dataset("box", lengths=[4] * 30)
    parts = data.split([1, 1, 1], seed=0)
    data = offline.Dataset(*SPACES["box"], [part.parts[0] for part in parts])
    reader = data.reader(batch_size=8, seed=0, memory_bytes=1)
    for _ in range(2):
        seen = np.concatenate([reader.next()["rewards"] for _ in range(15)])
        rewards = np.concatenate([x.rewards for x in data.episodes]).astype("float32")
        np.testing.assert_array_equal(np.sort(seen), np.sort(rewards))


def test_a_reader_holds_its_data_once():
    """And, while it loads them, one part more."""
    steps = 20_000
    seen = np.random.default_rng(0).normal(size=(steps, 128)).astype(np.float32)
    ends = np.arange(steps) % 100 == 99
    data = offline.from_arrays(seen, np.zeros(steps, np.int64), np.zeros(steps), ends)
    parts = [part.parts[0] for part in data.split([1] * 5, seed=0)]
    data = offline.Dataset(data.observation_space, data.action_space, parts)
    reader = data.reader(8, seed=0)
    tracemalloc.start()
    try:
        reader.next()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * seen.nbytes and peak < 1.6 * seen.nbytes


def test_memory_stays_flat_where_data_do_not_fit(tmp_path):
    """Of files of 24 MB a reader holds the 4 MB that it may, and a part as it loads."""
    box = gs.Box(0, 255, (4096,), np.uint8)
    with offline.Writer(tmp_path, box, gs.Discrete(2), shard_bytes=2**20) as writer:
        generator = np.random.default_rng(0)
        for _ in range(24):
            seen = generator.integers(256, size=(256, 4096), dtype=np.uint8)
            taken = np.zeros(255, np.int64)
            writer.add(offline.Episode(seen, taken, np.ones(255), True))
    data = offline.load(tmp_path)
    assert len(data.parts) == 24
    reader = data.reader(64, seed=0, memory_bytes=2**22)
    reader.next()
    tracemalloc.start()
    try:
        while reader.epoch < 2:
            reader.next()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20 < data.nbytes / 2


def test_filter_and_split_share_the_episodes_out():
    data = dataset("nested", lengths=range(1, 21))
    long = data.filter(lambda episode: episode.length > 15)
    assert [x.length for x in long.episodes] == [16, 17, 18, 19, 20]
    assert long.num_steps == 90
    train, test = data.split([0.8, 0.2], seed=0)
    assert (train.num_episodes, test.num_episodes) == (16, 4)
    lengths = [x.length for part in (train, test) for x in part.episodes]
    assert sorted(lengths) == list(range(1, 21))
    again = data.split([0.8, 0.2], seed=0)[1]
    assert [x.length for x in again.episodes] == [x.length for x in test.episodes]
    assert test.reader(5, seed=0).next()["rewards"].shape == (5,)
    with pytest.raises(ValueError, match="positive"):
        data.split([1, 0])


def test_rewards_are_rewritten_over_whole_episodes():
    """As of a judge who speaks at the end: all steps share what came of them."""
    data = dataset("box")

    def shared(episode):
        rewards = np.full(episode.length, episode.episode_return)
        return dataclasses.replace(episode, rewards=rewards)

    found = data.map(shared)
    for one, other in zip(found.episodes, data.episodes, strict=True):
        assert set(one.rewards) == {other.episode_return}
        np.testing.assert_array_equal(one.observations, other.observations)
    with pytest.raises(TypeError, match="Expected a kerasrl.offline.Episode"):
        data.map(lambda episode: None)


def test_statistics_are_those_of_numpy():
    episodes = make("box", lengths=(3, 1, 5, 4))
    data = offline.from_episodes(episodes, *SPACES["box"])
    found = data.statistics()
    seen = np.concatenate([x.observations for x in episodes])
    np.testing.assert_allclose(found["observation_mean"], seen.mean(0), 1e-6)
    np.testing.assert_allclose(found["observation_std"], seen.std(0), 1e-6)
    ended = [x for x in episodes if x.has_ended]
    returns = [x.rewards.sum() for x in ended]
    np.testing.assert_allclose(found["return_mean"], np.mean(returns))
    np.testing.assert_allclose(found["return_std"], np.std(returns))
    counts = [found[f"num_{x}"] for x in ("terminated", "truncated", "unfinished")]
    assert counts == [2, 1, 1]
    rewards = np.concatenate([x.rewards for x in episodes])
    np.testing.assert_allclose(found["reward_std"], rewards.std())
    assert found["reward_max"] == rewards.max()
    # In two parts, it is the same.
    parts = [x.parts[0] for x in data.split([0.5, 0.5], seed=1)]
    other = offline.Dataset(*SPACES["box"], parts).statistics()
    np.testing.assert_allclose(other["observation_std"], seen.std(0), 1e-6)


def test_what_does_not_fit_is_refused():
    (episode,) = make("box", lengths=[3])
    data = lambda **changed: offline.from_episodes(  # noqa: E731
        [offline.Episode(**{**vars(episode), **changed})], *SPACES["box"]
    )
    with pytest.raises(ValueError, match="4 rows"):
        data(observations=episode.observations[:3])
    with pytest.raises(ValueError, match="NaN"):
        data(rewards=np.array([0.0, np.nan, 1.0]))
    nested = make("nested", lengths=[3])
    nested[0].observations = {"image": nested[0].observations["image"]}
    with pytest.raises(ValueError, match="structure"):
        offline.from_episodes(nested, *SPACES["nested"])
    with pytest.raises(ValueError, match="True or False"):
        data(terminated=1)
    with pytest.raises(ValueError, match="one row for each"):
        data(extras={"log_probs": np.zeros(2)})
    with pytest.raises(ValueError, match="numbers"):
        data(extras={"x": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match="at least one step"):
        data(rewards=np.zeros(0))
    choices = make("discrete", lengths=[3])[0]
    choices.actions = choices.actions + 4
    with pytest.raises(ValueError, match="out of the range"):
        offline.from_episodes([choices], *SPACES["discrete"])
    with pytest.raises(TypeError, match="Episode"):
        offline.from_episodes([1], *SPACES["box"])
    with pytest.raises(ValueError, match="without steps"):
        offline.from_episodes([], *SPACES["box"]).reader()


def test_arrays_become_episodes():
    observations = np.arange(7, dtype="float32")[:, None]
    terminated = np.array([0, 0, 1, 0, 0, 0, 0])
    truncated = np.array([0, 0, 0, 0, 1, 0, 0])
    actions, rewards = np.array([0, 1, 1, 0, 2, 0, 1]), np.arange(7.0)
    arrays = (observations, actions, rewards, terminated, truncated)
    following = observations + 1.0
    following[[4, 6]] -= 0.5
    data = offline.from_arrays(*arrays, next_observations=following)
    assert data.action_space.n == 3
    assert [x.length for x in data.episodes] == [3, 2, 2]
    first, second, third = data.episodes
    assert first.terminated and second.truncated and not third.has_ended
    assert second.observations[:, 0].tolist() == [3.0, 4.0, 4.5]
    # What followed the last step of an episode that was cut off is not known.
    data = offline.from_arrays(*arrays)
    assert [x.length for x in data.episodes] == [3, 1, 1]
    assert data.episodes[0].observations[:, 0].tolist() == [0.0, 1.0, 2.0, 2.0]
    assert data.episodes[1].observations[:, 0].tolist() == [3.0, 4.0]
    assert not data.episodes[1].has_ended
    with pytest.raises(ValueError, match="Give the space"):
        offline.from_arrays(observations, actions - 5, rewards, terminated)
    with pytest.raises(ValueError, match="row for each"):
        offline.from_arrays(*arrays, extras={"more": {"x": np.zeros(6)}})


def test_rows_that_do_not_follow_each_other_are_episodes_of_their_own():
    """As where pieces of several runs were put together without a flag between."""
    seen = np.float32([[0.0], [1.0], [5.0], [6.0]])
    following = np.float32([[1.0], [2.0], [6.0], [7.0]])
    none = np.zeros(4, bool)
    data = offline.from_arrays(
        seen, np.zeros(4, int), np.arange(4.0), none, next_observations=following
    )
    found = [x.observations.ravel().tolist() for x in data.episodes]
    assert found == [[0.0, 1.0, 2.0], [5.0, 6.0, 7.0]]
    assert not any(x.has_ended for x in data.episodes)
    batch = data.reader(4, seed=0).next()
    pairs = zip(batch["observations"], batch["next_observations"], strict=True)
    assert all(y - x == 1.0 for x, y in pairs)


def test_rows_with_fewer_digits_follow_each_other_all_the_same():
    steps = np.arange(4)[:, None] / 7.0
    for seen, following in ((np.float32, np.float64), (np.float64, np.float32)):
        data = offline.from_arrays(
            steps[:3].astype(seen),
            np.zeros(3, int),
            np.arange(3.0),
            np.zeros(3, bool),
            next_observations=steps[1:].astype(following),
        )
        assert data.num_episodes == 1
