"""Frames stored once give back the stacks that the environment returned."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import ACTIONS, KINDS, MORE, assert_agrees, one_env_rollout
from replay_reference import (
    World,
    frame_observer,
    n_step_transitions,
    number_observer,
    surviving_steps,
)

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer


def frame_space(num_frames, axis=0, shape=(2, 3)):
    shape = (num_frames, *shape) if axis == 0 else (*shape, num_frames)
    return spaces.Box(0, 255, shape, np.uint8)


def check_all_samples(buffer, world, length, n_step, margin, padding_rows, rng):
    """Every transition of the reference, and nothing else, in full."""
    expected = {}
    for history in world.history:
        steps = surviving_steps(history, length, margin, padding_rows)
        alive = {step.action for step in steps}
        for sample in n_step_transitions(history, n_step, 0.9):
            if sample["actions"] in alive:
                expected[sample["actions"]] = sample
    assert len(buffer) == len(expected)
    if not expected:
        return
    batch = buffer.sample(30 * len(expected) + 50, rng=rng)
    actions, first = np.unique(batch["actions"], return_index=True)
    assert actions.tolist() == sorted(expected)
    assert_agrees(batch, first, expected)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_envs=st.integers(1, 3),
    num_frames=st.integers(1, 5),
    n_step=st.integers(1, 4),
    padding=st.sampled_from(["reset", "zero", "other"]),
    axis=st.sampled_from([0, -1]),
    slack=st.integers(0, 40),
    longest=st.integers(1, 12),
    fillers=st.booleans(),
    losses=st.sampled_from([0.0, 0.0, 0.2, 0.5]),
    kind=st.sampled_from(KINDS),
    more=st.sampled_from([{}, MORE]),
    chunks=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([False, False, False, True])),
        min_size=1,
        max_size=8,
    ),
)
def test_frame_replay_is_full_replay(
    seed,
    num_envs,
    num_frames,
    n_step,
    padding,
    axis,
    slack,
    longest,
    fillers,
    losses,
    kind,
    more,
    chunks,
):
    rng = np.random.default_rng(seed)
    observers = [
        frame_observer(rng, num_frames, padding, axis) for _ in range(num_envs)
    ]
    world = World(rng, num_envs, observers, (1, longest), fillers, losses)
    margin = num_frames - 1
    length = 2 * margin + 3 + n_step + slack
    buffer = kind(
        length * num_envs,
        frame_space(num_frames, axis),
        ACTIONS,
        num_envs,
        n_step=n_step,
        gamma=0.9,
        frame_stack=num_frames,
        frame_axis=axis,
        **more,
    )
    for steps, cut in chunks:
        buffer.add(world.collect(steps))
        if cut:
            buffer.cut()
            world.reset()
    padding_rows = margin if padding == "other" else 0
    check_all_samples(buffer, world, length, n_step, margin, padding_rows, rng)


def test_a_stream_that_begins_in_the_middle_of_an_episode():
    rng = np.random.default_rng(0)
    world = World(rng, 2, [frame_observer(rng, 4, "reset") for _ in range(2)], (9, 9))
    buffer = ReplayBuffer(90, frame_space(4), ACTIONS, 2, gamma=0.9, frame_stack=4)
    world.collect(5)
    for history in world.history:
        history.clear()
    buffer.add(world.collect(9))
    check_all_samples(buffer, world, 45, 1, 3, 0, rng)


def test_leaves_of_a_dict_with_stacks_of_their_own():
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        {
            "camera": spaces.Dict({"left": frame_space(4), "right": frame_space(2)}),
            "number": spaces.Box(-np.inf, np.inf, (2,)),
        }
    )

    def observer(env, padding):
        left = frame_observer(rng, 4, padding)
        right = frame_observer(rng, 2, padding)
        number = number_observer(env)
        return lambda first: {
            "camera": {"left": left(first), "right": right(first)},
            "number": number(first),
        }

    observers = [observer(*pair) for pair in enumerate(["reset", "zero", "other"])]
    world = World(rng, 3, observers, lengths=(1, 9))
    buffer = PrioritizedReplayBuffer(
        300,
        space,
        ACTIONS,
        3,
        n_step=2,
        frame_stack={"camera": {"left": 4, "right": 2}},
    )
    for _ in range(25):
        buffer.add(world.collect(6))
    batch = buffer.sample(500, rng=rng)
    steps = {step.action: step for history in world.history for step in history}
    for index, action in enumerate(batch["actions"].tolist()):
        stored, expected = batch["observations"], steps[action].observation
        for side in ("left", "right"):
            np.testing.assert_array_equal(
                stored["camera"][side][index], expected["camera"][side]
            )
        np.testing.assert_array_equal(stored["number"][index], expected["number"])


def test_stacks_of_gymnasium():
    """Both paddings of `FrameStackObservation`, stepped by hand."""

    class Counter(gymnasium.Env):
        observation_space = spaces.Box(0, 255, (2,), np.uint8)
        action_space = spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            self.time = 7
            return np.full(2, self.time, np.uint8), {}

        def step(self, action):
            self.time += 1
            ended = self.time % 5 == 0
            return np.full(2, self.time, np.uint8), 1.0, ended, False, {}

    for padding in ("reset", "zero"):
        env = FrameStackObservation(Counter(), 3, padding_type=padding)
        observation, seen, first = env.reset()[0], [], True
        rows = {"observations": [], "terminated": [], "episode_starts": []}
        final = {"time": [], "env": [], "observations": []}
        for time in range(12):
            rows["observations"].append(np.array(observation))
            rows["episode_starts"].append(first)
            observation, _, first, _, _ = env.step(0)
            seen.append((rows["observations"][-1], np.array(observation)))
            rows["terminated"].append(first)
            if first:
                final["time"].append(time)
                final["env"].append(0)
                final["observations"].append(np.array(observation))
                observation = env.reset()[0]
        rollout = one_env_rollout(range(12))
        for name, column in rows.items():
            setattr(rollout, name, np.stack(column)[:, None])
        rollout.final = {key: np.array(value) for key, value in final.items()}
        rollout.next_inputs = {"observations": np.array(observation)[None]}
        buffer = ReplayBuffer(
            50, env.observation_space, env.action_space, frame_stack=3
        )
        buffer.add(rollout)
        batch = buffer.sample(300, rng=np.random.default_rng(0))
        assert set(batch["rewards"].tolist()) == set(range(12))
        for index, time in enumerate(batch["rewards"].astype(int)):
            np.testing.assert_array_equal(batch["observations"][index], seen[time][0])
            np.testing.assert_array_equal(
                batch["next_observations"][index], seen[time][1]
            )


def test_observations_that_are_no_moving_stacks_are_refused():
    rng = np.random.default_rng(0)

    def make(steps, change):
        world = World(rng, 2, [frame_observer(rng, 3, "reset") for _ in range(2)])
        world.left = [4, 90]
        rollout = world.collect(steps)
        change(rollout)
        buffer = ReplayBuffer(90, frame_space(3), ACTIONS, 2, frame_stack=3)
        buffer.add(rollout)

    make(6, lambda rollout: None)

    def spoil(array):
        array += 1

    for change, where in (
        (lambda r: spoil(r.observations[2, 1, 0]), "after step 2"),
        (lambda r: spoil(r.final["observations"][0, 1]), "after step 4"),
        (lambda r: spoil(r.next_inputs["observations"][1, 1]), "after step 6"),
    ):
        with pytest.raises(ValueError, match=f"moved on by one frame.*{where}"):
            make(6, change)


@pytest.mark.parametrize(
    ("frame_stack", "match"),
    [
        (3, "along axis 0"),
        (0, "positive integer"),
        (2.0, "positive integer"),
        ({"camera": 5}, "along axis 0"),
        ({"radar": 4}, "names leaves"),
        ({"camera": {"left": 4}}, "names leaves"),
    ],
)
def test_stacks_that_the_observations_do_not_have_are_refused(frame_stack, match):
    space = spaces.Dict({"camera": frame_space(4), "number": spaces.Discrete(3)})
    with pytest.raises(ValueError, match=match):
        ReplayBuffer(100, space, ACTIONS, frame_stack=frame_stack)


def test_a_million_frames_take_little_more_than_their_bytes():
    """Scaled down: every array of the buffer against the frames that are unique."""
    num_frames, num_rows, shape = 4, 1000, (84, 84)
    rng = np.random.default_rng(0)
    observers = [
        frame_observer(rng, num_frames, "reset", shape=shape) for _ in range(2)
    ]
    world = World(rng, 2, observers, lengths=(5, 30))
    buffer = PrioritizedReplayBuffer(
        num_rows,
        frame_space(num_frames, shape=shape),
        spaces.Discrete(4),
        2,
        n_step=3,
        frame_stack=num_frames,
    )
    for _ in range(12):
        buffer.add(world.collect(50))
    # What may be seen: the stacks of all samples and of what follows them.
    frames = set()
    for _ in range(60):
        batch = buffer.sample(128, rng=rng)
        for name in ("observations", "next_observations"):
            for stack in batch[name]:
                frames.update(frame.tobytes() for frame in stack)
    unique_bytes = len(frames) * 84 * 84
    assert unique_bytes > 0.98 * num_rows * 84 * 84
    assert buffer.nbytes <= 1.05 * unique_bytes
    arrays = buffer.get_arrays().values()
    assert buffer.nbytes >= sum(array.nbytes for array in arrays)
