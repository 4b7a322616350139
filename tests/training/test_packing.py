"""Trees that travel as one buffer arrive as they left."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl.training.packing import Packer

DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32"),
    *("float32", "int64", "uint64", "float64"),
)
# Sizes that fill words and that do not, nothing at all, and scalars.
SHAPES = ((), (1,), (3,), (4,), (0, 2), (5, 7))


def tree(seed=0):
    rng = np.random.default_rng(seed)
    large = rng.standard_normal((600, 600)).astype("float32")
    small = {
        dtype: tuple(rng.integers(0, 100, shape).astype(dtype) for shape in SHAPES)
        for dtype in DTYPES
    }
    small["bool"] = tuple(rng.random(shape) < 0.5 for shape in SHAPES)
    return {"large": large, "small": small, "strided": large[3:9:2, ::100], "no": ()}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_unpacked_is_what_was_packed(jit_compile):
    packer = Packer(tree())
    unpack = tf.function(packer.unpack, jit_compile=jit_compile)
    for seed in (1, 2):
        expected = tree(seed)
        packed = packer.pack(expected)
        assert len(packed) == 2  # The buffer, and the large array apart.
        unpacked = unpack(packed)
        leaves = zip(tf.nest.flatten(expected), tf.nest.flatten(unpacked), strict=True)
        for array, tensor in leaves:
            assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.zeros((2, 3), "float32")},
        {"a": np.zeros((3, 2), "int32")},
        {"b": np.zeros((3, 2), "float32")},
        (np.zeros((3, 2), "float32"),),
    ],
)
def test_another_kind_of_tree_is_not_packed(other):
    packer = Packer({"a": np.zeros((3, 2), "float32")})
    assert packer.pack({"a": np.ones((3, 2), "float32")}) is not None
    assert packer.pack(other) is None
