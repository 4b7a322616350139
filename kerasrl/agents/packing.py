"""Joining small arrays, since each argument of a compiled call costs time."""

import math

import numpy as np
import optree
import tensorflow as tf


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

    def pack(self, tree):
        """Returns a tuple of tensors, a buffer of bytes and the large leaves.

        Returns `None` for a tree with another structure, other shapes or dtypes.
        """
        leaves, structure = optree.tree_flatten(tree)
        if structure != self.structure or self.specs != [
            (leaf.shape, leaf.dtype) for leaf in leaves
        ]:
            return None
        pairs = list(zip(leaves, self.is_large, strict=True))
        # Through one bytes object: faster than joining arrays of several dtypes.
        buffer = b"".join([leaf.tobytes() for leaf, is_large in pairs if not is_large])
        large = [tf.convert_to_tensor(leaf) for leaf, is_large in pairs if is_large]
        return tf.convert_to_tensor(np.frombuffer(buffer, np.uint8)), *large

    def unpack(self, packed):
        """Returns the tree of tensors that `pack` was given."""
        buffer, *large = packed
        leaves, start = [], 0
        for (shape, dtype), is_large in zip(self.specs, self.is_large, strict=True):
            if is_large:
                leaves.append(large.pop(0))
                continue
            size = math.prod(shape) * dtype.itemsize
            part = buffer[start : start + size]
            start += size
            if dtype.kind == "b":
                part = tf.cast(part, "bool")
            elif dtype.itemsize > 1:
                part = tf.bitcast(tf.reshape(part, [-1, dtype.itemsize]), dtype)
            elif dtype != np.uint8:
                part = tf.bitcast(part, dtype)
            leaves.append(tf.reshape(part, shape))
        return optree.tree_unflatten(self.structure, leaves)
