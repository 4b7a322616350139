"""Data sets as rollouts, in replay, and as batches of TensorFlow."""

import numpy as np
import pytest
from recorded import SPACES, assert_equal, dataset, make

import kerasrl
from kerasrl import offline
from kerasrl.offline.recording import RolloutEpisodes


def tiny_dqn(**arguments):
    policy = {"hidden_units": (4,)}
    small = {"batch_size": 4, "buffer_size": 100, "learning_starts": 0}
    arguments = {"train_every": 1, **small, **arguments}
    agent = kerasrl.DQN(policy=policy, seed=0, **arguments)
    agent.compile(jit_compile=False)
    return agent


@pytest.mark.parametrize(("num_steps", "num_envs"), [(4, 1), (3, 2), (50, 3), (1, 9)])
@pytest.mark.parametrize("kind", ["discrete", "nested"])
def test_rollouts_are_the_episodes(kind, num_steps, num_envs):
    """Put together again, they are; what was unfinished was cut off, to learners."""
    lengths = (3, 1, 5, 4, 2, 2, 7)
    data = dataset(kind, lengths=lengths)
    again = RolloutEpisodes(*SPACES[kind])
    found, starts = [], []
    for rollout in data.rollouts(num_steps, num_envs):
        assert rollout.rewards.shape == (num_steps, num_envs)
        if starts:
            np.testing.assert_array_equal(rollout.episode_starts[0], starts[-1])
        starts.append(rollout.next_inputs["episode_starts"])
        ends = rollout.terminated | rollout.truncated
        np.testing.assert_array_equal(rollout.episode_starts[1:], ends[:-1])
        found += again.add(rollout)
    assert not again.unfinished()
    expected = make(kind, lengths=lengths)
    for episode in expected:
        episode.extras = {}
        episode.truncated = episode.truncated or not episode.terminated
        # As learners have them.
        episode.rewards = episode.rewards.astype(np.float32).astype(np.float64)
    found.sort(key=lambda x: x.rewards.tolist())
    expected.sort(key=lambda x: x.rewards.tolist())
    for one, other in zip(found, expected, strict=True):
        one.extras = {}
        assert_equal(one, other)


def test_what_came_before_is_told_across_rollouts():
    data = dataset("box", lengths=[6, 3])
    whole = next(iter(data.rollouts(20)))
    parts = list(data.rollouts(4))
    for name in ("previous_actions", "previous_rewards", "actions", "observations"):
        joined = np.concatenate([getattr(part, name) for part in parts])[:9]
        np.testing.assert_array_equal(joined, getattr(whole, name)[:9])
    np.testing.assert_array_equal(
        parts[0].next_inputs["previous_actions"], parts[1].previous_actions[0]
    )
    np.testing.assert_array_equal(
        parts[0].next_inputs["observations"], parts[1].observations[0]
    )
    assert whole.valid.sum() == 9 and whole.truncated[9:].all()


def test_agents_with_replay_learn_from_data_alone():
    data = dataset("discrete", lengths=[5] * 8)
    agent = tiny_dqn()
    agent.build(data.observation_space, data.action_space)
    before = [np.array(x) for x in agent.get_weights()]
    agent.fit(list(data.rollouts(num_steps=8)), verbose=0)
    assert agent.updates == 40 and agent.env_steps == 40
    after = agent.get_weights()
    assert any((x != y).any() for x, y in zip(before, after, strict=True))


def test_replay_is_filled_with_the_steps_of_the_data():
    data = dataset("discrete", lengths=[5, 3, 8, 2])
    agent = tiny_dqn(n_step=1, gamma=0.9)
    data.to_replay(agent, num_envs=2)
    assert len(agent.buffer) == 18
    batch = agent.buffer.sample(500, rng=np.random.default_rng(0))
    steps = set()
    for episode in data.episodes:
        for time in range(episode.length):
            is_end = episode.terminated and time == episode.length - 1
            steps.add(
                (
                    *(int(episode.observations[time + i]) for i in (0, 1)),
                    int(episode.actions[time]),
                    float(np.float32(episode.rewards[time])),
                    float(np.float32(0.0 if is_end else 0.9)),
                )
            )
    names = ("observations", "next_observations", "actions", "rewards", "discounts")
    columns = [batch[name].tolist() for name in names]
    found = set(zip(*columns, strict=True))
    # What follows an end is of no use, and may be anything.
    usable = {step for step in found if step[-1]}
    assert usable == {step for step in steps if step[-1]}
    assert {(s[0], *s[2:]) for s in found} == {(s[0], *s[2:]) for s in steps}
    with pytest.raises(ValueError, match="18 samples"):
        data.to_replay(agent)


def test_all_of_the_data_fits_where_it_is_said_to():
    """Also many short episodes with few long ones, which environments take in turn."""
    lengths = [1] * 63 + [64, 2, 1, 1]
    data = dataset("discrete", lengths=lengths)
    agent = tiny_dqn(buffer_size=260)
    data.to_replay(agent, num_envs=2)
    assert len(agent.buffer) == sum(lengths)


def test_replay_that_cannot_be_filled_is_refused():
    data = dataset("discrete", lengths=[5] * 30)
    with pytest.raises(ValueError, match="larger buffer_size"):
        data.to_replay(tiny_dqn())
    with pytest.raises(TypeError, match="replay buffer"):
        data.to_replay(kerasrl.PPO())


def test_tensorflow_reads_the_batches_of_a_reader():
    data = dataset("nested")
    reader = data.reader(5, seed=2, gamma=0.9)
    expected = [reader.next() for _ in range(4)]
    batches = data.as_tf_dataset(5, seed=2, gamma=0.9).take(4)
    for found, batch in zip(batches.as_numpy_iterator(), expected, strict=True):
        np.testing.assert_array_equal(found["rewards"], batch["rewards"])
        x, y = (each["observations"]["pair"][1]["x"] for each in (found, batch))
        np.testing.assert_array_equal(x, y)
        assert found["extras"].keys() == batch["extras"].keys()


def test_functions_and_rules_are_collected(tmp_path):
    def lean(observations):
        return (observations[:, 2] > 0).astype(int)

    data = offline.collect(lean, "CartPole-v1", tmp_path, episodes=5, seed=0)
    assert data.num_episodes == 5 and all(x.has_ended for x in data.episodes)
    for episode in data.episodes:
        np.testing.assert_array_equal(episode.actions, lean(episode.observations[:-1]))
    result = kerasrl.evaluate(lean, "CartPole-v1", episodes=5, seed=0)
    assert data.statistics()["return_mean"] == result["return_mean"]
