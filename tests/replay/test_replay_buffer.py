"""Transitions: against a slow reference, and by hand."""

import dataclasses

import numpy as np
import optree
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import (
    ACTIONS,
    KINDS,
    MORE,
    NUMBERS,
    assert_agrees,
    every_sample,
    make_world,
    number_buffer,
    one_env_rollout,
)
from replay_reference import World, n_step_transitions, surviving_steps

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_envs=st.integers(1, 3),
    n_step=st.integers(1, 5),
    length=st.integers(6, 40),
    longest=st.integers(1, 9),
    fillers=st.booleans(),
    losses=st.sampled_from([0.0, 0.0, 0.2, 0.5]),
    kind=st.sampled_from(KINDS),
    more=st.sampled_from([{}, MORE, MORE]),
    chunks=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([False, False, False, True])),
        min_size=1,
        max_size=10,
    ),
)
def test_agrees_with_a_slow_replay(
    seed, num_envs, n_step, length, longest, fillers, losses, kind, more, chunks
):
    rng = np.random.default_rng(seed)
    world = make_world(
        rng, num_envs, lengths=(1, longest), fillers=fillers, losses=losses
    )
    buffer = kind(
        length * num_envs, NUMBERS, ACTIONS, num_envs, n_step=n_step, gamma=0.9, **more
    )
    for steps, cut in chunks:
        buffer.add(world.collect(steps))
        if cut:
            buffer.cut()
            world.reset()
    expected = {}
    for history in world.history:
        alive = {step.action for step in surviving_steps(history, length)}
        for sample in n_step_transitions(history, n_step, 0.9):
            if sample["actions"] in alive:
                expected[sample["actions"]] = sample
    assert len(buffer) == len(expected)
    if not expected:
        return
    batch = buffer.sample(30 * len(expected) + 50, rng=rng)
    # Every valid start is reachable, and nothing else.
    assert set(batch["actions"].tolist()) == set(expected)
    _, first = np.unique(batch["actions"], return_index=True)
    assert_agrees(batch, first, expected)


class TestLiteralVectors:
    """Published n-step returns of a ring of 10 after 12 steps."""

    # thu-ml/tianshou, test/base/test_returns.py (reference.md, B1): reward i + 1, an
    # episode ends at i % 4 == 3, gamma 0.1, Q' = -(reward of the next stored row).
    # There a ring of ten transitions holds i = 2..11. Here final observations take a
    # row each: steps 2..11 need 13 rows. What follows an end there is the step itself,
    # so the final observation of step i is worth -(i + 1); that of step 11 follows a
    # terminated step and does not matter.
    EXPECTED = {
        1: [2.6, 4, 4.4, 5.3, 6.2, 8, 8, 8.9, 9.8, 12],
        2: [3.4, 4, 5.53, 6.62, 7.8, 8, 9.89, 10.98, 12.2, 12],
        10: [3.4, 4, 5.678, 6.78, 7.8, 8, 10.122, 11.22, 12.2, 12],
    }

    def targets(self, n_step, truncated=()):
        ends = [index for index in (3, 7, 11) if index not in truncated]
        buffer = number_buffer(13, n_step=n_step, gamma=0.1)
        rewards = np.arange(1.0, 13.0)
        buffer.add(one_env_rollout(rewards, ends, truncated))
        batch = every_sample(buffer)
        np.testing.assert_array_equal(batch["observations"][:, 0], np.arange(2, 12))
        # i + 1 in general, i + 0.5 if it is the final observation of step i.
        following = np.floor(batch["next_observations"][:, 0])
        return batch["rewards"] - batch["discounts"] * (following + 1.0)

    @pytest.mark.parametrize("n_step", EXPECTED)
    def test_terminated(self, n_step):
        np.testing.assert_allclose(
            self.targets(n_step), self.EXPECTED[n_step], rtol=1e-6
        )

    def test_truncated(self):
        assert self.targets(1, truncated=[3])[1] == pytest.approx(3.6)
        np.testing.assert_allclose(self.targets(2, [3])[:2], [3.36, 3.6], rtol=1e-6)

    def test_next_observations_and_ends_of_three_steps(self):
        # ray, rllib/evaluation/tests/test_postprocessing.py: n 3, gamma 0.9.
        buffer = number_buffer(20, n_step=3, gamma=0.9)
        buffer.add(one_env_rollout([10, 0, 100, 100, 100, 100, 100], [6]))
        batch = every_sample(buffer)
        np.testing.assert_allclose(
            batch["rewards"], [91, 171, 271, 271, 271, 190, 100], rtol=1e-6
        )
        np.testing.assert_array_equal(
            batch["next_observations"][:, 0], [3, 4, 5, 6, 6.5, 6.5, 6.5]
        )
        np.testing.assert_array_equal(batch["terminated"], [0, 0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(batch["steps"], [3, 3, 3, 3, 3, 2, 1])


def test_sums_are_shorter_near_the_newest_step_and_grow_when_steps_come():
    buffer = number_buffer(20, n_step=3, gamma=0.5)
    buffer.add(one_env_rollout([1.0, 2.0]))
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["rewards"], [2.0, 2.0])
    np.testing.assert_array_equal(batch["discounts"], [0.25, 0.5])
    buffer.add(one_env_rollout([4.0], first=2))
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["rewards"], [3.0, 4.0, 4.0])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [3, 3, 3])


def test_nothing_joins_across_a_cut():
    buffer = number_buffer(20, n_step=3, gamma=0.5)
    buffer.add(one_env_rollout([1.0, 2.0]))
    buffer.cut()
    buffer.cut()  # Cutting where nothing is joined changes nothing.
    buffer.add(one_env_rollout([4.0], first=7))
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["rewards"], [2.0, 2.0, 4.0])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [2, 2, 8])
    assert not batch["truncated"].any()


