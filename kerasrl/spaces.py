"""Gymnasium spaces as trees of arrays, as plain data, and example values of them.

A space is a tree: Dict and Tuple are its nodes, Box, Discrete, MultiDiscrete and
MultiBinary its leaves. Observations and actions are the matching nested dicts and
tuples of NumPy arrays with the batch axes in front (`zeros` makes examples). A single
leaf space is just one array. Imports no TensorFlow.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optree
from gymnasium import spaces

#: Entries of the largest space, somewhat more than an image of 1920 x 1080 in colour.
_MOST_ENTRIES = 2**23
_LEAVES = (
    spaces.Box,
    spaces.Discrete,
    spaces.MultiDiscrete,
    spaces.MultiBinary,
)


def check_space(space: spaces.Space, role: str = "observation") -> None:
    """Raises unless every leaf of `space` is of a kind that kerasrl supports.

    Args:
        space: a `gymnasium.Space`.
        role: `"observation"` or `"action"`, for the message.

    Raises:
        ValueError: naming the offending part of the space.

    Example:

    ```python
    check_space(gymnasium.spaces.Text(5))
    # Traceback (most recent call last):
    # ValueError: Unsupported observation space at `observation_space`: ...
    ```
    """
    if not named_leaves(space, role):
        raise ValueError(
            f"The {role} space holds no arrays at all. Received: {space}. "
            "Expected at least one Box, Discrete, MultiDiscrete or MultiBinary."
        )


def named_leaves(
    space: spaces.Space, role: str = "observation"
) -> list[tuple[str, spaces.Space]]:
    """The leaf spaces of `space`, in the order in which the tree is read.

    Args:
        space: a `gymnasium.Space`.
        role: `"observation"` or `"action"`, for the message.

    Returns:
        A list of pairs `(name, leaf space)`, the name like
        `observation_space["image"][0]`.

    Raises:
        ValueError: for a leaf that is not Box, Discrete, MultiDiscrete, MultiBinary,
            or for a Dict with keys that have no order.
    """
    found: list[tuple[str, spaces.Space]] = []

    def visit(part, name):
        if isinstance(part, spaces.Dict):
            _check_keys(part, name, role)
            for key, child in part.spaces.items():
                visit(child, f"{name}[{key!r}]")
        elif isinstance(part, spaces.Tuple):
            for index, child in enumerate(part.spaces):
                visit(child, f"{name}[{index}]")
        elif isinstance(part, _LEAVES):
            found.append((name, part))
        else:
            raise ValueError(
                f"Unsupported {role} space at `{name}`. Received: {part}. Expected: "
                "Box, Discrete, MultiDiscrete or MultiBinary, or Dict and Tuple of "
                "them. Wrap the environment with gymnasium.wrappers."
                f"Transform{role.capitalize()} to turn it into one of these."
            )

    visit(space, f"{role}_space")
    return found


def _check_keys(space, name, role):
    try:
        sorted(space.spaces)
    except TypeError:
        # TensorFlow reads trees in that order, and would only say so much later.
        raise ValueError(
            f"Unsupported {role} space at `{name}`. Received: the keys "
            f"{list(space.spaces)}, which do not sort together. Expected: keys of one "
            "kind, such as strings. Wrap the environment with gymnasium.wrappers."
            f"Transform{role.capitalize()} to give them other names."
        ) from None


def leaf_lister(space: spaces.Space) -> Callable[[Any], list]:
    """A function from a tree shaped like `space` to the flat list of its leaves.

    The order is that of `named_leaves`. Much faster than a general tree flatten, and
    it takes whatever mapping or sequence an environment returns.

    Args:
        space: a `gymnasium.Space` of supported leaves.

    Returns:
        A callable `tree -> list`.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        children: list[tuple[Any, spaces.Space]]
        if isinstance(space, spaces.Dict):
            children = list(space.spaces.items())
        else:
            children = list(enumerate(space.spaces))
        if all(isinstance(child, _LEAVES) for _, child in children):
            keys = [key for key, _ in children]
            return lambda tree: [tree[key] for key in keys]
        parts = [(key, leaf_lister(child)) for key, child in children]
        return lambda tree: [leaf for key, part in parts for leaf in part(tree[key])]
    return lambda tree: [tree]


