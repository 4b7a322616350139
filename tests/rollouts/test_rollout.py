"""Rollouts as trees."""

import dataclasses

import keras
import numpy as np
import optree
import pytest

from kerasrl.rollouts import Rollout
from kerasrl.rollouts.episodes import RunningEpisodes


@pytest.fixture
def rollout():
    grid = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    flags = np.zeros((4, 3), bool)
    valid = np.ones((4, 3), bool)
    valid[1, 2] = False
    return Rollout(
        observations={"a": grid[..., None], "b": (grid,)},
        actions=grid,
        rewards=grid,
        terminated=flags,
        truncated=flags,
        valid=valid,
        episode_starts=flags,
        previous_actions=grid,
        previous_rewards=grid,
        state={"h": np.ones((3, 2))},
        next_inputs={"observations": np.zeros(3)},
        final=None,
        extras={"values": grid},
    )


def test_slices(rollout):
    part = rollout[1:3]
    assert part.rewards.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert part.observations["a"].shape == (2, 3, 1)
    assert part.observations["b"][0].shape == (2, 3)
    assert part.extras["values"].shape == (2, 3)
    assert part.state is None and part.final is None and part.next_inputs is None
    assert rollout[:, 1].rewards.tolist() == [1, 4, 7, 10]
    assert rollout[rollout.valid].rewards.shape == (11,)


def test_num_steps_counts_valid(rollout):
    assert rollout.num_steps == 11
    assert isinstance(rollout.num_steps, int)
    assert rollout[1].num_steps == 2


def test_map_and_replace(rollout):
    flat = rollout.map(lambda array: array.reshape(-1, *array.shape[2:]))
    assert flat.observations["a"].shape == (12, 1)
    assert flat.state is rollout.state
    changed = dataclasses.replace(rollout, rewards=rollout.rewards * 2)
    assert changed.rewards[0, 1] == 2 and rollout.rewards[0, 1] == 1


@pytest.mark.parametrize("tree_map", [optree.tree_map, keras.tree.map_structure])
def test_is_a_tree(rollout, tree_map):
    if tree_map is keras.tree.map_structure:  # There None is a leaf.
        rollout = dataclasses.replace(rollout, final={})
    doubled = tree_map(lambda leaf: leaf * 2, rollout)
    assert isinstance(doubled, Rollout)
    np.testing.assert_array_equal(doubled.rewards, rollout.rewards * 2)
    np.testing.assert_array_equal(doubled.state["h"], np.full((3, 2), 2.0))
    np.testing.assert_array_equal(
        doubled.observations["b"][0], rollout.observations["b"][0] * 2
    )


def test_running_episodes_equal_a_loop():
    """Episodes over several rollouts, against sums by hand."""
    rng = np.random.default_rng(0)
    running = RunningEpisodes(3)
    sums, lengths, expected, received = np.zeros(3), np.zeros(3, int), [], []
    steps = 0
    for _ in range(10):
        rewards = rng.normal(size=(6, 3)).astype(np.float32)
        terminated, truncated = rng.random((2, 6, 3)) < 0.15
        valid = rng.random((6, 3)) < 0.9
        rewards[~valid] = 0.0
        truncated |= ~valid
        terminated &= valid
        records = running.update(rewards, terminated, truncated, valid, steps)
        received += [record for _, record in records]
        for time in range(6):
            steps += valid[time].sum()
            for env in range(3):
                if not valid[time, env]:
                    # A filler in the middle of an episode: the rest of it is lost.
                    sums[env] = lengths[env] = 0
                    continue
                sums[env] += rewards[time, env]
                lengths[env] += 1
                if terminated[time, env] or truncated[time, env]:
                    end = terminated[time, env]
                    expected.append((env, sums[env], lengths[env], end, steps))
                    sums[env] = lengths[env] = 0
    assert len(received) == len(expected) > 20
    for record, (env, total, length, terminated, env_steps) in zip(
        received, expected, strict=True
    ):
        assert record.env_index == env and record.length == length
        assert record.terminated == terminated and record.env_steps == env_steps
        np.testing.assert_allclose(record.episode_return, total, atol=1e-9)
