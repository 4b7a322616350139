import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import ACTIONS, EXTRAS, NUMBERS, make_world
from replay_reference import World, frame_observer, stream

from kerasrl.replay import SequenceReplayBuffer

STATE = {"lstm": np.zeros(2, np.float32)}


def make_buffer(capacity, num_envs=1, sequence_length=6, period=3, **kwargs):
    space = kwargs.pop("observation_space", NUMBERS)
    return SequenceReplayBuffer(
        capacity, space, ACTIONS, num_envs, sequence_length, period, STATE, **kwargs
    )


def expected_sequences(world, length, sequence_length):
    """All sequences that may be sampled, by the action of the first step."""
    expected = {}
    for env, history in enumerate(world.history):
        rows = stream(history)
        first_row = max(0, len(rows) - length)
        complete = len(rows)
        goes_on = not (world.after_cut[env] or world.after_loss[env])
        if history and not history[-1].ended and goes_on:
            complete -= 1  # The observation after the newest step is not a row yet.
        for begin in range(first_row, complete - sequence_length + 1):
            sequence = rows[begin : begin + sequence_length]
            steps = [row.step for row in sequence]
            if steps[0] is None or not steps[0].first_of_rollout:
                continue
            if any(step is not None and step.after_cut for step in steps[1:]):
                continue
            expected[steps[0].action] = describe(rows, begin, sequence_length, env)
    return expected


def describe(rows, begin, sequence_length, env):
    result = []
    for index in range(begin, begin + sequence_length):
        row, step = rows[index], rows[index].step
        before = rows[index - 1].step if index else None
        starts = step is not None and (step.episode_start or step.after_cut)
        if before is None or starts:
            previous = 0, 0.0
        else:
            previous = before.action, before.reward
        result.append(
            {
                "observations": row.observation,
                "actions": step.action if step else 0,
                "rewards": step.reward if step else 0.0,
                "terminated": step.terminated if step else False,
                "truncated": step.truncated if step else False,
                "valid": step is not None,
                "episode_starts": step is not None and step.episode_start,
                "previous_actions": previous[0],
                "previous_rewards": previous[1],
                "extras": step.action if step else 0,
                "infos": step.info if step else np.nan,
            }
        )
    number = rows[begin].step.rollout * 100.0 + env
    columns = {name: np.stack([row[name] for row in result]) for name in result[0]}
    return columns, np.array([number, number + 0.5])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_envs=st.integers(1, 3),
    sequence_length=st.integers(1, 9),
    period=st.integers(1, 7),
    slack=st.integers(0, 30),
    longest=st.integers(1, 12),
    fillers=st.booleans(),
    losses=st.sampled_from([0.0, 0.0, 0.2, 0.5]),
    exponent=st.sampled_from([None, 0.9]),
    more=st.booleans(),
    cuts=st.lists(
        st.sampled_from([False, False, False, True]), min_size=1, max_size=10
    ),
)
def test_agrees_with_a_slow_replay(
    seed,
    num_envs,
    sequence_length,
    period,
    slack,
    longest,
    fillers,
    losses,
    exponent,
    more,
    cuts,
):
    rng = np.random.default_rng(seed)
    world = make_world(
        rng, num_envs, lengths=(1, longest), fillers=fillers, losses=losses
    )
    length = sequence_length + 2 * period + 1 + slack
    buffer = make_buffer(
        length * num_envs,
        num_envs,
        sequence_length,
        period,
        priority_exponent=exponent,
        **({"extras_example": EXTRAS, "keep_infos": True} if more else {}),
    )
    for cut in cuts:
        buffer.add(world.collect(period))
        if cut:
            buffer.cut()
            world.reset()
    expected = expected_sequences(world, length, sequence_length)
    assert len(buffer) == len(expected)
    if not expected:
        return
    batch = buffer.sample(15 * len(expected) + 40, rng=rng)
    actions, first = np.unique(batch["actions"][:, 0], return_index=True)
    assert actions.tolist() == sorted(expected)
    columns = dict(batch)
    if more:
        columns["extras"] = batch["extras"]["number"]
        columns["infos"] = batch["infos"]["said"]
        halves = batch["extras"]["more"]["half"][..., 0]
        np.testing.assert_array_equal(halves, columns["extras"] / 2)
    for name in expected[actions[0]][0]:
        if name in ("extras", "infos") and not more:
            assert columns[name] == {}
            continue
        np.testing.assert_allclose(
            columns[name][first],
            np.stack([expected[action][0][name] for action in actions]),
            rtol=1e-6,
            err_msg=name,
        )
    np.testing.assert_array_equal(
        batch["state"]["lstm"][first], [expected[action][1] for action in actions]
    )


def test_shapes_and_dtypes():
    rng = np.random.default_rng(0)
    world = make_world(rng, 2)
    buffer = make_buffer(200, 2)
    for _ in range(5):
        buffer.add(world.collect(3))
    for shape, arguments in (((4,), (4,)), ((3, 4), (4, 3))):
        batch = buffer.sample(*arguments, rng=rng)
        assert batch["observations"].shape == (*shape, 6, 2)
        assert batch["previous_rewards"].shape == (*shape, 6)
        assert batch["state"]["lstm"].shape == (*shape, 2)
        assert batch["weights"].shape == batch["indices"].shape == shape
        for name in ("rewards", "previous_rewards", "weights"):
            assert batch[name].dtype == np.float32
        assert batch["actions"].dtype == batch["previous_actions"].dtype == np.int64


