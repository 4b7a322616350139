"""What is kept of a step besides the usual: previous inputs, extras, infos."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from replay_helpers import (
    ACTIONS,
    EXTRAS,
    KINDS,
    MORE,
    NUMBERS,
    make_world,
    one_env_rollout,
)
from replay_reference import n_step_transitions

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer, SequenceReplayBuffer


def make_buffer(kind=ReplayBuffer, capacity=60, **kwargs):
    return kind(capacity, NUMBERS, ACTIONS, 2, **{**MORE, **kwargs})


def by_action(buffer, name, size=400):
    """One entry for each action that is sampled."""
    batch = buffer.sample(size, rng=np.random.default_rng(0))
    actions, first = np.unique(batch["actions"], return_index=True)
    return dict(zip(actions.tolist(), batch[name][first].tolist(), strict=True))


@pytest.mark.parametrize("kind", [*KINDS, SequenceReplayBuffer])
def test_nothing_more_is_kept_unless_it_is_asked_for(kind):
    world = make_world(np.random.default_rng(0), 2)
    buffers = [
        kind(400, NUMBERS, ACTIONS, 2),
        kind(400, NUMBERS, ACTIONS, 2, extras_example={}, keep_infos=True),
    ]
    # What has no use takes no memory; infos do not before there are any.
    assert buffers[0].nbytes == buffers[1].nbytes
    rollout = dataclasses.replace(world.collect(5), state=())
    buffers[0].add(rollout)
    buffers[1].add(dataclasses.replace(rollout, infos={}, extras={}))
    left, right = (buffer.get_arrays() for buffer in buffers)
    assert left.keys() == right.keys()
    assert not {"previous_rewards", "extras.number"} & set(left)
    assert not buffers[0].keeps("extras") and not buffers[0].keeps("infos")


def test_a_stream_that_begins_in_the_middle_of_an_episode():
    """What was before the buffer, or before a cut, is what the policy saw, too."""
    world = make_world(np.random.default_rng(0), 2, lengths=(20, 20))
    world.collect(3)
    buffer = make_buffer()
    buffer.add(world.collect(2))
    world.collect(1)
    buffer.cut()
    buffer.add(world.collect(2))
    expected = {
        step.action: (step.previous_action, pytest.approx(step.previous_reward))
        for history in world.history
        for step in (history[3], history[4], history[6], history[7])
    }
    assert all(previous > 0 for previous, _ in expected.values())
    actions = by_action(buffer, "previous_actions")
    rewards = by_action(buffer, "previous_rewards")
    assert {action: (actions[action], rewards[action]) for action in actions} == (
        expected
    )


def test_rewards_that_a_callback_changed_are_not_what_the_policy_saw():
    world = make_world(np.random.default_rng(0), 2, lengths=(3, 6))
    buffer = make_buffer(n_step=2, gamma=0.5)
    for _ in range(3):
        rollout = world.collect(7)
        buffer.add(dataclasses.replace(rollout, rewards=rollout.rewards * 100))
    expected = {
        sample["actions"]: sample
        for history in world.history
        for sample in n_step_transitions(history, 2, 0.5)
    }
    for name in ("previous_rewards", "next_previous_rewards"):
        found = by_action(buffer, name)
        assert len(found) > 20
        for action, value in found.items():
            assert value == pytest.approx(expected[action][name])


@pytest.mark.parametrize("name", ["previous_actions", "previous_rewards"])
def test_only_what_is_read(name):
    buffer = make_buffer(previous_inputs=[name], extras_example=None)
    buffer.add(make_world(np.random.default_rng(0), 2).collect(5))
    batch = buffer.sample(3)
    found = {key for key in batch if "previous" in key}
    assert found == {name, f"next_{name}"}
    assert batch["extras"] == {}


def test_nested_actions():
    action_space = spaces.Dict(
        {"pair": spaces.Box(-1, 1, (2,)), "switch": spaces.MultiBinary(3)}
    )
    rollout = make_world(np.random.default_rng(0), 2, lengths=(9, 9)).collect(4)
    numbers = rollout.actions[..., None]

    def named(numbers):
        return {
            "pair": np.repeat(numbers, 2, -1).astype(np.float32),
            "switch": np.repeat(numbers % 2, 3, -1).astype(np.int8),
        }

    previous = rollout.previous_actions[..., None]
    following = {
        **rollout.next_inputs,
        "previous_actions": named(rollout.next_inputs["previous_actions"][..., None]),
    }
    buffer = ReplayBuffer(60, NUMBERS, action_space, 2, **MORE)
    buffer.add(
        dataclasses.replace(
            rollout,
            actions=named(numbers),
            previous_actions=named(previous),
            next_inputs=following,
        )
    )
    batch = buffer.sample(50, rng=np.random.default_rng(0))
    for leaf in ("pair", "switch"):
        np.testing.assert_array_equal(
            batch["next_previous_actions"][leaf], batch["actions"][leaf]
        )
        assert batch["previous_actions"][leaf].dtype == batch["actions"][leaf].dtype


class TestInfos:
    def rollout(self, first, **infos):
        rollout = one_env_rollout([1.0, 2.0], first=first)
        infos = {name: np.array(value) for name, value in infos.items()}
        rollout.infos = {
            name: value.reshape(2, 1, *value.shape[1:]) for name, value in infos.items()
        }
        return rollout

    def buffer(self, *rollouts):
        box = spaces.Box(-np.inf, np.inf, (1,))
        buffer = ReplayBuffer(40, box, spaces.Discrete(2), keep_infos=True)
        for number, infos in enumerate(rollouts):
            buffer.add(self.rollout(2 * number, **infos))
        return buffer

    def infos(self, buffer):
        batch = buffer.sample(300, rng=np.random.default_rng(0))
        _, first = np.unique(batch["observations"], return_index=True)
        return {name: leaf[first] for name, leaf in batch["infos"].items()}

    def test_steps_from_before_a_key_was_known_have_none(self):
        buffer = self.buffer({}, {"a": [1, 2]}, {"b": [True, False]}, {"a": [5.5, 6]})
        found = self.infos(buffer)
        nan = np.nan
        np.testing.assert_array_equal(found["a"], [nan, nan, 1, 2, nan, nan, 5.5, 6])
        np.testing.assert_array_equal(found["b"], [nan, nan, nan, nan, 1, 0, nan, nan])
        assert found["a"].dtype == found["b"].dtype == np.float32

    def test_the_shape_is_that_of_the_first_number(self):
        nan = [np.nan, np.nan]
        buffer = self.buffer({"a": nan}, {"a": [[1, 2], [3, 4]]}, {"a": nan})
        found = self.infos(buffer)["a"]
        assert found.shape == (6, 2)
        np.testing.assert_array_equal(found[2:4], [[1, 2], [3, 4]])
        assert np.isnan(found[[0, 1, 4, 5]]).all()

    def test_what_does_not_fit_is_none_after_one_warning(self):
        buffer = self.buffer({"a": [1, 2]})
        mixed = np.array(["text", 4], object)
        with pytest.warns(UserWarning, match=r"a='text'.*shape \(\)") as caught:
            buffer.add(self.rollout(2, a=mixed))
        buffer.add(self.rollout(4, a=[[1, 2], [3, 4]]))
        assert len(caught) == 1
        found = self.infos(buffer)["a"]
        np.testing.assert_array_equal(found, [1, 2, np.nan, 4, np.nan, np.nan])

    def test_texts_are_not_kept(self):
        texts = np.array(["text", None], object)
        assert self.infos(self.buffer({"a": texts}, {"a": texts})) == {}

    def test_a_rollout_that_is_refused_leaves_no_trace(self):
        buffer = self.buffer({})
        with pytest.raises(ValueError, match=r"Call cut\(\)"):
            buffer.add(self.rollout(7, a=[1, 2]))
        with pytest.raises(ValueError, match="infos 'a' do not fit"):
            rollout = self.rollout(2, a=[1, 2])
            rollout.infos["a"] = np.zeros(3)
            buffer.add(rollout)
        assert self.infos(buffer) == {}

    def test_a_key_may_have_any_name(self):
        names = ("a.b", "extras", "actions", "", "positions/x")
        buffer = self.buffer({name: [1, 2] for name in names})
        other = self.buffer()
        other.set_state(buffer.get_state(), buffer.get_arrays())
        assert set(self.infos(other)) == set(names)


class TestRefusals:
    def saved(self):
        buffer = make_buffer(PrioritizedReplayBuffer)
        buffer.add(make_world(np.random.default_rng(0), 2).collect(9))
        return buffer.get_state(), dict(buffer.get_arrays())

    @pytest.mark.parametrize(
        "other",
        [
            {"previous_inputs": []},
            {"previous_inputs": ["previous_rewards"]},
            {"extras_example": None},
            {"extras_example": {"number": np.int32(0)}},
            {"extras_example": {**EXTRAS, "number": np.float32(0)}},
            {"extras_example": {**EXTRAS, "number": np.zeros(3, np.int32)}},
            {"keep_infos": False},
        ],
    )
    def test_states_of_buffers_that_keep_other_things(self, other):
        buffer = make_buffer(PrioritizedReplayBuffer, **other)
        before = buffer.get_state()
        with pytest.raises(ValueError, match="saved array.* not fit"):
            buffer.set_state(*self.saved())
        assert buffer.get_state() == before and len(buffer) == 0

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("previous_actions", lambda array: array - 1),
            ("previous_actions", lambda array: array.astype(np.float64)),
            ("previous_rewards", lambda array: array * np.nan),
            ("previous_rewards", lambda array: array.astype(np.complex64)),
            ("extras.number", lambda array: array.astype(np.int64)),
            ("extras.more.half", lambda array: array[..., 0]),
            ("infos.said", lambda array: array.astype(np.float64)),
            ("infos.said", lambda array: array[:, 1:]),
            ("infos.said", lambda array: array[:1]),
        ],
    )
    def test_damaged_arrays(self, name, change):
        state, arrays = self.saved()
        arrays[name] = change(arrays[name])
        buffer = make_buffer(PrioritizedReplayBuffer)
        with pytest.raises(ValueError, match=f"saved array '{name}'"):
            buffer.set_state(state, arrays)
        assert len(buffer) == 0

    def test_what_environments_and_acting_say_may_be_infinite(self):
        state, arrays = self.saved()
        arrays["extras.more.half"] = arrays["extras.more.half"] - np.inf
        arrays["infos.said"] = arrays["infos.said"] + np.inf
        make_buffer(PrioritizedReplayBuffer).set_state(state, arrays)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda rollout: {"extras": {}}, "extras do not have the structure"),
            (
                lambda rollout: {"extras": {**rollout.extras, "more": {"half": 0}}},
                "extras.more.half do not fit `extras_example`",
            ),
            (
                lambda rollout: {
                    "next_inputs": {"observations": rollout.next_inputs["observations"]}
                },
                "keeps previous_actions. Received a rollout without",
            ),
        ],
    )
    def test_rollouts_that_lack_what_is_kept(self, change, match):
        rollout = make_world(np.random.default_rng(0), 2).collect(3)
        with pytest.raises(ValueError, match=match):
            make_buffer().add(dataclasses.replace(rollout, **change(rollout)))

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"previous_inputs": "previous_actions"}, "previous_inputs"),
            ({"previous_inputs": ["observations"]}, "previous_inputs"),
            ({"extras_example": [1]}, "extras_example"),
            ({"extras_example": {"text": "a"}}, "extras_example"),
            ({"extras_example": {"a.b": 0, "a": {"b": 0}}}, "Leave dots out"),
        ],
    )
    def test_arguments(self, arguments, match):
        with pytest.raises(ValueError, match=match):
            make_buffer(**arguments)
