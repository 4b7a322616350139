"""Importance weights of batches that several buffers have parts of."""

import numpy as np
import pytest
from replay_helpers import every_sample, number_buffer, one_env_rollout

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer, global_weights

TINY = 1e-12
SHARDS = ([1.0, 4.0, 3.0, 0.2], [0.5, 9.0])


def shards(**kwargs):
    """Two buffers of different sizes, with one transition for each error."""
    buffers = []
    for errors in SHARDS:
        buffer = number_buffer(20, PrioritizedReplayBuffer, epsilon=TINY, **kwargs)
        buffer.add(one_env_rollout(np.arange(len(errors))))
        indices = every_sample(buffer)["indices"]
        buffer.update_priorities(indices, np.array(errors))
        buffers.append(buffer)
    return buffers


def sample_together(buffers, *arguments, beta):
    """What each buffer samples, with global weights."""
    batches = [
        buffer.sample(*arguments, np.random.default_rng(index), beta)
        for index, buffer in enumerate(buffers)
    ]
    # As ranks do, at the same time: what each has gathered, then what comes of it.
    gathered = []
    for batch in batches:
        global_weights(
            batch["probabilities"], beta, lambda x: gathered.append(x) or [x]
        )
    for batch in batches:
        batch["weights"] = global_weights(
            batch["probabilities"], beta, lambda _: gathered
        )
    return batches


def by_definition(batches, exponent, uniform_fraction, beta):
    """Weights `[K, 2 N]` of the joint batches, one by one."""
    num_batches, size = batches[0]["rewards"].shape
    total = sum(len(errors) for errors in SHARDS)
    weights = np.zeros((num_batches, len(batches) * size))
    for number in range(num_batches):
        for shard, errors in enumerate(SHARDS):
            powers = np.array(errors) ** exponent
            for place in range(size):
                # Rewards are running numbers.
                chosen = int(batches[shard]["rewards"][number, place])
                probability = (1.0 - uniform_fraction) * powers[chosen] / powers.sum()
                probability += uniform_fraction / len(errors)
                joint = probability / len(SHARDS)
                weights[number, shard * size + place] = (total * joint) ** -beta
        weights[number] /= weights[number].max()
    return weights


@pytest.mark.parametrize("uniform_fraction", [0.0, 0.3])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_are_those_of_the_joint_batch(beta, uniform_fraction):
    buffers = shards(priority_exponent=0.8, uniform_fraction=uniform_fraction)
    batches = sample_together(buffers, 3, 50, beta=beta)
    found = np.concatenate([batch["weights"] for batch in batches], axis=1)
    assert found.dtype == np.float32
    expected = by_definition(batches, 0.8, uniform_fraction, beta)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.max(axis=1), 1.0)
    if beta:
        # The largest is now in the one buffer, now in the other.
        owners = {int(row.argmax()) // 3 for row in found}
        assert owners == {0, 1}


def test_each_transition_counts_the_same_with_full_correction():
    first, second = sample_together(shards(), 40_000, 1, beta=1.0)
    counts = [
        np.bincount(batch["rewards"][0].astype(int), weights=batch["weights"][0])
        for batch in (first, second)
    ]
    counts = np.concatenate(counts)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.02)


def test_one_buffer_alone_keeps_its_weights():
    buffer = shards()[0]
    batch = buffer.sample(5, 4, np.random.default_rng(0), 0.4)
    alone = global_weights(batch["probabilities"], 0.4, lambda array: [array])
    np.testing.assert_allclose(alone, batch["weights"], rtol=1e-6)


def test_probabilities_of_uniform_draws():
    buffer = number_buffer(20, ReplayBuffer)
    buffer.add(one_env_rollout(np.arange(5.0)))
    batch = buffer.sample(2, 3)
    np.testing.assert_array_equal(batch["probabilities"], np.full((3, 2), 0.2))
