"""What is kept of a row: arrays over rows, and stacks of frames stored once."""

import copy

import numpy as np
import optree

from kerasrl import action_masks


class Column:
    """One leaf of what is kept of a row, stored as it is.

    Args:
        name: Name of its array.
        shape: Tuple, shape of one entry.
        dtype: NumPy dtype.
    """

    num_frames = 1

    def __init__(self, name, shape, dtype):
        self.name = name
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.stored_shape = self.shape
        self.array = np.zeros((0, *self.shape), self.dtype)

    def write(self, rows, values):
        """Stores entries.

        Args:
            rows: Integer array.
            values: Array `[*rows.shape, ...]`.
        """
        self.array[rows] = values

    def read(self, rows, stacks=None):
        """Entries of rows.

        Args:
            rows: Integer array.
            stacks: Unused here; see `FrameColumn.read`.

        Returns:
            Array `[*rows.shape, ...]`, new.
        """
        return self.array.take(rows, axis=0)


class FrameColumn(Column):
    """A leaf that is a stack of frames, of which each row stores the newest.

    Args:
        name: Name of its array.
        shape: Tuple, shape of one stack.
        dtype: NumPy dtype.
        num_frames: Integer, how many frames a stack has.
        axis: 0 or -1, the axis of the stack along which the frames lie.
    """

    def __init__(self, name, shape, dtype, num_frames, axis):
        super().__init__(name, shape, dtype)
        self.num_frames = num_frames
        self._axis = axis
        self.stored_shape = self.shape[1:] if axis == 0 else self.shape[:-1]

    def frames(self, values, lead):
        """A view with the frames, the oldest first, on the axis behind the leading.

        Args:
            values: Array of stacks `[..., *shape]`.
            lead: Integer, the number of leading axes.
        """
        return values if self._axis == 0 else np.moveaxis(values, -1, lead)

    def write(self, rows, values):
        lead = rows.ndim
        newest = self.frames(values, lead)[(slice(None),) * lead + (-1,)]
        self.array[rows] = newest

    def read(self, rows, stacks=None):
        """Stacks of rows.

        Args:
            rows: Integer array, unused.
            stacks: Pair from `FrameHistory.locate`: rows of the frames, integer
                `[*rows.shape, F]`, and where they are zeros, bool of that shape or
                `None`.

        Returns:
            Array `[*rows.shape, *shape]`, new.
        """
        frame_rows, padded = stacks
        result = self.array.take(frame_rows[..., -self.num_frames :], axis=0)
        if padded is not None:
            result[padded[..., -self.num_frames :]] = 0
        if self._axis == 0:
            return result
        return np.ascontiguousarray(np.moveaxis(result, rows.ndim, -1))


class TreeColumns:
    """The columns of a tree of arrays, such as observations.

    Args:
        role: Name of the tree, the beginning of the columns' names.
        example: Tree of arrays `[1, ...]`, for structure, shapes and dtypes.
        source: Text, what says that the tree is like this, for messages.
        frame_stack: `None`, or what `ReplayBuffer` takes.
        frame_axis: 0 or -1.
    """

    def __init__(self, role, example, source, frame_stack=None, frame_axis=0):
        self.role = role
        self._source = source
        self._treespec = optree.tree_structure(example)
        paths = optree.tree_paths(example)
        leaves = [np.asarray(leaf)[0] for leaf in optree.tree_leaves(example)]
        counts = _frame_counts(frame_stack, frame_axis, paths, leaves, self._treespec)
        self.columns = []
        for path, leaf, count in zip(paths, leaves, counts, strict=True):
            name = ".".join([role, *map(str, path)])
            if count > 1:
                column = FrameColumn(name, leaf.shape, leaf.dtype, count, frame_axis)
            else:
                column = Column(name, leaf.shape, leaf.dtype)
            self.columns.append(column)
        _refuse_equal_names([column.name for column in self.columns])

    def flatten(self, tree, lead):
        """The leaves of a tree, checked.

        Args:
            tree: Tree of arrays `[*lead, ...]`.
            lead: Tuple, the leading shape.

        Returns:
            List of arrays, with the dtypes of the columns.

        Raises:
            ValueError: A structure, shape or kind of dtype does not fit.
        """
        try:
            leaves = self._treespec.flatten_up_to(tree)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The rollout's {self.role} do not have the structure of "
                f"{self._source}. Received: {optree.tree_structure(tree)}."
            ) from error
        return [
            self._check_leaf(column, leaf, lead)
            for column, leaf in zip(self.columns, leaves, strict=True)
        ]

    def read(self, rows, stacks=None):
        """The tree of entries of some rows; arguments as of `FrameColumn.read`."""
        return self._treespec.unflatten(
            [column.read(rows, stacks) for column in self.columns]
        )

    def part(self, key):
        """The columns of one entry of a tree that is a dict, as a tree of their own.

        Args:
            key: The key of the entry.

        Returns:
            `TreeColumns` over the same arrays.
        """
        children, index = self._treespec.children(), self._treespec.entries().index(key)
        first = sum(child.num_leaves for child in children[:index])
        part = copy.copy(self)
        part._treespec = children[index]
        part.columns = self.columns[first : first + children[index].num_leaves]
        return part

    def _check_leaf(self, column, leaf, lead):
        leaf = np.asarray(leaf)
        shape, dtype = lead + column.shape, column.dtype
        if leaf.shape == shape and leaf.dtype == dtype:
            return leaf
        if leaf.shape != shape or not np.can_cast(leaf.dtype, dtype, "same_kind"):
            raise ValueError(
                f"The rollout's {column.name} do not fit {self._source}. Received: "
                f"shape {leaf.shape} and dtype {leaf.dtype}. Expected: shape {shape} "
                f"and dtype {dtype}."
            )
        return leaf.astype(dtype)


