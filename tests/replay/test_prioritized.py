import numpy as np
import pytest
from gymnasium import spaces
from replay_helpers import every_sample, number_buffer, one_env_rollout

from kerasrl.replay import PrioritizedReplayBuffer, SequenceReplayBuffer

TINY = 1e-12


def prioritized(errors, **kwargs):
    """A buffer with one transition for each error."""
    kwargs = {"epsilon": TINY, **kwargs}
    buffer = number_buffer(40, PrioritizedReplayBuffer, **kwargs)
    buffer.add(one_env_rollout(np.arange(len(errors))))
    indices = every_sample(buffer)["indices"]
    buffer.update_priorities(indices, np.asarray(errors, float))
    return buffer, indices


def frequencies(buffer, num_batches=4000, batch_size=16):
    rng = np.random.default_rng(0)
    batch = buffer.sample(batch_size, num_batches, rng=rng)
    counts = np.bincount(batch["rewards"].ravel().astype(int), minlength=len(buffer))
    return counts / counts.sum()


def test_literal_probabilities_and_weights():
    # dqn_zoo, replay_test.py (reference.md, B8).
    buffer, _ = prioritized([1, 4, 3], priority_exponent=0.8, uniform_fraction=0.1)
    expected = np.array([0.17309231, 0.45700333, 0.36990436])
    np.testing.assert_allclose(frequencies(buffer), expected, atol=5e-3)
    batch = buffer.sample(2000, rng=np.random.default_rng(0), importance_exponent=0.6)
    chosen = batch["rewards"].astype(int)
    assert set(chosen) == {0, 1, 2}
    weights = np.array([1.0, 0.55848954, 0.63403466])
    np.testing.assert_allclose(batch["weights"], weights[chosen], rtol=1e-6)


def test_literal_weights():
    # SEED, tests/utils_test.py: weights proportional to 1 / p.
    buffer, _ = prioritized([0.3, 0.9], priority_exponent=1.0)
    batch = buffer.sample(100, rng=np.random.default_rng(0))
    expected = np.array([1.0, 1.0 / 3.0])[batch["rewards"].astype(int)]
    np.testing.assert_allclose(batch["weights"], expected, rtol=1e-6)


def test_weights_are_normalised_within_each_batch():
    buffer, _ = prioritized([1.0, 20.0, 20.0], priority_exponent=1.0)
    batch = buffer.sample(8, 300, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(batch["weights"].max(axis=-1), 1.0)
    without = (batch["rewards"] != 0).all(axis=-1)
    assert 0 < without.sum() < 300
    np.testing.assert_array_equal(batch["weights"][without], 1.0)


@pytest.mark.parametrize("uniform_fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_frequencies_follow_the_formula(exponent, uniform_fraction):
    errors = np.array([0.0, 0.1, 1.0, 2.0, 5.0, 0.0])
    buffer, _ = prioritized(
        errors,
        priority_exponent=exponent,
        uniform_fraction=uniform_fraction,
        epsilon=0.01,
    )
    powers = (errors + 0.01) ** exponent
    expected = (1 - uniform_fraction) * powers / powers.sum() + uniform_fraction / 6
    np.testing.assert_allclose(frequencies(buffer), expected, atol=6e-3)


def test_each_batch_is_stratified_by_itself():
    errors = np.ones(8)
    buffer, _ = prioritized(errors)
    batch = buffer.sample(8, 50, rng=np.random.default_rng(0))
    # Each of the eight equal parts of the sum is one transition.
    np.testing.assert_array_equal(
        batch["rewards"], np.broadcast_to(np.arange(8.0), (50, 8))
    )


def test_new_transitions_have_the_largest_priority_so_far():
    buffer, indices = prioritized([0.5, 7.0], priority_exponent=1.0)
    buffer.update_priorities(indices, np.array([0.5, 2.0]))
    buffer.add(one_env_rollout([2.0], first=2))
    np.testing.assert_allclose(
        frequencies(buffer), np.array([0.5, 2.0, 7.0]) / 9.5, atol=5e-3
    )


def test_late_updates_of_overwritten_transitions_are_ignored():
    buffer = number_buffer(5, PrioritizedReplayBuffer, priority_exponent=1.0)
    buffer.add(one_env_rollout(np.arange(4.0)))
    old = every_sample(buffer)["indices"]
    buffer.add(one_env_rollout([4.0, 5.0], first=4))  # Overwrites the first two.
    before = buffer.get_arrays()["priorities"].copy()
    buffer.update_priorities(old[:2], np.array([50.0, 60.0]))
    np.testing.assert_array_equal(buffer.get_arrays()["priorities"], before)
    buffer.update_priorities(old, np.array([50.0, 60.0, 3.0, 1.0]))
    np.testing.assert_array_equal(every_sample(buffer)["rewards"], [2, 3, 4, 5])
    chances = frequencies(buffer)[2:]
    expected = np.array([3.0, 1.0, 1.0, 1.0]) / 6.0
    np.testing.assert_allclose(chances, expected, atol=5e-3)
    # What was only seen as overwritten does not raise the priority of new ones.
    assert buffer.get_state()["sampler"]["largest_priority"] < 4.0


def test_the_last_error_of_an_index_counts():
    buffer, indices = prioritized([1.0, 1.0], priority_exponent=1.0)
    buffer.update_priorities(
        indices[[[0, 1], [0, 0]]], np.array([[9.0, 1.0], [8.0, 3.0]])
    )
    np.testing.assert_allclose(frequencies(buffer), [0.75, 0.25], atol=5e-3)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, np.inf])
def test_impossible_errors_are_refused(wrong):
    buffer, indices = prioritized([1.0, 2.0])
    before = buffer.get_arrays()["priorities"].copy()
    with pytest.raises(ValueError, match=f"Received: {wrong}"):
        buffer.update_priorities(indices, np.array([1.0, wrong]))
    np.testing.assert_array_equal(buffer.get_arrays()["priorities"], before)


def test_unknown_indices_are_refused():
    buffer, indices = prioritized([1.0, 2.0])
    for wrong in (indices + 2, indices - 1):
        with pytest.raises(ValueError, match="not from this buffer"):
            buffer.update_priorities(wrong, np.ones(2))
    with pytest.raises(ValueError, match="one absolute error for each"):
        buffer.update_priorities(indices, np.ones((2, 1)))
    with pytest.raises(ValueError, match="one absolute error for each"):
        buffer.update_priorities(indices.astype(float), np.ones(2))
    buffer.update_priorities(indices[:0], np.ones(0))


@pytest.mark.parametrize(
    "arguments",
    [
        {"priority_exponent": 1.5},
        {"priority_exponent": None},
        {"uniform_fraction": -0.1},
        {"epsilon": 0.0},
    ],
)
def test_arguments_are_checked(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        number_buffer(9, PrioritizedReplayBuffer, **arguments)


def test_a_uniform_fraction_needs_priorities():
    with pytest.raises(ValueError, match="no effect"):
        SequenceReplayBuffer(
            900,
            spaces.Box(0, 1, (2,)),
            spaces.Discrete(2),
            priority_exponent=None,
            uniform_fraction=0.5,
        )