def space_to_config(space: spaces.Space) -> dict[str, Any]:
    """Describes a space as JSON-compatible data.

    Args:
        space: A `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, `Dict` or `Tuple`
            space, nested at will.

    Returns:
        Dict that `space_from_config` turns back into an equal space.

    Raises:
        TypeError: The space, or one inside it, is of another kind.

    Example:

    ```python
    space_to_config(gymnasium.spaces.Discrete(2))  # {"type": "Discrete", "n": 2, ...}
    ```
    """
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "low": _bound_to_config(space.low),
            "high": _bound_to_config(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        # Of one axis, gymnasium tells `n` from `(n,)`.
        n = np.asarray(space.n).tolist()
        return {"type": "MultiBinary", "shape": list(space.shape), "n": n}
    if isinstance(space, spaces.Dict):
        items = [[key, space_to_config(value)] for key, value in space.items()]
        return {"type": "Dict", "spaces": items}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_config(s) for s in space]}
    raise TypeError(
        f"Received a space of type {type(space).__name__}. Supported are Box, "
        "Discrete, MultiDiscrete, MultiBinary, Dict and Tuple; wrap the environment "
        "with gymnasium.wrappers.TransformObservation to convert it."
    )


def space_from_config(config: dict[str, Any]) -> spaces.Space:
    """Builds the space that `space_to_config` described.

    Args:
        config: Dict from `space_to_config`.

    Returns:
        A `gymnasium.spaces.Space`.

    Raises:
        ValueError: The description is not of a known kind, or too large.

    Example:

    ```python
    space_from_config({"type": "Discrete", "n": 2, "start": 0})
    ```
    """
    if _count_entries(config) > _MOST_ENTRIES:
        raise ValueError(
            f"Received the description of a space of {_count_entries(config):,} "
            f"entries. Expected at most {_MOST_ENTRIES:,}."
        )
    return _make_space(config)


def _make_space(config):
    kind = config.get("type")
    if kind == "Box":
        dtype, shape = np.dtype(config["dtype"]), tuple(config["shape"])
        low, high = (
            _bound_from_config(config[bound], shape, dtype) for bound in ("low", "high")
        )
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        dtype = np.dtype(config.get("dtype", np.int64)).type
        return spaces.Discrete(config["n"], start=config["start"], dtype=dtype)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(
            config["nvec"], dtype=np.dtype(config["dtype"]).type, start=config["start"]
        )
    if kind == "MultiBinary":
        shape = config["shape"]
        n = config.get("n", shape[0] if len(shape) == 1 else shape)
        return spaces.MultiBinary(n)
    if kind == "Dict":
        # Pairs keep the order of the keys, which a plain dict would sort.
        return spaces.Dict([(k, _make_space(v)) for k, v in config["spaces"]])
    if kind == "Tuple":
        return spaces.Tuple([_make_space(value) for value in config["spaces"]])
    raise ValueError(
        f"Received a space description of type {kind!r}. Expected one written by "
        "kerasrl.spaces.space_to_config."
    )


def zeros(space: spaces.Space, batch_size: int) -> Any:
    """Returns a batch of zeros with the structure of a space.

    Args:
        space: A space as for `space_to_config`.
        batch_size: Integer, size of the leading axis.

    Returns:
        Tree of NumPy arrays `[batch_size, ...]`. Floating leaves are float32.

    Example:

    ```python
    zeros(gymnasium.spaces.Box(-1, 1, (3,)), 2).shape  # (2, 3)
    ```
    """
    if isinstance(space, spaces.Dict):
        return {key: zeros(value, batch_size) for key, value in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(value, batch_size) for value in space)
    space_to_config(space)  # Raises for what is not supported.
    dtype = np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype
    return np.zeros((batch_size, *(space.shape or ())), dtype)


