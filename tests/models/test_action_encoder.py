"""What policies see of their previous actions."""

import keras
import numpy as np
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl.spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.models.action_encoder import ActionEncoder
from kerasrl.models.encoder import Encoder


def encode(space, actions):
    return keras.ops.convert_to_numpy(ActionEncoder(space)(actions))


@st.composite
def leaves(draw):
    kind = draw(st.sampled_from(["float", "integer", "choice", "choices", "flags"]))
    start = draw(st.integers(-9, 9))
    if kind == "flags":
        return spaces.MultiBinary(draw(st.integers(1, 3)))
    if kind == "choice":
        return spaces.Discrete(draw(st.integers(1, 4)), start=start)
    if kind == "choices":
        return spaces.MultiDiscrete([draw(st.integers(1, 4)), 2], start=[start, 1])
    # Of rank 3 too, which is no image.
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    if kind == "float":
        bounds = st.sampled_from([(-1, 1), (-2, np.inf), (-np.inf, np.inf), (3, 5)])
        return spaces.Box(*draw(bounds), shape, np.float32)
    return spaces.Box(start, start + 5, shape, np.int16)


@given(leaf=leaves(), other=leaves(), seed=st.integers(0, 99), nest=st.booleans())
@settings(max_examples=40, deadline=None)
def test_before_and_after_conversion(leaf, other, seed, nest):
    """Emitted actions look as those that environments got, given back by `predict`."""
    rng = np.random.default_rng(seed)

    def emit(space):
        shape = (4, *space.shape)
        if isinstance(space, spaces.Box):
            return rng.normal(size=shape, scale=9).astype(np.float32)
        count = {"Discrete": "n", "MultiDiscrete": "nvec"}.get(type(space).__name__)
        return rng.integers(2 if count is None else getattr(space, count), size=shape)

    space = spaces.Tuple([leaf, other]) if nest else leaf
    emitted = (emit(leaf), emit(other)) if nest else emit(leaf)
    converter = ActionConverter(space)
    back = converter.inverse(converter.batch(emitted))
    np.testing.assert_array_equal(encode(space, emitted), encode(space, back))
    # And choices look as they would in an observation.
    if not nest and not isinstance(space, spaces.Box):
        seen = Encoder(space)(converter.batch(emitted))
        np.testing.assert_array_equal(encode(space, emitted), seen)


def test_start_makes_no_difference():
    actions = np.array([0, 1, 2])
    expected = np.eye(3)
    for start in (0, 5, -7):
        found = encode(spaces.Discrete(3, start=start), actions)
        np.testing.assert_array_equal(found, expected)
    nested = spaces.Dict({"a": spaces.MultiDiscrete([2, 3], start=[4, 4])})
    found = encode(nested, {"a": np.array([[1, 2]])})
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 1]])


def test_shapes_and_dtypes_of_emitted_spaces():
    zeros = kerasrl.spaces.zeros
    emitted = kerasrl.spaces.emitted
    assert zeros(emitted(spaces.Box(0, 9, (2,), np.uint8)), 3).dtype == np.float32
    wide = spaces.MultiDiscrete([100, 2], dtype=np.int8, start=[-50, 0])
    assert emitted(wide).dtype == np.int8 and (emitted(wide).start == 0).all()
    space = spaces.Dict({"b": spaces.Discrete(2, start=3), "a": spaces.MultiBinary(2)})
    assert list(emitted(space)) == list(space)
    assert emitted(space)["b"] == spaces.Discrete(2)
