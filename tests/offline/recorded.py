"""Spaces of every kind, and episodes of them."""

import numpy as np
from gymnasium import spaces as gs

from kerasrl import offline, spaces
from kerasrl.offline.episodes import tree_of
from kerasrl.offline.table import leaves_of

SPACES = {
    "box": (gs.Box(-1, 1, (3,)), gs.Box(-2, 2, (2,))),
    "doubles": (gs.Box(-1, 1, (2,), np.float64), gs.Box(-1, 1, (), np.float64)),
    "image": (gs.Box(0, 255, (4, 4, 3), np.uint8), gs.Discrete(3, start=-1)),
    "discrete": (gs.Discrete(5, start=2), gs.Discrete(4)),
    "multi": (gs.MultiDiscrete([3, 4]), gs.MultiDiscrete([2, 5], start=[1, 0])),
    "binary": (gs.MultiBinary(3), gs.MultiBinary((2, 2))),
    "integers": (gs.Box(-9, 9, (2,), np.int16), gs.Box(0, 9, (2,), np.int32)),
    "nested": (
        gs.Dict(
            {
                "image": gs.Box(0, 255, (2, 2), np.uint8),
                "pair": gs.Tuple([gs.Discrete(3), gs.Dict({"x": gs.Box(-1, 1, (2,))})]),
            }
        ),
        gs.Tuple([gs.Discrete(2, start=3), gs.Dict({"to": gs.Box(-1, 1, (2,))})]),
    ),
}


def sampled(space, count, seed):
    """A batch of a space in its own dtypes."""
    space.seed(seed)
    rows = [spaces.leaf_lister(space)(space.sample()) for _ in range(count)]
    leaves = [np.stack(leaf) for leaf in zip(*rows, strict=True)]
    return tree_of(space, leaves)


def make(kind="box", lengths=(3, 1, 5, 4), seed=0):
    """Episodes of some kind of spaces, that end in each way in turn."""
    observation_space, action_space = SPACES[kind]
    rng = np.random.default_rng(seed)
    episodes = []
    for number, length in enumerate(lengths):
        episodes.append(
            offline.Episode(
                sampled(observation_space, length + 1, seed + 2 * number),
                sampled(action_space, length, seed + 2 * number + 1),
                rng.normal(size=length),
                terminated=number % 3 == 0,
                truncated=number % 3 == 1,
                extras={
                    "log_probs": rng.normal(size=length).astype("float32"),
                    "more": {"x": rng.integers(9, size=(length, 2))},
                },
            )
        )
    return episodes


def dataset(kind="box", **arguments):
    """A data set in memory of such episodes."""
    return offline.from_episodes(make(kind, **arguments), *SPACES[kind])


def assert_equal(found, expected):
    """Asserts that two episodes are the same, bit for bit."""
    for name in ("observations", "actions", "extras"):
        of_found, of_expected = (
            leaves_of(as_tree(getattr(each, name))) for each in (found, expected)
        )
        assert len(of_found) == len(of_expected)
        for x, y in zip(of_found, of_expected, strict=True):
            assert x.dtype == y.dtype and x.shape == y.shape
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    assert found.rewards.dtype == np.float64
    assert found.terminated is expected.terminated
    assert found.truncated is expected.truncated


def as_tree(tree):
    """The tree with plain dicts, whose keys are sorted."""
    if isinstance(tree, dict):
        return {key: as_tree(tree[key]) for key in sorted(tree)}
    if isinstance(tree, tuple):
        return tuple(map(as_tree, tree))
    return tree
