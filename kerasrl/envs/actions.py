"""Actions on their way from a policy to environments."""

import numpy as np
from gymnasium import spaces

from kerasrl.spaces import check_space, emitted


class ActionConverter:
    """Turns actions as a policy emits them into actions that environments accept.

    A policy counts discrete choices from zero and samples unbounded numbers. Here, in
    one place, `start` is added to Discrete and MultiDiscrete choices, Box actions are
    clipped to the finite bounds and cast to the space's dtype (rounded first where it
    is an integer dtype), and a batch is split into one action per environment.

    Args:
        space: the action space of a single environment.

    Example:

    ```python
    converter = ActionConverter(gymnasium.spaces.Box(-2.0, 2.0, (1,)))
    converter.batch(np.array([[5.0], [0.5]], "float32"))
    # array([[2. ], [0.5]], dtype=float32)
    ```
    """

    def __init__(self, space):
        check_space(space, "action")
        self.space = space
        self._convert = _tree_converter(space, "actions", _leaf_converter)
        self._invert = _tree_converter(space, "actions", _leaf_inverter)
        self._split = _tree_splitter(space, "actions")

    def batch(self, actions):
        """Converts a tree `[B, ...]`; the result is a tree of new arrays `[B, ...]`.

        Raises:
            ValueError: if the structure, a shape or a discrete choice does not fit.
        """
        return self._convert(actions)

    def inverse(self, actions):
        """Converts actions that environments accept into those of a policy.

        Discrete choices then count from zero; Box actions become float32, and are what
        the policy chose but for clipping and rounding.

        Raises:
            ValueError: if the structure, a shape or a discrete choice does not fit.
        """
        return self._invert(actions)

    def rows(self, actions):
        """Converts a tree `[B, ...]` into a list of B single actions.

        Discrete choices become NumPy integers, everything else NumPy rows.

        Raises:
            ValueError: if the structure, a shape or a discrete choice does not fit.
        """
        return self._split(actions)


def clip_actions(actions, action_space):
    """Turns a batch of a policy's actions into actions that environments accept.

    Args:
        actions: tree `[N, ...]` as the policy emits them.
        action_space: the action space of a single environment.

    Returns:
        Tree `[N, ...]` of new arrays: Box actions clipped to the finite bounds and
        cast, discrete choices counted from the space's `start`.

    Raises:
        ValueError: if the actions do not fit the space.

    Example:

    ```python
    clip_actions(np.array([[5.0]]), gymnasium.spaces.Box(-2.0, 2.0, (1,)))
    # array([[2.]], dtype=float32)
    ```
    """
    return ActionConverter(action_space).batch(actions)


def _children(space, actions, name):
    """Checks that `actions` is the dict or tuple that `space` wants."""
    if isinstance(space, spaces.Dict):
        keys = list(space.spaces)
        if not isinstance(actions, dict) or set(actions) != set(keys):
            received = sorted(actions) if isinstance(actions, dict) else type(actions)
            raise ValueError(
                f"`{name}` does not fit the action space. Received: {received}. "
                f"Expected: a dict with the keys {keys}."
            )
        return [actions[key] for key in keys]
    size = len(space.spaces)
    if not isinstance(actions, (tuple, list)) or len(actions) != size:
        raise ValueError(
            f"`{name}` does not fit the action space. Received: {type(actions)}. "
            f"Expected: a tuple of {size} parts."
        )
    return list(actions)


def _named_children(space, name):
    if isinstance(space, spaces.Dict):
        return [(f"{name}[{k!r}]", part) for k, part in space.spaces.items()]
    return [(f"{name}[{i}]", part) for i, part in enumerate(space.spaces)]


def _tree_converter(space, name, make):
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return make(space, name)
    parts = [_tree_converter(part, n, make) for n, part in _named_children(space, name)]
    keys = list(space.spaces) if isinstance(space, spaces.Dict) else None

    def convert(actions):
        children = _children(space, actions, name)
        converted = [p(c) for p, c in zip(parts, children, strict=True)]
        if keys is None:
            return tuple(converted)
        return dict(zip(keys, converted, strict=True))

    return convert


def _tree_splitter(space, name):
    if isinstance(space, spaces.Discrete):
        return _discrete_splitter(space, name)
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        convert = _leaf_converter(space, name)
        return lambda actions: list(convert(actions))
    parts = [_tree_splitter(part, n) for n, part in _named_children(space, name)]
    keys = list(space.spaces) if isinstance(space, spaces.Dict) else None

    def split(actions):
        children = _children(space, actions, name)
        columns = [p(c) for p, c in zip(parts, children, strict=True)]
        rows = list(zip(*columns, strict=True))
        if keys is None:
            return rows
        return [dict(zip(keys, row, strict=True)) for row in rows]

    return split


