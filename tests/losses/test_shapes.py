"""Shape checks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl.losses import check_rank, check_same_shape
from kerasrl.losses.shapes import as_floats


def test_equal_shapes_pass():
    check_same_shape(a=np.zeros((2, 3)), b=tf.zeros((2, 3)), c=None, d=[[0] * 3] * 2)
    check_same_shape(a=1.0, b=np.float32(2))
    check_same_shape()


@pytest.mark.parametrize("other", [(4, 1), (1,), (5,), ()])
def test_other_shapes_are_refused_by_name(other):
    with pytest.raises(ValueError) as error:
        check_same_shape(values=np.zeros(4), targets=np.zeros(other))
    shape = "[" + ", ".join(map(str, other)) + "]"
    assert f"Received: values: [4], targets: {shape}." in str(error.value)
    assert "x[..., 0]" in str(error.value)


def unknown(shape):
    """A tensor with these static dimensions, as a traced function sees it."""
    return keras.KerasTensor(shape)


def test_unknown_dimensions_are_compatible():
    check_same_shape(a=unknown((None, 3)), b=np.zeros((2, 3)))
    check_same_shape(a=unknown((None, 3)), b=unknown((2, None)))


def test_unknown_dimensions_do_not_hide_a_conflict_of_others():
    with pytest.raises(ValueError, match=r"a: \[\?\], b: \[2\], c: \[3\]"):
        check_same_shape(a=unknown((None,)), b=np.zeros(2), c=np.zeros(3))
    with pytest.raises(ValueError, match=r"a: \[\?, 3\], b: \[\?\]"):
        check_same_shape(a=unknown((None, 3)), b=unknown((None,)))


def test_unknown_ranks_are_compatible():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec(None)], autograph=False)
    def function(x):
        check_same_shape(a=x, b=tf.zeros((2, 3)))
        check_rank(2, a=x)
        seen.append(x.shape.rank)
        return x

    function(tf.zeros((2, 3)))
    assert seen == [None]


def test_rank():
    check_rank(1, a=np.zeros(3), b=None)
    check_rank(1, at_least=True, a=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"2 dimension.*a of shape \[3\].*Add 1"):
        check_rank(2, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"1 dimension.*a of shape \[3, 1\].*Remove 1"):
        check_rank(1, a=np.zeros((3, 1)))
    with pytest.raises(ValueError, match="at least 3"):
        check_rank(3, at_least=True, a=np.zeros((3, 1)))


@pytest.mark.parametrize(
    "first, expected",
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"),
     ("int32", "float32")],
)  # fmt: skip
def test_floats_follow_the_first(first, expected):
    result = as_floats(np.zeros(2, first), np.zeros(2, "float64"), None, 3)
    assert [None if x is None else x.dtype for x in result] == [
        expected, expected, None, expected
    ]  # fmt: skip
