"""What environments may say, and the error if they say anything else."""

import numbers

import numpy as np
import optree
from gymnasium import spaces

from kerasrl.spaces import leaf_lister, named_leaves

#: What is read of an environment that breaks the protocol, in characters.
_SHOWN = 200
#: Bytes up to which calls of NumPy take longer than copies.
_SMALL = 8192
_PLAIN = (np.ndarray, np.generic, int, float)


class EnvProtocolError(ValueError):
    """An environment broke gymnasium's protocol.

    The message names the environment, the call and what was wrong with it. Exceptions
    that an environment raises itself are passed on as they are, with a note that says
    which environment raised them.
    """


class Misfit(Exception):
    """Why a value is not what the protocol says; becomes an `EnvProtocolError`."""


class ObservationLeaf:
    """One array of observations: what it must be, and how it is kept.

    Args:
        name: string, like `observation_space["image"]`.
        space: its Box, Discrete, MultiDiscrete or MultiBinary.

    Attributes:
        shape: tuple, without batch axis.
        dtype: NumPy dtype in which it is kept: that of the space, float32 for floats.
        low, high: arrays of that dtype, the bounds, both included.
        bounded: bool, whether the bounds exclude anything that the dtype can hold.
        exact: bool, whether it consists of integers, where values out of bounds stand
            for nothing, rather than of floats, whose bounds are often not kept.
        origin: float64 array or None, what is subtracted of floats before they are
            rounded; see `Observations.set_origins`.
    """

    def __init__(self, name, space):
        self.name = name
        self.space = space
        self.shape = space.shape
        is_float = np.issubdtype(space.dtype, np.floating)
        self.dtype = np.dtype(np.float32 if is_float else space.dtype)
        self.exact = not is_float
        if isinstance(space, spaces.Box):
            low, high = space.low, space.high
        elif isinstance(space, spaces.Discrete):
            low = int(space.start)
            high = low + int(space.n) - 1
        elif isinstance(space, spaces.MultiDiscrete):
            low = space.start.astype(np.int64)
            high = low + space.nvec.astype(np.int64) - 1
        else:
            low, high = 0, 1
        self._bounds = low, high
        self.set_origin(None)
        if is_float:
            self.bounded = bool(np.isfinite([self.low, self.high]).any())
        elif self.dtype.kind == "b":
            self.bounded = not (~self.low & self.high).all()
        else:
            limits = np.iinfo(self.dtype)
            self.bounded = bool(
                (self.low > limits.min).any() or (self.high < limits.max).any()
            )

    def set_origin(self, origin):
        """Sets what is subtracted of values; `low` and `high` then bound the rest.

        Args:
            origin: float64 array, or None for nothing.
        """
        self.origin = origin
        # Of arrays with this dtype, `rows[...] = values` loses nothing.
        self._source = self.dtype if origin is None else None
        with np.errstate(over="ignore"):
            self.low, self.high = (
                self._shifted(np.asarray(limit)).astype(self.dtype)
                for limit in self._bounds
            )

    def _shifted(self, array):
        return array if self.origin is None else array.astype(np.float64) - self.origin

    def returned(self, array):
        """Returns values as environments returned them, for messages."""
        return array if self.origin is None else array + self.origin

    def write(self, values, rows):
        """Writes B values into `rows` `[B, ...]`, which must not broadcast them.

        Raises:
            Exception: of any kind, if not all values fit, and perhaps if they are
                lists: then `fit` decides about each.
        """
        if rows.nbytes <= _SMALL:
            array = np.array(values)
            if array.shape != rows.shape or array.dtype is not self._source:
                array = self.fit(array, rows.shape)
            rows[...] = array
            return
        # One array of all would be a second copy.
        for value in values:
            if value.shape != self.shape or value.dtype is not self._source:
                raise Misfit
        rows[...] = values

    def fit(self, values, shape):
        """Returns values as an array of the kept dtype that has lost nothing.

        Args:
            values: array, or what NumPy makes one of.
            shape: tuple, the shape that it must have.

        Raises:
            Misfit: if it has another shape, holds anything but numbers, or numbers that
                the dtype cannot hold.
        """
        try:
            array = np.asarray(values)
        except (TypeError, ValueError) as error:
            raise Misfit(f"{shown(values)}, which is no array ({error})") from None
        if array.shape != shape:
            raise Misfit(shown(values, array))
        if array.dtype == self.dtype and self.origin is None:
            return array
        if array.dtype.kind not in "fiub":
            raise Misfit(shown(values, array))
        with np.errstate(over="ignore", invalid="ignore"):
            converted = self._shifted(array).astype(self.dtype)
        if not self.exact:
            if self.origin is None:
                self._source = array.dtype
        elif not (converted == array).all():
            raise Misfit(f"{shown(array[converted != array][0])} in {shown(values)}")
        return converted

    def outside(self, array):
        """Returns a bool array, where values are out of bounds; None if nowhere."""
        if not self.bounded:
            return None
        outside = (array < self.low) | (array > self.high)
        if not self.exact:
            outside &= np.isfinite(array)  # Worse than out of bounds: see collectors.
        return outside if outside.any() else None

    def __str__(self):
        text = f"shape {self.shape} and dtype {self.dtype}"
        if self.bounded and self.exact:
            text += f" from {bound(self.low)} to {bound(self.high)}"
        return text


