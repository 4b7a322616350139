"""What becomes of observations before the trunk."""

import keras
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl
from kerasrl.models import (
    ActorCritic,
    Encoder,
    MixedTrunk,
    QNetwork,
    SoftActorCritic,
)
from kerasrl.models.initializers import make_initializer


def test_stacks_of_grey_frames_get_their_channels_last():
    frames = np.random.default_rng(0).integers(0, 255, (5, 2, 12, 10), dtype=np.uint8)
    encoder = Encoder(spaces.Box(0, 255, (2, 12, 10), np.uint8))
    moved = np.moveaxis(frames, 1, -1).astype(np.float32) / 255
    np.testing.assert_array_equal(encoder(frames), moved)
    policy = ActorCritic(filters=[(3, 3, 2)], hidden_units=(8,))
    policy.setup(spaces.Box(0, 255, (2, 12, 10), np.uint8), spaces.Discrete(2))
    policy(policy.example_inputs(2))
    assert policy.weights[0].shape == (3, 3, 2, 3)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        *[((84, 84, 4), 4), ((4, 84, 84), 4), ((3, 210, 160), 3), ((210, 160, 3), 3)],
        *[((8, 8, 3), 3), ((3, 8, 8), 3), ((4, 8, 8), 4), ((12, 8, 8), 12)],
        *[((10, 10, 7), 7), ((8, 8, 111), 111), ((6, 7, 2), 2), ((12, 10, 2), 2)],
        *[((8, 8, 8), 8), ((1, 8, 8), 1), ((8, 8, 1), 1), ((12, 10, 11), 11)],
    ],
)
def test_channels_are_the_axis_that_differs_or_is_much_smaller(shape, channels):
    images = np.zeros((1, *shape), np.uint8)
    encoded = Encoder(spaces.Box(0, 255, shape, np.uint8))(images)
    assert encoded.shape[-1] == channels


