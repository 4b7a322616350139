"""What is recorded is what was emitted, and what environments got follows from it."""

import gymnasium
import numpy as np
import optree
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl.spaces
from kerasrl.envs import clip_actions, make_envs
from kerasrl.envs.actions import ActionConverter
from kerasrl.replay import ReplayBuffer, SequenceReplayBuffer
from kerasrl.rollouts import Collector
from kerasrl.workers.fragments import fragment_example, read_fragment, write_fragment

LENGTH = 7
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


class Recording(gymnasium.Env):
    """Counts its steps and keeps the actions it gets; episodes of three steps."""

    def __init__(self, action_space):
        self.observation_space = spaces.Box(0, np.inf, (1,), np.float32)
        self.action_space = action_space
        self.received = []
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), (self.action_space, action)
        self.received.append(optree.tree_map(np.array, action))
        self.steps += 1
        return self._observation(), 0.0, False, self.steps % 3 == 0, {}

    def _observation(self):
        return np.array([self.steps], np.float32)


class Actor:
    """Emits what a generator draws, with a trap in every dtype."""

    initial_state = None

    def __init__(self, space, dtype, seed):
        self.space = space
        self.dtype = dtype
        self.rng = np.random.default_rng(seed)
        self.emitted = []

    def draw(self, generators, steps):
        return []

    def __call__(self, inputs, noise):
        size = len(inputs["previous_rewards"])
        actions = self._emit(self.space, size)
        self.emitted.append(optree.tree_map(np.array, actions))
        return {"actions": actions, "state": ()}

    def _emit(self, space, size):
        if isinstance(space, spaces.Dict):
            return {key: self._emit(part, size) for key, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._emit(part, size) for part in space)
        shape = (size, *space.shape)
        if isinstance(space, spaces.Box):
            scale = self.rng.choice([0.3, 3.0, 300.0, 1e20], size=shape)
            # As float64, most of them are no float32 numbers.
            return (self.rng.normal(size=shape) * scale).astype(self.dtype)
        if isinstance(space, spaces.Discrete):
            return self.rng.integers(space.n, size=shape).astype("int32")
        count = space.nvec if isinstance(space, spaces.MultiDiscrete) else 2
        return self.rng.integers(count, size=shape).astype("int32")


@st.composite
def leaves(draw):
    """A leaf space of actions."""
    kind = draw(st.sampled_from(["float", "integer", "choice", "choices", "flags"]))
    if kind == "flags":
        return spaces.MultiBinary(draw(st.integers(1, 3)))
    if kind in ("choice", "choices"):
        dtype = draw(st.sampled_from(["int8", "uint8", "int32", "int64"]))
        limits = np.iinfo(dtype)
        low = 0 if kind == "choices" else max(limits.min, -100)
        start = draw(st.integers(low, 100))
        size = draw(st.integers(1, min(250, limits.max - start + 1, limits.max)))
        if kind == "choice":
            return spaces.Discrete(size, start=start, dtype=dtype)
        return spaces.MultiDiscrete([size, 2], dtype=dtype, start=[start, 0])
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    if kind == "float":
        low, high = draw(
            st.sampled_from([(-1, 1), (-2, np.inf), (-np.inf, np.inf), (3, 5), (0, 0)])
        )
        return spaces.Box(low, high, shape, draw(st.sampled_from(["f2", "f4", "f8"])))
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    number = st.one_of(
        st.sampled_from([limits.min, limits.max]), st.integers(limits.min, limits.max)
    )
    low, high = sorted((draw(number), draw(number)))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def action_spaces(draw):
    """A leaf, or leaves in a Dict of a Tuple."""
    if draw(st.booleans()):
        return draw(leaves())
    inner = spaces.Tuple([draw(leaves()), draw(leaves())])
    return spaces.Dict({"b": draw(leaves()), "a": inner})


def assert_equal(found, expected):
    assert optree.tree_structure(found) == optree.tree_structure(expected)
    optree.tree_map(np.testing.assert_array_equal, found, expected)


def stacked(trees):
    return optree.tree_map(lambda *parts: np.stack(parts), *trees)


def converted(actions, space):
    """`clip_actions` of a tree `[T, B, ...]`."""
    return stacked(
        [clip_actions(optree.tree_map(lambda x: x[t], actions), space)  # noqa: B023
         for t in range(LENGTH)]
    )  # fmt: skip


