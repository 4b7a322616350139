import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrl.replay.sum_tree import SumTree


def make_tree(values):
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), np.array(values, float))
    return tree


@pytest.mark.parametrize(
    ("values", "found"),
    [
        # dqn_zoo, replay_test.py.
        (
            [3, 1, 2, 5],
            {0: 0, 2.9: 0, 3: 1, 3.9: 1, 4: 2, 5.9: 2, 6: 3, 10.9: 3},
        ),
        # openai/baselines, test_segment_tree.py.
        ([0, 0, 1, 3], {0: 2, 0.5: 2, 0.99: 2, 1.01: 3, 3: 3}),
        ([0.5, 1, 1, 3], {0: 0, 0.55: 1, 0.99: 1, 1.51: 2, 3: 3, 5.4: 3}),
    ],
)
def test_literal_vectors(values, found):
    tree = make_tree(values)
    assert tree.total == sum(values)
    np.testing.assert_array_equal(
        tree.find(np.array(list(found), float)), list(found.values())
    )


def test_stratified_points_of_equal_leaves_are_the_identity():
    # dopamine, sum_tree_test.py: 32 equal leaves.
    tree = make_tree([1.0] * 32)
    np.testing.assert_array_equal(tree.find(np.arange(32) + 0.5), np.arange(32))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 70),
    empty=st.floats(0.0, 1.0),
    scale=st.integers(0, 40),
)
def test_finds_what_the_running_sum_says(seed, size, empty, scale):
    rng = np.random.default_rng(seed)
    tree = SumTree(size)
    values = np.zeros(size)
    for _ in range(4):
        indices = rng.integers(size, size=rng.integers(0, 2 * size))
        new = 10.0 ** rng.uniform(-scale, 0, indices.size)
        new[rng.random(indices.size) < empty] = 0.0
        tree.set(indices, new)
        for index, value in zip(indices, new, strict=True):  # The last one counts.
            values[index] = value
    np.testing.assert_array_equal(tree.values, values)
    assert tree.total == pytest.approx(values.sum(), rel=1e-12)
    if not values.any():
        return
    ends = np.cumsum(values)
    edge = np.nextafter(tree.total, 0.0)
    points = np.concatenate([rng.random(50) * tree.total, [0.0, edge, tree.total]])
    found = tree.find(points)
    assert (values[found] > 0.0).all()
    # Up to rounding of the running sum.
    slack = 1e-12 * ends[-1]
    assert (points <= ends[found] + slack).all()
    assert (points >= ends[found] - values[found] - slack).all()


def test_sums_do_not_drift():
    rng = np.random.default_rng(0)
    tree = SumTree(64)
    for _ in range(3000):
        indices = rng.integers(64, size=4)
        tree.set(indices, 10.0 ** rng.uniform(-8, 8, 4))
        tree.total  # noqa: B018  (computes the parents)
    assert tree.total == make_tree(tree.values).total
    tree.set(np.arange(64), 0.0)
    assert tree.total == 0.0


def test_late_and_early_parents_agree():
    rng = np.random.default_rng(0)
    late, early = SumTree(1000), SumTree(1000)
    for _ in range(1500):
        indices, values = rng.integers(1000, size=3), rng.random(3)
        late.set(indices, values)
        early.set(indices, values)
        early.total  # noqa: B018
    assert late.total == early.total
    points = rng.random(500) * late.total
    np.testing.assert_array_equal(late.find(points), early.find(points))
