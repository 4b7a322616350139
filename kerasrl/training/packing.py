"""Joining small arrays, since each argument of a compiled call costs time."""

import math

import numpy as np
import optree
import tensorflow as tf

_WORD = 4


class Packer:
    """Joins arrays into one buffer, since each argument of a compiled call costs time.

    Large arrays stay apart: copying them would cost more.

    Args:
        tree: Tree of NumPy arrays, an example: later ones have the same structure,
            shapes and dtypes.
    """

    _LARGEST_BYTES = 2**20

    def __init__(self, tree):
        leaves, self.structure = optree.tree_flatten(tree)
        self.specs = [(leaf.shape, leaf.dtype) for leaf in leaves]
        self.is_large = [leaf.nbytes > self._LARGEST_BYTES for leaf in leaves]
        self.padding = [b"\0" * (-leaf.nbytes % _WORD) for leaf in leaves]

    def pack(self, tree):
        """Returns a tuple of tensors, a buffer of words and the large leaves.

        Returns `None` for a tree with another structure, other shapes or dtypes.
        """
        leaves, structure = optree.tree_flatten(tree)
        if structure != self.structure or self.specs != [
            (leaf.shape, leaf.dtype) for leaf in leaves
        ]:
            return None
        parts, large = [], []
        for leaf, is_large, padding in zip(
            leaves, self.is_large, self.padding, strict=True
        ):
            if is_large:
                large.append(tf.convert_to_tensor(leaf))
            else:
                parts += leaf.tobytes(), padding
        # Through one bytes object: faster than joining arrays of several dtypes. With
        # its device named, a constant is made in a third of the time.
        with tf.device("CPU:0"):
            buffer = tf.constant(np.frombuffer(b"".join(parts), np.int32))
        return buffer, *large

    def unpack(self, packed):
        """Returns the tree of tensors that `pack` was given."""
        buffer, *large = packed
        leaves, start = [], 0
        for (shape, dtype), is_large in zip(self.specs, self.is_large, strict=True):
            if is_large:
                leaves.append(large.pop(0))
                continue
            size = math.prod(shape)
            words = -(-size * dtype.itemsize // _WORD)
            part = buffer[start : start + words]
            start += words
            if dtype.itemsize > _WORD:
                part = tf.reshape(part, [-1, dtype.itemsize // _WORD])
            part = tf.bitcast(part, "uint8" if dtype.kind == "b" else dtype)
            part = tf.reshape(part, [-1])[:size]
            if dtype.kind == "b":
                part = tf.cast(part, "bool")
            leaves.append(tf.reshape(part, shape))
        return optree.tree_unflatten(self.structure, leaves)
