"""Actions on their way from the policy to environments."""

import numpy as np
import pytest
from gymnasium import spaces

from kerasrl.envs import clip_actions
from kerasrl.envs.actions import ActionConverter


def both(space, actions):
    """The converted batch and rows, checked to be elements of the space."""
    converter = ActionConverter(space)
    rows = converter.rows(actions)
    assert all(space.contains(row) for row in rows)
    return converter.batch(actions), rows


def test_discrete_start():
    batch, rows = both(spaces.Discrete(3, start=5), np.array([0, 1, 2], np.int32))
    assert batch.tolist() == rows == [5, 6, 7]
    assert all(type(row) is np.int64 for row in rows)
    batch, rows = both(spaces.Discrete(2, start=-1), np.array([0, 1]))
    assert batch.tolist() == rows == [-1, 0]
    assert both(spaces.Discrete(10**6), np.array([999_999]))[1] == [999_999]


def test_box_is_clipped_at_finite_bounds_only():
    space = spaces.Box(
        np.array([-1.0, -np.inf, 0.0], np.float32),
        np.array([1.0, 2.0, np.inf], np.float32),
    )
    actions = np.array([[-5, -5, -5], [5, 5, 5], [0.5, 0.25, 0.75]], np.float32)
    batch, _ = both(space, actions)
    expected = [[-1, -5, 0], [1, 2, 5], [0.5, 0.25, 0.75]]
    np.testing.assert_array_equal(batch, expected)
    assert actions[0, 0] == -5.0, "the policy's own array must stay"


def test_box_dtypes():
    batch, rows = both(spaces.Box(-1, 1, (2,), np.float64), np.ones((3, 2), "float32"))
    assert batch.dtype == rows[0].dtype == np.float64
    batch, _ = both(
        spaces.Box(0, 255, (1,), np.uint8), np.array([[-3.0], [1.6], [999.0]])
    )
    assert batch.dtype == np.uint8 and batch.ravel().tolist() == [0, 2, 255]


def test_a_copy_even_where_nothing_is_clipped():
    actions = np.zeros((2, 1), np.float32)
    batch = ActionConverter(spaces.Box(-np.inf, np.inf, (1,))).batch(actions)
    assert not np.shares_memory(batch, actions)


def test_multi_spaces():
    space = spaces.MultiDiscrete([2, 3], start=[10, 20])
    batch, _ = both(space, np.array([[0, 0], [1, 2]]))
    assert batch.tolist() == [[10, 20], [11, 22]]
    batch, _ = both(spaces.MultiBinary(3), np.array([[0, 1, 1]]))
    assert batch.dtype == np.int8 and batch.tolist() == [[0, 1, 1]]


def test_nested():
    space = spaces.Dict(
        {
            "b": spaces.Tuple([spaces.Discrete(2, start=1), spaces.Box(-1, 1, (2,))]),
            "a": spaces.MultiBinary(2),
        }
    )
    actions = {
        "a": np.array([[0, 1], [1, 0]]),
        "b": (np.array([0, 1]), np.array([[3.0, 0.0], [0.0, -3.0]], np.float32)),
    }
    batch, rows = both(space, actions)
    assert batch["b"][0].tolist() == [1, 2]
    assert rows[1]["b"][0] == 2
    assert rows[1]["b"][1].tolist() == [0.0, -1.0]
    assert rows[0]["a"].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"keys \['a', 'b'\]"):
        ActionConverter(space).batch({"a": actions["a"]})
    with pytest.raises(ValueError, match=r"actions\['b'\].*tuple of 2"):
        ActionConverter(space).rows({**actions, "b": actions["b"][:1]})


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (spaces.Discrete(2), np.array([0, 2]), "range"),
        (spaces.Discrete(2), np.array([-1, 0]), "range"),
        (spaces.Discrete(2, start=3), np.array([3, 4]), "range"),
        (spaces.Discrete(2), np.array([0.0, 1.0]), "integers"),
        (spaces.Discrete(2), np.array([[0], [1]]), r"\[B\]"),
        (spaces.Box(-1, 1, (2,)), np.zeros((3, 1), np.float32), r"\[B, 2\]"),
        (spaces.Box(-1, 1, (2,)), np.zeros(2, np.float32), r"\[B, 2\]"),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 3]]), "range"),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), r"\[B, 2\]"),
        (spaces.MultiBinary(2), np.array([[0, 2]]), "range"),
    ],
)
def test_misfits_are_explained(space, actions, message):
    converter = ActionConverter(space)
    with pytest.raises(ValueError, match=message):
        converter.rows(actions)
    with pytest.raises(ValueError, match=message):
        converter.batch(actions)


def test_clip_actions():
    clipped = clip_actions(np.array([[5.0], [0.5]]), spaces.Box(-2.0, 2.0, (1,)))
    assert clipped.tolist() == [[2.0], [0.5]] and clipped.dtype == np.float32