def _shape_error(name, actions, space):
    shape = ", ".join(["B", *map(str, space.shape)])
    return ValueError(
        f"`{name}` does not fit the action space {space}. Received: an array of shape "
        f"{actions.shape} and dtype {actions.dtype}. Expected: shape [{shape}] of "
        f"{'numbers' if isinstance(space, spaces.Box) else 'integers'}."
    )


def _range_error(name, actions, space):
    return ValueError(
        f"`{name}` is out of the range of the action space {space}. Received: "
        f"{np.asarray(actions).tolist()}. Expected choices counted from zero "
        "(kerasrl adds the space's `start` itself)."
    )


def _discrete_splitter(space, name):
    count, start, dtype = int(space.n), int(space.start), np.dtype(space.dtype)
    choices = frozenset(range(count)) if count <= 65536 else None

    def split(actions):
        if not isinstance(actions, np.ndarray):
            actions = np.asarray(actions)
        if actions.ndim != 1 or actions.dtype.kind not in "iu":
            raise _shape_error(name, actions, space)
        values = actions.tolist()
        if choices is None:
            valid = min(values) >= 0 and max(values) < count
        else:
            valid = choices.issuperset(values)
        if not valid:
            raise _range_error(name, actions, space)
        # NumPy integers, as gymnasium's own vector environments pass: its check of a
        # Python int in every step costs several microseconds more.
        actions = np.asarray(actions, dtype)
        return list(actions if start == 0 else actions + start)

    return split


def _choices(space):
    """How many choices there are, and from which number environments count."""
    if isinstance(space, spaces.Discrete):
        return int(space.n), int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.astype(np.int64), np.asarray(space.start, np.int64)
    return 2, 0


def _leaf_converter(space, name):
    if isinstance(space, spaces.Box):
        return _box_converter(space, name)
    count, start = _choices(space)
    dtype = np.dtype(space.dtype)

    def convert(actions):
        actions = _check_actions(actions, space, name, "iub")
        if ((actions < 0) | (actions >= count)).any():
            raise _range_error(name, actions, space)
        return (actions + start).astype(dtype)

    return convert


def _leaf_inverter(space, name):
    if isinstance(space, spaces.Box):
        return lambda actions: _check_actions(actions, space, name, "fiu").astype(
            np.float32
        )
    count, start = _choices(space)
    dtype = emitted(space).dtype

    def invert(actions):
        actions = _check_actions(actions, space, name, "iub").astype(np.int64)
        if ((actions < start) | (actions >= start + count)).any():
            raise ValueError(
                f"`{name}` is out of the range of the action space {space}. Received: "
                f"{actions.tolist()}. Expected actions as environments take them, "
                "counted from the space's `start`."
            )
        return (actions - start).astype(dtype)

    return invert


def _check_actions(actions, space, name, kinds):
    actions = np.asarray(actions)
    if actions.shape[1:] != space.shape or actions.ndim != len(space.shape) + 1:
        raise _shape_error(name, actions, space)
    if actions.dtype.kind not in kinds:
        raise _shape_error(name, actions, space)
    return actions


def _box_converter(space, name):
    dtype = np.dtype(space.dtype)
    bounded = bool(np.isfinite(space.low).any() or np.isfinite(space.high).any())
    if dtype.kind != "f":
        return _integer_converter(space, name)
    low, high = space.low, space.high
    is_half = dtype.itemsize < 4

    def convert(actions):
        actions = _check_actions(actions, space, name, "fiu")
        if is_half:  # Infinity becomes a bound below.
            with np.errstate(over="ignore"):
                converted = actions.astype(dtype)
        else:
            converted = actions.astype(dtype)
        if bounded:
            np.maximum(converted, low, out=converted)
            np.minimum(converted, high, out=converted)
        return converted

    return convert


def _integer_converter(space, name):
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)

    def convert(actions):
        actions = _check_actions(actions, space, name, "fiu")
        rounded = np.rint(actions.astype(np.float64))
        if np.isnan(rounded).any():
            raise ValueError(
                f"`{name}` has NaN, which no integer stands for. Received: "
                f"{actions.tolist()} for the action space {space}."
            )
        # The largest integers of 64 bits are no floats: bounds are put in afterwards.
        inside = (rounded > low) & (rounded < high)
        converted = np.where(inside, rounded, 0.0).astype(space.dtype)
        return np.where(
            inside, converted, np.where(rounded >= high, space.high, space.low)
        )

    return convert