@pytest.mark.parametrize("shape", [(5, 9, 26), (6, 7, 8), (2, 3, 4), (3, 6, 7)])
def test_images_that_could_be_either_are_read_with_a_warning(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    with pytest.warns(UserWarning, match=f"height {shape[0]}, width {shape[1]}"):
        encoded = Encoder(space)(np.zeros((1, *shape), np.uint8))
    assert encoded.shape[1:] == shape


@st.composite
def boxes(draw):
    """A `Box` of any dtype and rank whose bounds may differ from entry to entry."""
    dtype = draw(st.sampled_from("uint8 int8 int16 uint16 int32 int64 float32".split()))
    shape = draw(st.sampled_from([(), (3,), (2, 3), (3, 3, 2)]))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    limits = (-500, 501) if dtype == "float32" else (
        max(-500, np.iinfo(dtype).min), min(500, np.iinfo(dtype).max) + 1
    )  # fmt: skip
    size = shape if draw(st.booleans()) else ()
    bounds = np.sort(generator.integers(*limits, (2, *size)), axis=0)
    low, high = (np.broadcast_to(b, shape).astype(dtype) for b in bounds)
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


nested = st.recursive(
    boxes(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(spaces.Tuple),
        st.tuples(inner, inner).map(lambda x: spaces.Dict(b=x[0], a=x[1])),
    ),
    max_leaves=4,
)


def expected(box, values):
    """By the definition, for rows `[N, ...]`."""
    low, high = box.low.astype(float), box.high.astype(float)
    values = values.astype(float)
    if box.dtype != np.float32:
        nearest = np.where(low > 0, low, np.where(high < 0, high, 0.0))
        greatest = np.maximum(high - nearest, nearest - low)
        values = (values - nearest) / np.where(greatest == 0, 1.0, greatest)
        assert (np.abs(values) <= 1).all()
    return values


@given(nested, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_leaves_are_scaled_by_their_bounds_whatever_surrounds_them(space, seed):
    generator = np.random.default_rng(seed)
    rows = kerasrl.spaces.samples(space, 4, generator)
    boxes = kerasrl.spaces.leaves(space)
    leaves = [
        expected(box, leaf)
        for box, leaf in zip(boxes, keras.tree.flatten(rows), strict=True)
    ]
    flat = np.concatenate([leaf.reshape(4, -1) for leaf in leaves], -1)
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        flat = leaves[0]
    np.testing.assert_allclose(Encoder(space)(rows), flat, rtol=1e-5, atol=1e-6)
    apart = Encoder(space, split_images=True)(rows)
    images = [leaf for box, leaf in zip(boxes, leaves, strict=True) if leaf.ndim == 4]
    if images:
        parts = [apart] if isinstance(space, spaces.Box) else list(apart)
        for found, image in zip(parts, images, strict=False):
            np.testing.assert_allclose(found, image, rtol=1e-5, atol=1e-6)
        assert len(parts) - len(images) == any(leaf.ndim < 4 for leaf in leaves)


@pytest.mark.parametrize("shape", [(3,), (6, 5), (6, 6, 3)])
@pytest.mark.parametrize("wrap", [False, True])
def test_bytes_are_divided_by_255_exactly(shape, wrap):
    box = spaces.Box(0, 255, shape, np.uint8)
    values = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    space, rows = (spaces.Dict(a=box), {"a": values}) if wrap else (box, values)
    found = np.reshape(Encoder(space)(rows), -1)
    np.testing.assert_array_equal(found, values.reshape(-1).astype(np.float32) / 255)


def test_integers_without_bounds_to_speak_of_stay():
    for dtype in (np.int32, np.int64):
        bounds = np.iinfo(dtype)
        box = spaces.Box(bounds.min, bounds.max, (2,), dtype)
        np.testing.assert_array_equal(
            Encoder(box)(np.array([[5, -7]], dtype)), [[5, -7]]
        )


IMAGE = spaces.Box(0, 255, (12, 12, 3), np.uint8)
NESTED = {
    "dict": (spaces.Dict(image=IMAGE), 0),
    "beside": (spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=IMAGE), 2),
    "tuple": (spaces.Tuple([spaces.Discrete(3), IMAGE, spaces.Dict(c=IMAGE)]), 3),
}


@pytest.mark.parametrize("name", NESTED)
def test_images_inside_other_spaces_are_convolved_as_alone(name):
    space, width = NESTED[name]
    settings = {"filters": [(4, 3, 2)], "hidden_units": (8,), "seed": 0}
    alone, policy = ActorCritic(**settings), ActorCritic(**settings)
    alone.build_for(IMAGE, spaces.Discrete(2))
    policy.build_for(space, spaces.Discrete(2))
    kernels = [w.shape for w in policy.weights if len(w.shape) == 4]
    count = sum(box == IMAGE for box in kerasrl.spaces.leaves(space))
    assert kernels == [(3, 3, 3, 4)] * count
    assert policy.branch_names == alone.branch_names == ("shared",)
    (dense,) = [w for w in policy.weights if len(w.shape) == 2 and w.shape[1] == 8]
    assert dense.shape == (5 * 5 * 4 * count + width, 8)
    again = ActorCritic.from_config(policy.get_config())
    again.build_for(space, spaces.Discrete(2))
    rows = kerasrl.spaces.samples(space, 3, np.random.default_rng(0))
    again.set_weights(policy.get_weights())
    inputs = {**policy.example_inputs(3), "observations": rows}
    np.testing.assert_array_equal(again(inputs)["values"], policy(inputs)["values"])


@pytest.mark.parametrize("make", [QNetwork, SoftActorCritic])
def test_every_default_network_takes_images_beside_vectors(make):
    policy = make(filters=[(4, 3, 2)], hidden_units=(8,))
    policy.build_for(NESTED["beside"][0], spaces.Discrete(2))
    assert any(w.shape == (3, 3, 3, 4) for w in policy.weights)
    trunk = MixedTrunk([(4, 3, 2)], (8,))
    given = ActorCritic(trunk=trunk)
    given.build_for(NESTED["beside"][0], spaces.Discrete(2))
    assert any(w.shape == (3, 3, 3, 4) for w in given.weights)


def test_nothing_to_normalize_is_refused():
    space = spaces.Box(0, 255, (6, 5), np.uint8)
    with pytest.raises(ValueError, match="no floating-point part"):
        Encoder(space, normalize=True)


def test_initializers_without_a_seed_get_one():
    unseeded = keras.initializers.GlorotUniform()
    first, second = (make_initializer(unseeded, 1.0, 3)((4, 4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, make_initializer(unseeded, 1.0, 4)((4, 4)))
    first, second = (make_initializer(unseeded, 1.0)((4, 4)) for _ in range(2))
    assert not np.array_equal(first, second)

    class Partial(keras.initializers.Initializer):
        def __init__(self, scale, seed=None):
            self.scale, self.seed = scale, seed

        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, self.scale, dtype)

        def get_config(self):
            return {"seed": None}

    partial = Partial(3.0)
    assert make_initializer(partial, 1.0, 3) is partial
    for with_a_will in (keras.initializers.GlorotUniform(5), keras.initializers.Ones()):
        assert make_initializer(with_a_will, 1.0, 3) is with_a_will


def test_trunks_of_an_initializer_of_keras_differ_and_follow_the_seed():
    def weights(seed):
        initializer = keras.initializers.GlorotUniform()
        policy = ActorCritic(kernel_initializer=initializer, seed=seed)
        policy.setup(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
        policy(policy.example_inputs(1))
        return [trunk.get_weights()[0] for trunk in policy.trunks.values()]

    (policy, value), again = weights(3), weights(3)
    assert not np.array_equal(policy, value)
    np.testing.assert_array_equal([policy, value], again)
    assert not np.array_equal(policy, weights(4)[0])


BYTES = spaces.Box(0, 255, (2,), np.uint8)


@pytest.mark.parametrize(
    ("space", "differs"),
    [
        (BYTES, True),
        (spaces.Dict(a=spaces.Box(0, 2, (3, 3), np.int8), b=spaces.Discrete(2)), True),
        (spaces.Box(0, 1, (3, 8, 8)), True),
        (spaces.Box(0, 100, (8, 8, 2), np.uint8), True),
        (spaces.Box(-(2**30), 2**30, (8, 8, 2), np.int32), True),
        (spaces.Box(0, 255, (8, 8, 2), np.uint8), False),
        (spaces.Box(0, 255, (1, 8, 6), np.uint8), False),
        (spaces.Box(0, 255, (4, 4), np.uint8), False),
        (spaces.Box(0, 1, (2,), np.int8), False),
        (spaces.Box(-5, 5, (2,)), False),
        (spaces.Discrete(3, start=1), False),
    ],
)
def test_policies_saved_with_another_encoding_say_so(space, differs):
    def rebuild(*kept, **arguments):
        policy = ActorCritic(hidden_units=(2,), **arguments)
        policy.build_from_config({key: config[key] for key in kept})

    is_image = len(space.shape or ()) == 3
    filters = {"filters": [(2, 3, 2)]} if is_image else {}
    policy = ActorCritic(hidden_units=(2,), **filters)
    policy.build_for(space, spaces.Discrete(2))
    config = policy.get_build_config()
    rebuild(*config, **filters)
    before = ("observation_space", "action_space")
    if differs:
        with pytest.warns(UserWarning, match="earlier version.*train it on"):
            rebuild(*before, **filters)
    else:
        rebuild(*before, **filters)


def test_models_that_get_observations_as_they_are_need_no_encoding():
    trunk = keras.Sequential([keras.layers.Dense(2)])
    policy = ActorCritic(trunk=trunk)
    described = map(kerasrl.spaces.space_to_config, (BYTES, spaces.Discrete(2)))
    names = ("observation_space", "action_space")
    policy.build_from_config(dict(zip(names, described, strict=True)))
