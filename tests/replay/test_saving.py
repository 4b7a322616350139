"""A restored buffer goes on exactly where the saved one was."""

import json

import numpy as np
import optree
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import ACTIONS, EXTRAS, MORE
from replay_reference import World, frame_observer

from kerasrl.replay import (
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SequenceReplayBuffer,
)

FRAMES = spaces.Box(0, 255, (3, 2, 3), np.uint8)


def make_buffer(kind, length=60, **kwargs):
    if kind is SequenceReplayBuffer:
        kwargs = {
            "sequence_length": 5,
            "period": 4,
            "state_example": {"lstm": np.zeros(2, np.float32)},
            **kwargs,
        }
    else:
        kwargs = {"n_step": 3, **kwargs}
    return kind(2 * length, FRAMES, ACTIONS, 2, frame_stack=3, **kwargs)


def make_world(seed):
    rng = np.random.default_rng(seed)
    observers = [frame_observer(rng, 3, padding) for padding in ("reset", "other")]
    return World(rng, 2, observers, lengths=(1, 9))


def play(buffer, world, rng, rounds, prioritized):
    """Adds, samples and updates; returns everything that was sampled."""
    batches = []
    for _ in range(rounds):
        buffer.add(world.collect(4))
        if rng.random() < 0.2:
            buffer.cut()
            world.reset()
        if not len(buffer):
            continue
        batches.append(buffer.sample(7, 2, rng=rng, importance_exponent=0.5))
        if prioritized:
            indices = batches[-1]["indices"]
            buffer.update_priorities(indices, rng.random(indices.shape) * 9)
    return batches


def assert_equal(left, right):
    assert optree.tree_structure(left) == optree.tree_structure(right)
    optree.tree_map(np.testing.assert_array_equal, left, right)


CASES = [
    (ReplayBuffer, {}),
    (ReplayBuffer, MORE),
    (PrioritizedReplayBuffer, {"uniform_fraction": 0.1}),
    (SequenceReplayBuffer, {"priority_exponent": None}),
    (SequenceReplayBuffer, {"extras_example": EXTRAS, "keep_infos": True}),
]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    case=st.sampled_from(CASES),
    before=st.integers(0, 25),
    used=st.booleans(),
    length=st.integers(30, 90),
)
def test_a_restored_buffer_goes_on_bit_for_bit(seed, case, before, used, length):
    kind, kwargs = case
    prioritized = kind is PrioritizedReplayBuffer or (
        kind is SequenceReplayBuffer and kwargs.get("priority_exponent", 0.9)
    )
    buffer = make_buffer(kind, length, **kwargs)
    play(buffer, make_world(seed), np.random.default_rng(seed), before, prioritized)
    state = json.loads(json.dumps(buffer.get_state()))
    arrays = {name: array.copy() for name, array in buffer.get_arrays().items()}
    other = make_buffer(kind, length, **kwargs)
    if used:  # Whatever it held before is gone.
        play(other, make_world(1), np.random.default_rng(1), 20, prioritized)
    other.set_state(state, arrays)
    assert len(other) == len(buffer)
    assert_equal(other.get_arrays(), buffer.get_arrays())
    # The same worlds again, cut off from what was before.
    results = []
    for restored in (buffer, other):
        restored.cut()
        rng = np.random.default_rng(seed + 1)
        results.append(play(restored, make_world(seed + 1), rng, 15, prioritized))
        assert results[-1]
    assert_equal(*results)
    assert other.get_state() == buffer.get_state()
    assert_equal(other.get_arrays(), buffer.get_arrays())


@pytest.mark.parametrize(("kind", "kwargs"), CASES)
def test_streams_go_on_without_a_cut(kind, kwargs):
    world = make_world(0)
    buffer, other = make_buffer(kind, **kwargs), make_buffer(kind, **kwargs)
    for _ in range(7):
        buffer.add(world.collect(2))
    other.set_state(buffer.get_state(), buffer.get_arrays())
    for _ in range(8):
        rollout = world.collect(2)
        for each in (buffer, other):
            each.add(rollout)
        batches = [b.sample(50, rng=np.random.default_rng(0)) for b in (buffer, other)]
        assert_equal(*batches)
        assert buffer.get_state() == other.get_state()


def test_arrays_are_cut_to_the_filled_part():
    buffer = make_buffer(ReplayBuffer, 5000)
    buffer.add(make_world(0).collect(10))
    saved = sum(array.nbytes for array in buffer.get_arrays().values())
    assert saved < buffer.nbytes / 50


