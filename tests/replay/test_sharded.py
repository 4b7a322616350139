"""Buffers of single workers, drawn from as if they were one."""

import copy
import dataclasses
import json
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from replay_helpers import number_buffer, one_env_rollout

from kerasrl.replay import (
    PrioritizedReplayBuffer,
    ReplayBuffer,
    ShardedReplay,
    first_errors,
    memory,
)

POWER = {"epsilon": 1e-12, "priority_exponent": 1.0}


def numbered(first, count, env=0):
    """Steps whose rewards are running numbers, of one of several environments."""
    rollout = one_env_rollout(np.arange(first, first + count))
    return dataclasses.replace(rollout, first_env=env)


def sharded(errors_of_parts, capacity=40, **kwargs):
    """One transition for each error; the reward is its number over all parts."""
    kwargs = {"epsilon": 1e-12, **kwargs}
    made = [
        number_buffer(capacity, PrioritizedReplayBuffer, **kwargs)
        for _ in errors_of_parts
    ]
    buffer, first = ShardedReplay(made), 0
    for env, errors in enumerate(errors_of_parts):
        if len(errors):
            errors = np.array(errors, float)[:, None]
            buffer.add(numbered(first, len(errors), env), errors)
        first += len(errors)
    return buffer


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    strategies.lists(
        strategies.lists(
            strategies.just(np.nan) | strategies.floats(0.01, 10.0), max_size=6
        ),
        min_size=1,
        max_size=4,
    ).filter(lambda parts: any(parts)),
    strategies.sampled_from([0.0, 0.3, 1.0]),
    strategies.sampled_from([0.0, 0.6, 1.0]),
)
def test_probabilities_are_those_of_one_buffer(parts, uniform, exponent):
    buffer = sharded(parts, uniform_fraction=uniform, priority_exponent=exponent)
    largest, priorities = 1.0, []
    for part in map(np.array, parts):
        # Not known: the largest that any part has seen by then.
        largest = np.nanmax([largest, *part])
        priorities.append(np.where(np.isnan(part), largest, part))
    powers = np.concatenate(priorities) ** exponent
    expected = (1 - uniform) * powers / powers.sum() + uniform / len(powers)
    batch = buffer.sample(64, 40, rng=np.random.default_rng(0), importance_exponent=0.7)
    chosen = batch["rewards"].astype(int)
    np.testing.assert_allclose(batch["probabilities"], expected[chosen], rtol=1e-6)
    weights = (len(buffer) * expected[chosen]) ** -0.7
    weights /= weights.max(axis=-1, keepdims=True)
    np.testing.assert_allclose(batch["weights"], weights, rtol=1e-5)
    found = np.bincount(chosen.ravel(), minlength=len(powers)) / chosen.size
    np.testing.assert_allclose(found, expected, atol=0.05)
    for shard in buffer.shards:
        assert shard._sampler.uniform_fraction == uniform


def test_the_largest_priority_so_far_is_that_of_any_part():
    buffer = sharded([[1.0, 2.0], [1.0]], **POWER)
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    errors = np.where(batch["rewards"] == 1, 50.0, 1.0)
    buffer.update_priorities(batch["indices"], errors)
    other = sharded([[], []], **POWER)
    state = buffer.get_state()
    # As in files of when each part had one of its own.
    state["shards"][1]["sampler"]["largest_priority"] = 1.0
    other.set_state(state, buffer.get_arrays())
    for each in (buffer, other):
        rollout = one_env_rollout([7.0], first=1)
        each.add(dataclasses.replace(rollout, first_env=1))
        batch = each.sample(64, rng=np.random.default_rng(0))
        new = batch["rewards"] == 7
        np.testing.assert_allclose(batch["probabilities"][new], 50 / 102, rtol=1e-6)


def test_each_batch_is_stratified_over_all_parts():
    # Draws that do not depend on each other vary by 64 * 1/4 * 3/4 = 12.
    buffer = sharded([[1.0] * 40, [1.0] * 40], capacity=200, **POWER)
    batch = buffer.sample(64, 200, rng=np.random.default_rng(0))
    counts = (batch["rewards"] < 20).sum(axis=-1)
    assert abs(counts.mean() - 16) < 0.2 and counts.var() < 1.0


