"""A binary tree of sums over priorities, with vectorised search."""

import numpy as np

_MOST_PENDING = 1024


class SumTree:
    """Non-negative numbers, of which one is found by a point on their running sum.

    A flat float64 array: node 1 is the root, the children of node `i` are `2 i` and
    `2 i + 1`, and a node is the sum of its children. Parents are always computed anew
    from their children, so that no rounding error accumulates, and as late as
    possible: many small changes between two searches cost one pass.

    Args:
        size: Integer, how many numbers.

    Example:

    ```python
    tree = SumTree(4)
    tree.set(np.arange(4), np.array([3.0, 1.0, 2.0, 5.0]))
    tree.find(np.array([2.9, 3.0, 10.9]))  # [0, 1, 3]
    ```
    """

    def __init__(self, size):
        self.size = size
        self._depth = max(1, (size - 1).bit_length())
        self._leaves = 1 << self._depth
        self._nodes = np.zeros(2 * self._leaves)
        self._children = self._nodes.reshape(-1, 2)
        self._pending = []

    @property
    def values(self):
        """The numbers, float64 `[size]`, a view; changes must go through `set`."""
        return self._nodes[self._leaves : self._leaves + self.size]

    @property
    def nbytes(self):
        """Bytes that the tree takes."""
        return self._nodes.nbytes

    @property
    def total(self):
        """Sum of all numbers."""
        self._update_parents()
        return float(self._nodes[1])

    @staticmethod
    def count_bytes(size):
        """Bytes that a tree over `size` numbers takes."""
        return 16 << max(1, (size - 1).bit_length())

    def get(self, indices):
        """The numbers at some indices."""
        return self._nodes.take(indices + self._leaves)

    def set(self, indices, values):
        """Replaces numbers.

        Args:
            indices: Integer array; of equal indices the last one counts.
            values: Float array of the same shape, or one number for all.
        """
        if not indices.size:
            return
        nodes = indices.ravel() + self._leaves
        self._nodes[nodes] = values if np.ndim(values) == 0 else np.ravel(values)
        self._pending.append(nodes)
        if len(self._pending) >= _MOST_PENDING:
            self._update_parents()

    def find(self, points):
        """Finds where points of the running sum fall.

        Args:
            points: Float array of numbers in `[0, total)`.

        Returns:
            Integer array of the same shape: the first index at which the running sum
            exceeds the point. A number that is zero is never found.
        """
        self._update_parents()
        node = np.ones(points.shape, np.int64)
        for _ in range(self._depth):
            pair = self._children.take(node, axis=0)
            left = pair[..., 0]
            # Rounding may leave a point at the very end of a node's sum. It must not
            # slip into an empty child from there.
            right = (points >= left) & (pair[..., 1] > 0.0)
            points = points - left * right
            node = 2 * node + right
        return node - self._leaves

    def _update_parents(self):
        if not self._pending:
            return
        nodes = np.concatenate(self._pending)
        self._pending = []
        if len(nodes) > self._leaves // 16:
            self._update_all()
            return
        for _ in range(self._depth):
            nodes = nodes >> 1
            pair = self._children.take(nodes, axis=0)
            self._nodes[nodes] = pair[:, 0] + pair[:, 1]

    def _update_all(self):
        first = self._leaves
        while first > 1:
            pair = self._children[first // 2 : first]
            first //= 2
            self._nodes[first : 2 * first] = pair[:, 0] + pair[:, 1]