def test_files_equal_main_memory(tmp_path):
    for index, (kind, kwargs) in enumerate(CASES):
        directory = tmp_path / str(index)
        results = []
        for where in (None, directory):
            buffer = make_buffer(kind, 60, directory=where, **kwargs)
            rng = np.random.default_rng(0)
            results.append(play(buffer, make_world(0), rng, 30, False))
        assert_equal(*results)
        mapped = buffer.get_arrays()["observations"]
        assert isinstance(mapped.base, np.memmap) or isinstance(mapped, np.memmap)
        names = {name for name in buffer.get_arrays() if "starts" not in name}
        assert len(list(directory.rglob("*.npy"))) == len(names - {"priorities"}) >= 5
        in_memory = make_buffer(kind, 60, **kwargs)
        in_memory.set_state(buffer.get_state(), buffer.get_arrays())
        assert_equal(
            in_memory.sample(9, rng=np.random.default_rng(0)),
            buffer.sample(9, rng=np.random.default_rng(0)),
        )
        assert in_memory.nbytes == buffer.nbytes
        del buffer, mapped
        assert not list(directory.iterdir())


class TestRefusals:
    def saved(self):
        buffer = make_buffer(PrioritizedReplayBuffer)
        buffer.add(make_world(0).collect(10))
        return buffer.get_state(), buffer.get_arrays()

    @pytest.mark.parametrize(
        "other",
        [
            lambda: make_buffer(ReplayBuffer),
            lambda: make_buffer(SequenceReplayBuffer),
            lambda: make_buffer(PrioritizedReplayBuffer, 61),
            lambda: PrioritizedReplayBuffer(60, FRAMES, ACTIONS, 1, frame_stack=3),
            lambda: PrioritizedReplayBuffer(120, FRAMES, ACTIONS, 2),
            lambda: PrioritizedReplayBuffer(
                120, FRAMES, spaces.Box(-1, 1, (3,)), 2, frame_stack=3
            ),
            lambda: PrioritizedReplayBuffer(
                120, spaces.Box(0, 1, (3, 2, 3)), ACTIONS, 2, frame_stack=3
            ),
        ],
    )
    def test_states_of_other_buffers(self, other):
        other = other()
        before = other.get_state()
        with pytest.raises(ValueError, match="saved .* not fit"):
            other.set_state(*self.saved())
        assert other.get_state() == before and len(other) == 0

    @pytest.mark.parametrize(
        ("part", "key", "value"),
        [
            ("streams", "head", [1]),
            ("streams", "head", [1.5, 2.0]),
            ("streams", "open", [1, 1]),
            ("streams", "head", None),
            ("starts", "first", [-1, 0]),
            ("starts", "ready", [900, 0]),
            ("sampler", "largest_priority", "nan"),
            ("sampler", "largest_priority", -1.0),
        ],
    )
    def test_damaged_counters(self, part, key, value):
        state, arrays = self.saved()
        state[part] = {**state[part], key: value}
        with pytest.raises(ValueError, match="The saved state"):
            make_buffer(PrioritizedReplayBuffer).set_state(state, arrays)

    @pytest.mark.parametrize(
        "change",
        [
            lambda arrays: arrays.pop("rewards"),
            lambda arrays: arrays.update(more=np.zeros(3)),
            lambda arrays: arrays.update(rewards=arrays["rewards"][:, 1:]),
            lambda arrays: arrays.update(rewards=arrays["rewards"].astype("f8")),
            lambda arrays: arrays.update(priorities=arrays["priorities"] - 2.0),
            lambda arrays: arrays.update(priorities=arrays["priorities"] * np.nan),
            lambda arrays: arrays.update(priorities=arrays["priorities"] * 0.0),
        ],
    )
    def test_damaged_arrays(self, change):
        state, arrays = self.saved()
        arrays = dict(arrays)
        change(arrays)
        with pytest.raises(ValueError, match="saved array"):
            make_buffer(PrioritizedReplayBuffer).set_state(state, arrays)

    def test_damaged_sequence_counter(self):
        buffer = make_buffer(SequenceReplayBuffer)
        state = {**buffer.get_state(), "steps_since_start": "3"}
        with pytest.raises(ValueError, match="steps_since_start"):
            buffer.set_state(state, buffer.get_arrays())


def test_fields_of_a_rollout_are_not_kept():
    """The buffer copies: what was handed in may be written to afterwards."""
    world = make_world(0)
    first, second = world.collect(1), world.collect(10)
    buffer, other = make_buffer(ReplayBuffer), make_buffer(ReplayBuffer)
    for each in (buffer, other):
        each.add(first)
    optree.tree_map(lambda leaf: leaf.fill(0), first)
    for each in (buffer, other):
        each.add(second)
        if each is buffer:
            saved = optree.tree_map(np.copy, second)
            optree.tree_map(lambda leaf: leaf.fill(0), second)
            second = saved
    batches = [b.sample(99, rng=np.random.default_rng(0)) for b in (buffer, other)]
    assert_equal(*batches)
    optree.tree_map(lambda leaf: leaf.fill(0), batches[0])
    assert_equal(buffer.sample(99, rng=np.random.default_rng(0)), batches[1])