class Observations:
    """Checks observations against a space and writes them into arrays.

    Args:
        space: observation space of a single environment.
    """

    def __init__(self, space):
        self.space = space
        self.leaves = [
            ObservationLeaf(name, leaf) for name, leaf in named_leaves(space)
        ]
        self.list = leaf_lister(space)
        self._single = self.leaves[0] if space is self.leaves[0].space else None

    def set_origins(self, origins):
        """Sets what is subtracted of observations, in float64, before they are rounded.

        Args:
            origins: tree of float64 arrays, or None for nothing, shaped like one.
        """
        for leaf, origin in zip(self.leaves, self.list(origins), strict=True):
            leaf.set_origin(origin)

    def writer(self):
        """A function that writes a list of B observations into a tree `[B, ...]`.

        It raises an exception of any kind unless all of them fit; `write_one` then
        says which does not.
        """
        if self._single is not None:
            return self._single.write

        def write_all(observations, out):
            columns = zip(*map(self.list, observations), strict=True)
            for leaf, rows, column in zip(
                self.leaves, self.list(out), columns, strict=True
            ):
                leaf.write(column, rows)

        return write_all

    def copy(self, observation, example):
        """Returns a single observation in new arrays.

        Args:
            observation: tree, as an environment returned it.
            example: tree of the arrays that are kept of one.

        Raises:
            Misfit: naming the leaf that does not fit.
        """
        leaf = self._single
        if leaf is not None and leaf.origin is None and isinstance(observation, _PLAIN):
            array = np.array(observation)
            if array.dtype is leaf.dtype and array.shape == leaf.shape:
                return array
        copy = optree.tree_map(np.empty_like, example)
        self.write_one(observation, copy)
        return copy

    def write_one(self, observation, out, index=...):
        """Writes a single observation into the row `index` of a tree.

        Raises:
            Misfit: naming the leaf that does not fit.
        """
        rows = self.list(out)
        for leaf, row, value in zip(
            self.leaves, rows, self.parts(observation), strict=True
        ):
            try:
                row[index] = leaf.fit(value, leaf.shape)
            except Misfit as misfit:
                raise Misfit(
                    f"Received at `{leaf.name}`: {misfit}. Expected: {leaf}."
                ) from None

    def parts(self, observation):
        """Returns the list of the leaves of an observation of one or of many.

        Raises:
            Misfit: if it does not have the structure of the space.
        """
        problem = _structure(self.space, observation, "observation_space")
        if problem:
            raise Misfit(problem)
        return self.list(observation)


def _structure(space, observation, name):
    """What is wrong with the structure of an observation, or None."""
    if isinstance(space, spaces.Dict):
        children, expected = space.spaces, f"a dict with the keys {list(space.spaces)}"
    elif isinstance(space, spaces.Tuple):
        children = dict(enumerate(space.spaces))
        expected = f"a tuple of {len(children)} parts"
        is_sized = isinstance(observation, (tuple, list, np.ndarray))
        if not is_sized or len(observation) != len(children):
            return f"Received at `{name}`: {shown(observation)}. Expected: {expected}."
    else:
        return None
    for key, child in children.items():
        try:
            part = observation[key]
        except (IndexError, KeyError, TypeError, ValueError):
            return (
                f"Received at `{name}`: {shown(observation)}, which has no {key!r}. "
                f"Expected: {expected}."
            )
        problem = _structure(child, part, f"{name}[{key!r}]")
        if problem:
            return problem
    return None


def as_flag(value):
    """Returns `terminated` or `truncated` as a bool.

    Raises:
        Misfit: if it is neither a bool nor 0 or 1.
    """
    if type(value) in (bool, np.bool_):
        return bool(value)
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "biu" and array.item() in (0, 1):
        return bool(array.item())
    raise Misfit(f"{shown(value)}. Expected: a bool")


def as_reward(value):
    """Returns a reward as a float.

    Raises:
        Misfit: if it is not a number or an array with one.
    """
    if isinstance(value, numbers.Real):
        return float(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise Misfit(f"{shown(value)}. Expected: a number")
    return float(array.item())


def check_reset(result):
    """Checks what `reset` returned.

    Raises:
        Misfit: if it is not an observation and an info.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Misfit(
            f"`reset` returned {_count(result)}. Expected: the two values "
            "(observation, info). Environments of the old gym return an observation "
            "only: add `{}`, or convert them with shimmy."
        )
    if not isinstance(result[1], dict):
        raise Misfit(
            f"`reset` returned as info {shown(result[1])}. Expected: the two values "
            "(observation, info), with info a dict."
        )


def check_step(result):
    """Checks what `step` returned.

    Raises:
        Misfit: if it is not five values, the last of them a dict.
    """
    check_count(result)
    check_info(result[4])


def check_count(result):
    """Checks that `step` returned five values.

    Raises:
        Misfit: if it did not.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        raise Misfit(
            f"`step` returned {_count(result)}. Expected: the five values "
            "(observation, reward, terminated, truncated, info). Environments of the "
            "old gym return four, with `done`: return False for truncated besides, or "
            "convert them with shimmy."
        )


def check_info(info):
    """Checks the info of a step.

    Raises:
        Misfit: if it is not a dict.
    """
    if not isinstance(info, dict):
        raise Misfit(f"`step` returned as info {shown(info)}. Expected: a dict.")


def shown(value, array=None):
    """A value as it appears in a message: shortened, arrays with shape and dtype.

    Args:
        value: anything.
        array: what NumPy makes of it, if its shape and dtype are to be told too.
    """
    if isinstance(value, np.ndarray):
        array = value
    text = repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, np.ndarray):
        text = f"{value.tolist()}" if value.size <= 16 else "an array"
    if array is not None:
        text += f" of shape {array.shape} and dtype {array.dtype}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def bound(array):
    """Bounds as they appear in a message: one number if all are equal."""
    values = np.unique(array)
    return values[0].item() if len(values) == 1 else shown(array.tolist())


def _count(result):
    if isinstance(result, (tuple, list)):
        return f"{len(result)} values, {shown(result)}"
    return shown(result)
