"""Shape checks at the door of every loss.

`[N] - [N, 1]` broadcasts to `[N, N]` without a word, the most common silent bug of
reinforcement-learning code. The functions here make it an error.
"""

import keras
import numpy as np
from keras import ops


def static_shape(x):
    """Static shape of an array or tensor.

    Args:
        x: Array, tensor, number or nested list of numbers.

    Returns:
        Tuple with None for each unknown dimension, or None if the rank is unknown.

    Example:

    ```python
    static_shape(np.zeros((5, 2)))  # (5, 2)
    ```
    """
    shape = getattr(x, "shape", None)
    if shape is None:
        return np.shape(x)
    if getattr(shape, "rank", 0) is None:  # a TensorShape of unknown rank
        return None
    return tuple(shape)


def check_same_shape(**arrays):
    """Raises unless all arrays have the same shape.

    Used first in every public loss, so that nothing is ever broadcast by accident. Only
    static shapes are compared: an unknown dimension agrees with any size, an unknown
    rank with any shape.

    Args:
        **arrays: Arrays or tensors by name; None stands for an argument that was not
            given and is skipped.

    Raises:
        ValueError: Two shapes differ. The message names every array and its shape.

    Example:

    ```python
    check_same_shape(values=np.zeros(3), targets=np.zeros((3, 1)))  # ValueError
    ```
    """
    shapes = {k: static_shape(x) for k, x in arrays.items() if x is not None}
    merged = None
    for shape in shapes.values():
        if shape is None:
            continue
        if merged is None:
            merged = shape
        elif len(merged) != len(shape) or any(
            a is not None and b is not None and a != b
            for a, b in zip(merged, shape, strict=True)
        ):
            break
        else:
            merged = tuple(
                b if a is None else a for a, b in zip(merged, shape, strict=True)
            )
    else:
        return
    received = ", ".join(f"{k}: {_show(shape)}" for k, shape in shapes.items())
    names = ", ".join(f"`{k}`" for k in shapes)
    raise ValueError(
        f"{names} must all have the same shape. Received: {received}. Nothing is "
        "broadcast here; give each one the same dimensions (a trailing dimension of 1, "
        "as a Dense(1) layer makes, is removed with `x[..., 0]`)."
    )


def check_rank(rank, at_least=False, **arrays):
    """Raises unless every array has the given number of dimensions.

    Args:
        rank: Int, the expected number of dimensions.
        at_least: Bool, whether more dimensions are accepted too.
        **arrays: Arrays or tensors by name; None is skipped, and so is an unknown rank.

    Raises:
        ValueError: An array has another rank.

    Example:

    ```python
    check_rank(1, actions=np.zeros((3, 1)))  # ValueError
    ```
    """
    for name, x in arrays.items():
        shape = None if x is None else static_shape(x)
        if shape is None or len(shape) == rank or (at_least and len(shape) > rank):
            continue
        wanted = f"at least {rank}" if at_least else str(rank)
        fix = (
            f"Add {rank - len(shape)} leading dimension(s)."
            if len(shape) < rank
            else f"Remove {len(shape) - rank} dimension(s), perhaps by `x[..., 0]`."
        )
        raise ValueError(
            f"`{name}` must have {wanted} dimension(s). Received: {name} of shape "
            f"{_show(shape)}. {fix}"
        )


def check_number(name, value, low, high=None, exclusive=False):
    """Raises if a plain number lies outside its range; tensors are let through.

    Args:
        name: Str, name of the argument.
        value: Python or NumPy number, or a tensor (whose value may not be known yet).
        low, high: Floats, the accepted range; `high=None` is no upper limit.
        exclusive: Bool, whether `low` itself is refused.

    Raises:
        ValueError: The number is out of range or NaN.

    Example:

    ```python
    check_number("gamma", 1.5, 0.0, 1.0)  # ValueError
    ```
    """
    if not isinstance(value, int | float | np.number):
        return
    inside = value > low if exclusive else value >= low
    if inside and (high is None or value <= high):
        return
    bound = f"greater than {low}" if exclusive else f"at least {low}"
    if high is not None:
        bound += f" and at most {high}"
    raise ValueError(f"`{name}` must be {bound}. Received: {name}={value}.")


def check_discount(gamma, rewards):
    """Raises unless a discount is one number in `[0, 1]`, or one for every reward.

    Args:
        gamma: Float scalar, or float `[T, ...]`.
        rewards: Float `[T, ...]`.

    Raises:
        ValueError: `gamma` is a number out of range or an array of another shape.

    Example:

    ```python
    check_discount(np.full(3, 0.9), rewards=np.zeros((3, 2)))  # ValueError
    ```
    """
    check_number("gamma", gamma, 0.0, 1.0)
    if static_shape(gamma) != ():
        check_same_shape(rewards=rewards, gamma=gamma)


def as_floats(*arrays):
    """Converts arrays to tensors of one float dtype.

    The dtype is float64 if the first array is float64, else float32: half precision is
    widened because sums over time need the digits.

    Args:
        *arrays: Arrays, tensors or numbers; None stays None.

    Returns:
        List of tensors of the dtype of the first.

    Example:

    ```python
    values, rewards = as_floats(values, rewards)
    ```
    """
    first = ops.convert_to_tensor(arrays[0])
    double = keras.backend.standardize_dtype(first.dtype) == "float64"
    dtype = "float64" if double else "float32"
    return [x if x is None else _cast(x, dtype) for x in (first, *arrays[1:])]


def _cast(x, dtype):
    # keras.ops.cast takes Python floats through float32, whatever the dtype.
    if isinstance(x, bool | int | float | np.ndarray | np.generic):
        return ops.convert_to_tensor(np.asarray(x, dtype))
    return ops.cast(x, dtype)


def _show(shape):
    if shape is None:
        return "unknown"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