def emitted(space: spaces.Space) -> spaces.Space:
    """Returns the space of actions as a policy emits them, before any conversion.

    A policy counts choices from zero, whatever the `start` of the space, and samples
    unbounded floats, whatever the bounds and dtype of a `Box`. Rollouts and replay keep
    actions so; `kerasrl.envs.clip_actions` makes of them what environments took.

    Args:
        space: Action space of one environment, as for `space_to_config`.

    Returns:
        A space of the same structure. Every `Box` is unbounded and float32; `Discrete`
        and `MultiDiscrete` start at zero, in the space's dtype if it can count so far.

    Example:

    ```python
    emitted(gymnasium.spaces.Discrete(3, start=5))  # Discrete(3)
    emitted(gymnasium.spaces.Box(0, 255, (2,), np.uint8))  # Box(-inf, inf, (2,))
    ```
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, emitted(value)) for key, value in space.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([emitted(value) for value in space])
    if isinstance(space, spaces.Box):
        return spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    if isinstance(space, spaces.Discrete):
        dtype = _counting_dtype(space.dtype, space.n)
        # Not all releases of gymnasium take another dtype than the default.
        return spaces.Discrete(
            space.n, **({} if dtype is np.int64 else {"dtype": dtype})
        )
    if isinstance(space, spaces.MultiDiscrete):
        dtype = _counting_dtype(space.dtype, space.nvec.max(initial=1))
        return spaces.MultiDiscrete(space.nvec, dtype=dtype)
    return space


def _counting_dtype(dtype, count):
    """The dtype itself, or int64 if the last of `count` choices does not fit."""
    return dtype.type if np.iinfo(dtype).max >= count - 1 else np.int64


def samples(space: spaces.Space, batch_size: int, generator: Any) -> Any:
    """Returns a batch of random values of a space, of the magnitude of observations.

    Unlike `space.sample`, it leaves the space's own generator alone, and takes bounds
    that no observation comes near (of integers in the thousands of millions, of floats
    in the ten thousands) for none.

    Args:
        space: A space as for `space_to_config`.
        batch_size: Integer, size of the leading axis.
        generator: `numpy.random.Generator`.

    Returns:
        Tree of NumPy arrays as from `zeros`.

    Example:

    ```python
    samples(gymnasium.spaces.Discrete(3, start=1), 4, np.random.default_rng(0))
    ```
    """
    if isinstance(space, spaces.Dict):
        return {k: samples(v, batch_size, generator) for k, v in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(samples(value, batch_size, generator) for value in space)
    like = zeros(space, batch_size)
    low: Any
    high: Any
    if isinstance(space, spaces.Discrete):
        low = int(space.start)
        high = low + int(space.n) - 1
    elif isinstance(space, spaces.MultiDiscrete):
        # Not in the space's dtype, which one choice more may not fit.
        low = space.start.astype(np.int64)
        high = low + space.nvec.astype(np.int64) - 1
    elif isinstance(space, spaces.MultiBinary):
        low, high = 0, 1
    elif isinstance(space, spaces.Box) and like.dtype.kind == "f":
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        below, above = np.abs(low) > 1e4, np.abs(high) > 1e4
        value = generator.standard_normal(like.shape)
        value = np.where(below & ~above, high - np.abs(value), value)
        value = np.where(above & ~below, low + np.abs(value), value)
        width = np.where(below | above, 1.0, high - low)
        between = np.where(below, 0.0, low) + width * generator.random(like.shape)
        return np.where(below | above, value, between).astype(like.dtype)
    elif isinstance(space, spaces.Box):
        low, high = (np.asarray(b, np.float64) for b in (space.low, space.high))
        near = np.clip(0.0, low, high)
        low, high = np.maximum(low, near - 1e4), np.minimum(high, near + 1e4)
    else:
        raise ValueError(f"Received {space}, which no policy can observe.")
    low, high = (np.broadcast_to(b, like.shape).astype(np.int64) for b in (low, high))
    return generator.integers(low, high, endpoint=True).astype(like.dtype)


def leaves(space: spaces.Space) -> list[spaces.Space]:
    """Returns the spaces at the leaves of a nested space, in the order of a tree.

    Args:
        space: A space as for `space_to_config`.

    Returns:
        List of spaces, aligned with the leaves of observations as `optree` and
        `keras.tree` flatten them.

    Example:

    ```python
    leaves(gymnasium.spaces.Tuple([Discrete(2), Box(0, 1)]))  # [Discrete(2), Box]
    ```
    """
    return optree.tree_leaves(_space_tree(space))


def has_floats(space: spaces.Space) -> bool:
    """Whether a space has a floating-point part, which may be normalized.

    Example:

    ```python
    has_floats(gymnasium.spaces.Discrete(3))  # False
    ```
    """
    return any(
        isinstance(leaf, spaces.Box) and leaf.dtype.kind == "f"
        for leaf in leaves(space)
    )


def num_choices(space: spaces.Space) -> Any:
    """Returns how many choices there are in each entry of a leaf space.

    Args:
        space: A space without parts.

    Returns:
        Integer or array of them; `None` for a `Box`, whose entries are numbers.

    Example:

    ```python
    num_choices(gymnasium.spaces.Discrete(3))  # 3
    ```
    """
    if isinstance(space, spaces.Discrete):
        return space.n
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec
    return 2 if isinstance(space, spaces.MultiBinary) else None


def _space_tree(space):
    if isinstance(space, spaces.Dict):
        return {key: _space_tree(value) for key, value in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_space_tree(value) for value in space)
    return space


def _count_entries(config):
    """Entries of the arrays that a description stands for, before there are any."""
    shape = config.get("shape", ())
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"Received a space of shape {shape}.")
    inner = config.get("spaces", ())
    if config.get("type") == "Dict":
        inner = [value for _, value in inner]
    return math.prod(shape) + sum(map(_count_entries, inner))


def _bound_from_config(bound, shape, dtype):
    given = np.array(bound, np.float64 if dtype.kind == "f" else object)
    with np.errstate(all="ignore"):
        bound = np.array(bound, dtype)
    if not (bound == given).all():
        raise ValueError(f"Received bounds of a Box that no {dtype} has.")
    return np.full(shape, bound) if bound.ndim == 0 else bound.reshape(shape)


def _bound_to_config(bound):
    """One number if all entries are equal (images), else nested lists."""
    if bound.size and (bound == bound.flat[0]).all():
        return bound.flat[0].item()
    return bound.tolist()