def test_rollouts_shorter_than_the_period_start_fewer_sequences():
    world = make_world(np.random.default_rng(0), 1, lengths=(90, 90))
    buffer = make_buffer(90, period=3)
    for _ in range(14):
        buffer.add(world.collect(1))
    # Starts at 0, 3, 6; the one at 9 waits for the fifteenth step.
    assert len(buffer) == 3
    batch = buffer.sample(60, rng=np.random.default_rng(0))
    assert set(batch["actions"][:, 0].tolist()) == {1, 4, 7}
    buffer.add(world.collect(1))
    assert len(buffer) == 4


def test_the_first_rollout_after_a_cut_starts_a_sequence():
    world = make_world(np.random.default_rng(0), 1, lengths=(90, 90))
    buffer = make_buffer(90, period=5)
    for length in (2, 6):
        buffer.add(world.collect(length))
        buffer.cut()
        world.reset()
    batch = buffer.sample(20, rng=np.random.default_rng(0))
    assert len(buffer) == 1 and (batch["actions"][:, 0] == 3).all()


def test_a_priority_changes_how_often_a_sequence_is_drawn():
    rng = np.random.default_rng(0)
    world = make_world(rng, 1, lengths=(90, 90))
    buffer = make_buffer(90, priority_exponent=1.0, uniform_fraction=0.0)
    for _ in range(4):
        buffer.add(world.collect(3))
    assert len(buffer) == 3
    batch = buffer.sample(90, rng=rng)
    starts, first = np.unique(batch["actions"][:, 0], return_index=True)
    buffer.update_priorities(batch["indices"][first], np.array([1.0, 2.0, 5.0]))
    batch = buffer.sample(10, 800, rng=rng)
    chances = (batch["actions"][..., 0, None] == starts).mean(axis=(0, 1))
    np.testing.assert_allclose(chances, [0.125, 0.25, 0.625], atol=0.01)


def test_frames_in_sequences():
    rng = np.random.default_rng(0)
    observers = [frame_observer(rng, 3, padding) for padding in ("reset", "zero")]
    world = World(rng, 2, observers, lengths=(1, 8))
    space = spaces.Box(0, 255, (3, 2, 3), np.uint8)
    buffer = make_buffer(120, 2, observation_space=space, frame_stack=3)
    full = make_buffer(120, 2, observation_space=space)
    for _ in range(30):
        rollout = world.collect(3)
        buffer.add(rollout)
        full.add(rollout)
    batch = buffer.sample(300, rng=rng)
    whole = full.sample(900, rng=rng)
    stored = dict(
        zip(whole["actions"][:, 0].tolist(), whole["observations"], strict=True)
    )
    for index, action in enumerate(batch["actions"][:, 0].tolist()):
        np.testing.assert_array_equal(batch["observations"][index], stored[action])


def test_rows_for_older_frames_are_not_valid():
    """A padding that is neither zeros nor repetition has rows of its own."""
    rng = np.random.default_rng(0)
    world = World(rng, 1, [frame_observer(rng, 3, "other")], lengths=(1, 8))
    space = spaces.Box(0, 255, (3, 2, 3), np.uint8)
    buffer = make_buffer(60, observation_space=space, frame_stack=3)
    for _ in range(60):
        buffer.add(world.collect(3))
    rows = stream(world.history[0], padding_rows=2)
    actions = [row.step.action if row.step else 0 for row in rows]
    batch = buffer.sample(200, rng=rng)
    assert not batch["valid"].all() and len(buffer) > 5
    for index in range(200):
        begin = actions.index(batch["actions"][index, 0])
        for time, row in enumerate(rows[begin : begin + 6]):
            assert batch["valid"][index, time] == (row.step is not None)
            assert batch["actions"][index, time] == actions[begin + time]
            if not row.is_padding:
                np.testing.assert_array_equal(
                    batch["observations"][index, time], row.observation
                )


class TestRefusals:
    def test_a_capacity_that_holds_no_sequence(self):
        with pytest.raises(ValueError, match="too small"):
            make_buffer(16, 2)

    @pytest.mark.parametrize("name", ["sequence_length", "period", "capacity"])
    def test_arguments(self, name):
        with pytest.raises(ValueError, match=f"`{name}`"):
            make_buffer(**{"capacity": 90, name: 0})

    @pytest.mark.parametrize(
        "state", [(), {"gru": np.zeros((1, 2))}, {"lstm": np.zeros((1, 3))}]
    )
    def test_other_states(self, state):
        rollout = make_world(np.random.default_rng(0), 1).collect(3)
        rollout.state = state
        with pytest.raises(ValueError, match="state_example"):
            make_buffer(90).add(rollout)

    def test_no_priorities_to_update(self):
        with pytest.raises(ValueError, match="no priorities"):
            make_buffer(90, priority_exponent=None).update_priorities(
                np.zeros(1, np.int64), np.ones(1)
            )