def test_parts_that_fit_one_by_one_must_fit_together(monkeypatch, tmp_path):
    def parts(**kwargs):
        made = [number_buffer(250, PrioritizedReplayBuffer, **kwargs) for _ in range(4)]
        return ShardedReplay(made)

    needed = parts().nbytes
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    assert parts().nbytes == needed
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=r"4 parts .*memory.*`buffer_size` of an"):
        parts()
    of_one = number_buffer(250, PrioritizedReplayBuffer, directory=tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * of_one.storage_bytes()[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert parts(directory=tmp_path).nbytes == needed
    usage = usage._replace(free=usage.free - 1)
    with pytest.raises(MemoryError, match=r"4 parts .*disk space"):
        parts(directory=tmp_path)


def test_one_part_is_the_buffer_itself():
    alone, part = (number_buffer(40, PrioritizedReplayBuffer) for _ in range(2))
    buffer = ShardedReplay([part])
    for each in (alone, buffer):
        each.add(one_env_rollout(np.arange(20)))
    rngs = [np.random.default_rng(3) for _ in range(2)]
    for _ in range(3):
        left, right = (
            each.sample(8, 2, rng=rng, importance_exponent=0.4)
            for each, rng in zip((alone, buffer), rngs, strict=True)
        )
        np.testing.assert_array_equal(left["indices"], right["indices"])
        np.testing.assert_array_equal(left["weights"], right["weights"])
        for each in (alone, buffer):
            each.update_priorities(left["indices"], left["rewards"])


def test_uniform_parts_are_drawn_from_by_their_sizes():
    buffer = ShardedReplay([number_buffer(40, ReplayBuffer) for _ in range(3)])
    buffer.add(numbered(0, 9, 0))
    buffer.add(numbered(9, 3, 2))
    batch = buffer.sample(120, 5, rng=np.random.default_rng(0))
    counts = np.bincount(batch["rewards"].ravel().astype(int))
    np.testing.assert_allclose(counts / 600, 1 / 12, atol=0.03)
    np.testing.assert_allclose(batch["probabilities"], 1 / 12)
    np.testing.assert_array_equal(batch["weights"], 1.0)
    # Not all of a batch from one part, and not in the order in which they lie.
    assert (np.diff(batch["rewards"]) < 0).any(axis=-1).all()


def test_priorities_go_to_the_part_that_a_sample_is_of():
    buffer = sharded([[1.0] * 4, [1.0] * 4], **POWER)
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    errors = np.where(batch["rewards"] == 6, 5.0, 1.0)
    assert buffer.update_priorities(batch["indices"], errors) == 0
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    expected = np.where(batch["rewards"] == 6, 5 / 12, 1 / 12)
    np.testing.assert_allclose(batch["probabilities"], expected, rtol=1e-6)


def test_what_was_overwritten_meanwhile_is_left_out_and_counted():
    # T16: the slot belongs to another transition by now.
    buffer = sharded([[1.0] * 4, [1.0] * 4], capacity=8, **POWER)
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    of_first = batch["rewards"] < 4
    rollout = dataclasses.replace(one_env_rollout(np.arange(100, 107), first=4))
    buffer.add(rollout, np.full((7, 1), 2.0))
    stale = buffer.update_priorities(batch["indices"], np.full(64, 9.0))
    assert stale == of_first.sum() > 0
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    of_new = batch["rewards"] >= 100
    total = 7 * 2.0 + 4 * 9.0
    np.testing.assert_allclose(batch["probabilities"][of_new], 2 / total, rtol=1e-6)


def test_it_goes_on_exactly_from_what_was_saved():
    buffer = sharded([[1.0, 2.0], [3.0]])
    state = json.loads(json.dumps(buffer.get_state()))
    arrays = copy.deepcopy(buffer.get_arrays())
    other = sharded([[], []])
    other.set_state(state, arrays)
    assert len(other) == 3 and other.num_envs == 2 and other.capacity == 80
    for each in (buffer, other):
        each.add(dataclasses.replace(one_env_rollout([7.0], first=1), first_env=1))
    left, right = (
        each.sample(16, 2, rng=np.random.default_rng(1)) for each in (buffer, other)
    )
    for name in ("indices", "rewards", "weights"):
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda s, a: s.update(shards=s["shards"][:1]), "1 parts. Expected: 2"),
        (lambda s, a: s.update(shards=None), "None parts"),
        (lambda s, a: s["shards"].__setitem__(0, 3), "list of objects"),
        (lambda s, a: a.update({"shards.2.kinds": a["shards.1.kinds"]}), "shards.2"),
        (lambda s, a: a.update(kinds=a["shards.1.kinds"]), "'kinds'"),
        (lambda s, a: a.pop("shards.0.kinds"), "Missing"),
    ],
)
def test_other_states_are_refused(damage, message):
    buffer = sharded([[1.0], [2.0]])
    state, arrays = buffer.get_state(), buffer.get_arrays()
    damage(state, arrays)
    with pytest.raises(ValueError, match=message):
        sharded([[], []]).set_state(state, arrays)