def test_a_reset_is_noticed_without_a_cut():
    buffer = number_buffer(20, n_step=3, gamma=0.5)
    buffer.add(one_env_rollout([1.0, 2.0]))
    buffer.add(one_env_rollout([4.0]))  # Begins with an episode start.
    batch = buffer.sample(200, rng=np.random.default_rng(0))
    assert set(batch["rewards"].tolist()) == {2.0, 4.0}


def test_a_missing_step_is_refused():
    buffer = number_buffer(20)
    buffer.add(one_env_rollout([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"Call cut\(\)"):
        buffer.add(one_env_rollout([1.0], first=3))
    assert len(buffer) == 2
    buffer.cut()
    buffer.add(one_env_rollout([1.0], first=3))
    assert len(buffer) == 3


def test_a_rollout_may_be_written_to_after_it_was_added():
    rollout = one_env_rollout([1.0, 2.0])
    buffer = number_buffer(20, n_step=3, gamma=0.5)
    buffer.add(rollout)
    optree.tree_map(lambda leaf: leaf.fill(0), rollout)
    buffer.cut()
    buffer.add(one_env_rollout([4.0], first=7))
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["rewards"], [2.0, 2.0, 4.0])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [2, 2, 8])


def test_a_filler_without_an_end_cuts():
    """A worker that died leaves fillers, whose observation followed the last step."""
    rollout = one_env_rollout([1.0, 2.0, 3.0, 4.0])
    rollout.valid[1:3], rollout.truncated[1:3] = False, True
    rollout.episode_starts[2:4] = True
    buffer = number_buffer(20, n_step=3, gamma=0.5)
    buffer.add(rollout)
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["observations"][:, 0], [0, 3])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [1, 4])
    np.testing.assert_array_equal(batch["rewards"], [1, 4])
    np.testing.assert_array_equal(batch["discounts"], [0.5, 0.5])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_uniform(kind):
    """Chi-square over all transitions of streams of different fill, after a wrap."""
    rng = np.random.default_rng(3)
    world = make_world(rng, 3, lengths=(1, 4))
    more = {"priority_exponent": 0.0} if kind is PrioritizedReplayBuffer else {}
    buffer = kind(120, NUMBERS, ACTIONS, 3, **more)
    for _ in range(12):
        buffer.add(world.collect(7))
    if more:
        batch = buffer.sample(50, rng=rng)
        buffer.update_priorities(batch["indices"], rng.random(50) * 100)
    draws = 400 * len(buffer)
    batch = buffer.sample(100, draws // 100, rng=rng)
    assert batch["actions"].shape == (draws // 100, 100)
    np.testing.assert_array_equal(batch["weights"], 1.0)
    _, counts = np.unique(batch["actions"], return_counts=True)
    assert len(counts) == len(buffer)
    chi_square = ((counts - 400) ** 2 / 400).sum()
    freedom = len(counts) - 1
    # Within four standard deviations; stratified draws vary less, never more.
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_episodes_of_one_step():
    buffer = number_buffer(6)
    buffer.add(one_env_rollout(range(8), terminated=range(8)))
    batch = every_sample(buffer)
    np.testing.assert_array_equal(batch["observations"][:, 0], [5, 6, 7])
    np.testing.assert_array_equal(batch["next_observations"][:, 0], [5.5, 6.5, 7.5])
    np.testing.assert_array_equal(batch["discounts"], 0.0)


def test_the_smallest_buffer():
    buffer = number_buffer(3)
    for first in range(9):
        buffer.add(one_env_rollout([first], first=first))
    np.testing.assert_array_equal(every_sample(buffer)["rewards"], [7, 8])


def test_nested_spaces_keep_their_dtypes():
    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (4, 4), np.uint8),
            "more": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (), "f8")]),
        }
    )
    action_space = spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-1, 1, (3,))])
    rng = np.random.default_rng(0)

    def observe(is_first):
        return {
            "image": rng.integers(0, 256, (4, 4)).astype(np.uint8),
            "more": (np.int64(rng.integers(3)), np.float32(rng.random())),
        }

    world = World(rng, 2, [observe, observe])
    rollout = world.collect(9)
    actions = (
        rng.integers(0, 2, (9, 2, 2)).astype(np.int8),
        rng.normal(size=(9, 2, 3)).astype(np.float32),
    )
    numbers = rollout.actions
    buffer = ReplayBuffer(60, observation_space, action_space, 2, n_step=2)
    buffer.add(dataclasses.replace(rollout, actions=actions))
    batch = buffer.sample(5, 3, rng=rng)
    assert batch["observations"]["image"].dtype == np.uint8
    assert batch["observations"]["image"].shape == (3, 5, 4, 4)
    assert batch["next_observations"]["more"][0].dtype == np.int64
    assert batch["observations"]["more"][1].dtype == np.float32
    assert batch["actions"][0].dtype == np.int8
    assert batch["actions"][1].shape == (3, 5, 3)
    dtypes = {
        "rewards": "float32",
        "discounts": "float32",
        "terminated": "bool",
        "truncated": "bool",
        "steps": "int32",
        "indices": "int64",
        "weights": "float32",
    }
    assert {name: str(batch[name].dtype) for name in dtypes} == dtypes
    steps = {step.action: step for history in world.history for step in history}
    for index in np.ndindex(3, 5):
        found = np.flatnonzero(
            (actions[1] == batch["actions"][1][index]).all(axis=-1).ravel()
        )
        step = steps[numbers.ravel()[found[0]]]
        for name, leaf in batch["observations"].items():
            optree.tree_map(
                lambda a, b, index=index: np.testing.assert_array_equal(a[index], b),
                leaf,
                step.observation[name],
            )
