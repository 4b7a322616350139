"""Spaces come back from plain data as they were."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kerasrl.spaces import (
    check_space,
    named_leaves,
    samples,
    space_from_config,
    space_to_config,
)

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@st.composite
def boxes(draw):
    dtype = np.dtype(
        draw(st.sampled_from(("float16", "float32", "float64", *INTEGERS)))
    )
    shape = draw(SHAPES)
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max) / 4
        numbers = st.floats(-largest, largest, width=8 * dtype.itemsize)
    else:
        limits = np.iinfo(dtype)
        numbers = st.integers(int(limits.min), int(limits.max))
    fill = st.nothing() if draw(st.booleans()) else None
    low, high = (
        draw(npst.arrays(dtype, shape, elements=numbers, fill=fill)) for _ in "01"
    )
    low, high = np.minimum(low, high), np.maximum(low, high)
    if dtype.kind == "f":  # Bounds on one side, on both or on none.
        low = np.where(draw(npst.arrays(bool, shape)), -np.inf, low).astype(dtype)
        high = np.where(draw(npst.arrays(bool, shape)), np.inf, high).astype(dtype)
    return spaces.Box(low, high, shape, dtype.type)


@st.composite
def discretes(draw):
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    limits = np.iinfo(dtype)
    start = draw(st.integers(int(limits.min), int(limits.max) - 1))
    most = min(int(limits.max), int(limits.max) - start)
    return spaces.Discrete(
        draw(st.integers(1, max(1, most))), start=start, dtype=dtype.type
    )


@st.composite
def multi_discretes(draw):
    dtype = np.dtype(draw(st.sampled_from(("int8", "int32", "int64"))))
    shape = draw(npst.array_shapes(max_dims=2, max_side=3))
    counts = draw(npst.arrays(dtype, shape, elements=st.integers(1, 9)))
    start = draw(npst.arrays(dtype, shape, elements=st.integers(-9, 9)))
    return spaces.MultiDiscrete(counts, dtype=dtype.type, start=start)


def multi_binaries():
    sizes = st.integers(1, 4)
    return st.builds(
        spaces.MultiBinary, st.one_of(sizes, st.lists(sizes, min_size=1, max_size=3))
    )


def nested(inner):
    keys = st.text(st.characters(codec="utf-8"), max_size=3)
    pairs = st.lists(
        st.tuples(keys, inner), min_size=1, max_size=3, unique_by=lambda p: p[0]
    )
    return st.one_of(
        st.builds(spaces.Dict, pairs),
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
    )


SPACES = st.recursive(
    st.one_of(boxes(), discretes(), multi_discretes(), multi_binaries()),
    nested,
    max_leaves=4,
)


def assert_same(left, right):
    """Equal, and in what gymnasium's `==` does not look at."""
    assert left == right and right == left and type(left) is type(right)
    assert left.dtype == right.dtype and left.shape == right.shape
    if isinstance(left, spaces.Dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, spaces.Tuple):
        for pair in zip(left, right, strict=True):
            assert_same(*pair)
    elif isinstance(left, spaces.Box):
        np.testing.assert_array_equal(left.low, right.low)
        np.testing.assert_array_equal(left.high, right.high)
    elif isinstance(left, spaces.MultiDiscrete):
        np.testing.assert_array_equal(left.start, right.start)


@settings(max_examples=300, deadline=None)
@given(space=SPACES)
def test_a_space_comes_back_equal(space):
    config = json.loads(json.dumps(space_to_config(space)))
    copy = space_from_config(config)
    assert_same(space, copy)
    assert space_to_config(copy) == space_to_config(space)


def test_descriptions_written_before_dtypes_were():
    assert space_from_config(
        {"type": "Discrete", "n": 2, "start": 1}
    ) == spaces.Discrete(2, start=1)
    assert space_from_config(
        {"type": "MultiBinary", "shape": [3]}
    ) == spaces.MultiBinary(3)


@pytest.mark.parametrize(
    "config",
    [
        {"type": "Box", "low": 0, "high": 1, "shape": [10**6, 10**6], "dtype": "int8"},
        {"type": "MultiBinary", "shape": [10**12]},
        {
            "type": "Tuple",
            "spaces": [
                {"type": "Box", "low": 0, "high": 1, "shape": [10**6], "dtype": "int8"}
            ]
            * 9,
        },
        {"type": "Box", "low": 0, "high": 1, "shape": [-1], "dtype": "int8"},
        {"type": "Box", "low": 0, "high": 1e308, "shape": [1], "dtype": "float32"},
        {"type": "Box", "low": 0, "high": 1.5, "shape": [1], "dtype": "int8"},
        {"type": "Text"},
    ],
)
def test_descriptions_of_what_nobody_observes(config):
    with pytest.raises(ValueError, match="Received"):
        space_from_config(config)


def test_samples_of_the_last_choices_that_a_dtype_holds():
    generator = np.random.default_rng(0)
    for space in (
        spaces.Discrete(28, start=100, dtype=np.int8),
        spaces.MultiDiscrete([28, 3], start=[100, 0], dtype=np.int8),
    ):
        assert all(map(space.contains, samples(space, 50, generator)))


def test_check_space():
    check_space(spaces.Dict({"x": spaces.Tuple([spaces.Box(0, 1)])}))
    with pytest.raises(ValueError, match="no arrays"):
        check_space(spaces.Dict({}))
    with pytest.raises(ValueError, match=r"observation_space\[1\]\['g'\]"):
        graph = spaces.Graph(spaces.Box(0, 1), None)
        check_space(spaces.Tuple([spaces.Discrete(2), spaces.Dict({"g": graph})]))
    names = [name for name, _ in named_leaves(spaces.Tuple([spaces.Discrete(2)] * 2))]
    assert names == ["observation_space[0]", "observation_space[1]"]


@pytest.mark.parametrize("role", ["observation", "action"])
def test_keys_that_do_not_sort_together(role):
    inner = spaces.Dict([("a", spaces.Discrete(2)), (1, spaces.Discrete(3))])
    space = spaces.Tuple([spaces.Discrete(2), inner])
    with pytest.raises(ValueError, match=r"_space\[1\]`.*'a', 1.*do not sort together"):
        check_space(space, role)
    check_space(spaces.Dict([(2, spaces.Discrete(2)), (1, spaces.Discrete(3))]))