@given(
    space=action_spaces(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
    path=st.sampled_from(["serial", "vector", "fragment"]),
)
@settings(max_examples=150, deadline=None)
def test_recorded_emitted_and_received(space, dtype, seed, path):
    actor = Actor(space, dtype, seed)
    if path == "vector":
        vector = SyncVectorEnv(
            [lambda: Recording(space)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
        )
        envs = make_envs(vector)
    else:
        envs = make_envs(lambda: Recording(space), num_envs=2)
    generators = [np.random.default_rng(0) for _ in range(2)]
    collector = Collector(envs, actor, LENGTH, generators, all_finals=True)
    collector.reset([0, 1])
    rollout = collector.collect()
    received = envs.foreach(lambda env: stacked(env.received))
    if path == "fragment":
        arrays = fragment_example(envs, 2, LENGTH, Actor(space, dtype, 0), {})
        shared = optree.tree_map(lambda x: np.zeros(x.shape, x.dtype), arrays)
        write_fragment(shared, rollout)
        rollout = read_fragment(shared)
    # Recorded is what was emitted, to the precision of the policy.
    emitted = stacked(actor.emitted)
    assert_equal(
        optree.tree_map(
            lambda x: x.astype("f4" if x.dtype == "f8" else x.dtype), emitted
        ),
        rollout.actions,
    )
    # Received is what a reader of the rollout computes.
    expected = converted(rollout.actions, space)
    for env in range(2):
        assert_equal(optree.tree_map(lambda x, b=env: x[:, b], expected), received[env])
    # The previous action is the recorded one, or zeros where an episode starts.
    for time in range(1, LENGTH):
        before = optree.tree_map(lambda x, t=time: x[t - 1], rollout.actions)
        if rollout.episode_starts[time, 0]:
            before = optree.tree_map(np.zeros_like, before)
        previous = optree.tree_map(lambda x, t=time: x[t], rollout.previous_actions)
        assert_equal(before, previous)
    # What comes back from the environment's numbers is converted to the same.
    converter = ActionConverter(space)
    flat = optree.tree_map(lambda x: x.reshape(-1, *x.shape[2:]), expected)
    if not _has_wide_integers(space):
        assert_equal(converter.batch(converter.inverse(flat)), flat)


def _has_wide_integers(space):
    """Whether there are Box actions that float32 cannot tell apart."""
    return any(
        isinstance(leaf, spaces.Box) and leaf.dtype.itemsize > 2 and leaf.dtype != "f4"
        for leaf in kerasrl.spaces.leaves(space)
    )


@given(space=action_spaces(), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_replayed(space, seed):
    """The critic sees the very numbers that the policy emitted."""
    envs = make_envs(lambda: Recording(space), num_envs=2)
    generators = [np.random.default_rng(0) for _ in range(2)]
    actor = Actor(space, "float32", seed)
    collector = Collector(envs, actor, LENGTH, generators, all_finals=True)
    collector.reset([0, 1])
    arguments = (60, envs.observation_space, space, 2)
    single = ReplayBuffer(*arguments)
    sequences = SequenceReplayBuffer(*arguments, sequence_length=4, period=LENGTH)
    for _ in range(2):
        rollout = collector.collect()
        single.add(rollout)
        sequences.add(rollout)
    emitted = stacked(actor.emitted)
    batch = single.sample(40, rng=np.random.default_rng(seed))
    for row in range(40):
        time = int(batch["observations"][row, 0])
        candidates = optree.tree_map(lambda x, t=time: x[t], emitted)
        found = optree.tree_map(lambda x, r=row: x[r], batch["actions"])
        assert any(
            optree.tree_all(
                optree.tree_map(
                    lambda a, b, e=env: (a == b[e]).all(), found, candidates
                )
            )
            for env in range(2)
        )
    batch = sequences.sample(10, rng=np.random.default_rng(seed))
    shifted = optree.tree_map(lambda x: x[:, :-1], batch["actions"])
    previous = optree.tree_map(lambda x: x[:, 1:], batch["previous_actions"])
    follows = ~batch["episode_starts"][:, 1:]
    assert_equal(
        optree.tree_map(lambda x: x[follows], shifted),
        optree.tree_map(lambda x: x[follows], previous),
    )


def test_buffers_take_what_older_ones_saved():
    """Actions of integer boxes were stored as integers."""
    box = spaces.Box(0, 255, (2,), np.uint8)
    envs = make_envs(lambda: Recording(box), num_envs=2)
    generators = [np.random.default_rng(0) for _ in range(2)]
    collector = Collector(envs, Actor(box, "f4", 0), LENGTH, generators, (), None, True)
    collector.reset([0, 1])
    buffer = ReplayBuffer(60, envs.observation_space, box, 2)
    buffer.add(collector.collect())
    state, arrays = buffer.get_state(), dict(buffer.get_arrays())
    arrays["actions"] = np.full_like(arrays["actions"], 7, np.uint8)
    other = ReplayBuffer(60, envs.observation_space, box, 2)
    other.set_state(state, arrays)
    batch = other.sample(5, rng=np.random.default_rng(0))
    assert (batch["actions"] == 7).all()


def test_actions_without_a_number_are_the_policys_fault():
    class Nan(Actor):
        def __call__(self, inputs, noise):
            outputs = super().__call__(inputs, noise)
            outputs["actions"][1] = np.nan
            return outputs

    space = spaces.Box(-1, 1, (1,))
    for action_space, error in ((space, FloatingPointError),):
        envs = make_envs(lambda s=action_space: Unchecked(s), num_envs=2)
        generators = [np.random.default_rng(0) for _ in range(2)]
        collector = Collector(envs, Nan(action_space, "f4", 0), LENGTH, generators)
        collector.reset([0, 1])
        with pytest.raises(error, match="policy chose.*step 0.*environment 1"):
            collector.collect()
    with pytest.raises(ValueError, match="NaN"):
        clip_actions(np.array([[np.nan]]), spaces.Box(0, 9, (1,), np.uint8))


class Unchecked(Recording):
    """Answers NaN with NaN, as most environments do."""

    def step(self, action):
        self.steps += 1
        return self._observation() + action[0], float(action[0]), False, False, {}