class Columns:
    """Trees of columns side by side, such as all that a policy sees.

    Args:
        trees: List of `TreeColumns`.
    """

    def __init__(self, trees):
        self._trees = {tree.role: tree for tree in trees}
        self.columns = [column for tree in trees for column in tree.columns]

    def __contains__(self, role):
        return role in self._trees

    def of(self, role):
        """The list of columns of one tree, none if it is not there."""
        return self._trees[role].columns if role in self else []

    def tree(self, role):
        """The `TreeColumns` of a role."""
        return self._trees[role]

    def layout(self, num_rows):
        """Shapes and dtypes of the arrays, by name."""
        return {
            column.name: ((num_rows, *column.stored_shape), column.dtype)
            for column in self.columns
        }

    def attach(self, arrays):
        """Sets the arrays of `layout`."""
        for column in self.columns:
            column.array = arrays[column.name]

    def flatten(self, fields, lead):
        """The leaves of all trees, checked.

        Args:
            fields: Dict of trees of arrays `[*lead, ...]`, or more, by role.
            lead: Tuple, the leading shape.

        Returns:
            List of arrays, aligned with `columns`.

        Raises:
            ValueError: A tree is missing or does not fit.
        """
        leaves = []
        for role, tree in self._trees.items():
            if role not in fields:
                raise ValueError(
                    f"This buffer keeps {role}. Received a rollout without, where its "
                    f"observations are: {sorted(fields)}. Add rollouts as "
                    "Collector.collect returns them."
                )
            leaves += tree.flatten(fields[role], lead)
        return leaves

    def write(self, rows, leaves):
        """Stores entries of all columns in rows."""
        for column, leaf in zip(self.columns, leaves, strict=True):
            column.write(rows, leaf)

    def read(self, rows, stacks=None):
        """The trees by role; arguments as of `FrameColumn.read`."""
        return {role: tree.read(rows, stacks) for role, tree in self._trees.items()}


def _refuse_equal_names(names):
    equal = sorted({name for name in names if names.count(name) > 1})
    if equal:
        raise ValueError(
            f"Received several entries with the name {equal[0]!r}, levels joined by "
            "dots. Leave dots out of the names of entries."
        )


def _frame_counts(frame_stack, frame_axis, paths, leaves, treespec):
    """How many frames each leaf is a stack of; 1 for those that are no stacks."""
    if frame_axis not in (0, -1):
        raise ValueError(
            f"`frame_axis` must be 0 or -1, the first or the last axis of an "
            f"observation. Received: {frame_axis!r}."
        )
    if frame_stack is None:
        return [1] * len(paths)
    if isinstance(frame_stack, dict):
        named = optree.tree_leaves(frame_stack)
        stacks = dict(zip(optree.tree_paths(frame_stack), named, strict=True))
        unknown = set(stacks) - set(paths)
        if unknown:
            raise ValueError(
                "`frame_stack` names leaves that the observations do not have. "
                f"Received: {sorted(unknown)}. Expected some of: {paths}."
            )
    else:
        # A mask of actions is no image.
        stacks = dict.fromkeys(
            [path for path in paths if path != (action_masks.KEY,)], frame_stack
        )
    for path, leaf in zip(paths, leaves, strict=True):
        count = stacks.get(path, 1)
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(
                "`frame_stack` must be a positive integer, or a dict from names of "
                f"observations to such integers. Received: {frame_stack!r}."
            )
        if path in stacks and (leaf.ndim == 0 or leaf.shape[frame_axis] != count):
            raise ValueError(
                f"`frame_stack` says that observations are stacks of {count} frames "
                f"along axis {frame_axis}. Received observations of shape "
                f"{leaf.shape}. Use gymnasium.wrappers.FrameStackObservation, name "
                "only the leaves that are stacks in a dict, or set `frame_axis`."
            )
        if count > 255:
            raise ValueError(f"`frame_stack` is at most 255. Received: {count}.")
    return [int(stacks.get(path, 1)) for path in paths]