def test_infos_that_one_part_has_not_seen_are_nan_there():
    made = [number_buffer(40, ReplayBuffer, keep_infos=True) for _ in range(2)]
    buffer = ShardedReplay(made)
    rollout = numbered(0, 4)
    buffer.add(dataclasses.replace(rollout, infos={"x": np.ones((4, 1))}))
    buffer.add(numbered(4, 4, env=1))
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(np.isnan(batch["infos"]["x"]), batch["rewards"] >= 4)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda b: b.add(numbered(0, 3, env=2)), "from number 2"),
        (lambda b: b.update_priorities(np.array([-1]), np.ones(1)), "not from this"),
        (lambda b: b.update_priorities(np.array([0]), np.ones(2)), "one absolute"),
        (lambda b: b.update_priorities(np.array([0]), [np.nan]), "finite"),
        (lambda b: b.sample(0), "batch_size"),
        (lambda b: b.sample(4, 0), "num_batches"),
        (lambda b: b.sample(4, importance_exponent=-1.0), "importance_exponent"),
        (lambda b: ShardedReplay([]), "0 buffers"),
        (lambda b: sharded([[], []]).sample(4), "nothing to sample"),
        (lambda b: b.add(numbered(0, 3), np.ones((2, 1))), r"shape \(2, 1\)"),
        (lambda b: b.add(numbered(0, 3), -np.ones((3, 1))), "absolute ones"),
    ],
)
def test_refusals_are_those_of_one_buffer(act, message):
    with pytest.raises(ValueError, match=message):
        act(sharded([[1.0], [2.0]]))


def test_errors_need_priorities():
    buffer = number_buffer(40, ReplayBuffer)
    with pytest.raises(ValueError, match="has no priorities of single steps"):
        buffer.add(numbered(0, 3), np.ones((3, 1)))


# First priorities ---------------------------------------------------------------------


def test_new_steps_have_their_error_or_the_largest_so_far():
    buffer = number_buffer(40, PrioritizedReplayBuffer, **POWER)
    buffer.add(numbered(0, 3), np.array([[2.0], [np.nan], [0.5]]))
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    expected = np.array([2.0, 2.0, 0.5])[batch["rewards"].astype(int)] / 4.5
    np.testing.assert_allclose(batch["probabilities"], expected, rtol=1e-6)


def test_first_errors_from_their_definition():
    rng = np.random.default_rng(0)
    length, num_envs, n_step, gamma = 30, 4, 3, 0.9
    shape = (length, num_envs)
    rollout = dataclasses.replace(
        one_env_rollout(np.zeros(length)),
        rewards=rng.standard_normal(shape).astype(np.float32),
        terminated=rng.random(shape) < 0.15,
        truncated=rng.random(shape) < 0.1,
        valid=rng.random(shape) < 0.9,
    )
    rollout.truncated |= ~rollout.valid
    rollout.terminated &= rollout.valid
    values, best = rng.standard_normal((2, *shape))
    found = first_errors(rollout, rollout.rewards, values, best, n_step, gamma)
    for time, env in np.ndindex(shape):
        total, known = 0.0, False
        for ahead in range(n_step + 1):
            row = time + ahead
            if row >= length or not rollout.valid[row, env]:
                break
            if ahead == n_step:
                total, known = total + gamma**n_step * best[row, env], True
                break
            total += gamma**ahead * rollout.rewards[row, env]
            if rollout.terminated[row, env]:
                known = True
            if rollout.terminated[row, env] or rollout.truncated[row, env]:
                break
        if known:
            np.testing.assert_allclose(
                found[time, env], abs(total - values[time, env]), rtol=1e-5
            )
        else:
            assert np.isnan(found[time, env])
    assert np.isfinite(found).mean() > 0.3


def test_first_errors_of_a_rollout_shorter_than_the_sum():
    rollout = numbered(1, 2)
    rollout.terminated[1] = True
    zeros = np.zeros((2, 1))
    found = first_errors(rollout, rollout.rewards, zeros, zeros, 5, 0.5)
    np.testing.assert_allclose(found, [[2.0], [2.0]])
