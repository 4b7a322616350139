"""Means that leave out masked entries."""

from keras import ops

from kerasrl.losses.shapes import as_floats, check_same_shape

#: Values at or below it say that an action cannot be taken. Networks that mask actions
#: write -inf, the least float32 or -1e9; no return is as small.
IMPOSSIBLE = -5e8


def masked_mean(x, mask=None):
    """Mean of the entries that count.

    Without a mask this is exactly `keras.ops.mean(x)`. With one, entries of weight zero
    cannot reach the result or its gradient, even if they are infinite or NaN.

    Args:
        x: Float `[...]`.
        mask: Bool or float `[...]`, same shape: True or a weight for each entry that
            counts, False or 0 for one that does not. None counts all.

    Returns:
        Float scalar, `sum(mask * x) / sum(mask)`; 0 if nothing counts.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    masked_mean([1.0, 2.0, np.nan], mask=[True, True, False])  # 1.5
    ```
    """
    if mask is None:
        return ops.mean(x)
    check_same_shape(x=x, mask=mask)
    x, mask = as_floats(x, mask)
    x = ops.where(ops.equal(mask, 0), ops.zeros_like(x), x)
    total = ops.sum(mask)
    total = ops.where(ops.equal(total, 0), ops.ones_like(total), total)
    return ops.sum(x * mask) / total


def possible(*values):
    """Where values are returns, and not the mark of an action that cannot be taken.

    Args:
        *values: Floats `[...]`, all of the same shape; see `IMPOSSIBLE`.

    Returns:
        Bool `[...]`, true where all of them are returns.

    Example:

    ```python
    possible([1.0, -np.inf], [1.0, 1.0])  # [True, False]
    ```
    """
    found = [ops.greater(x, IMPOSSIBLE) for x in as_floats(*values)]
    both = found[0]
    for other in found[1:]:
        both = ops.logical_and(both, other)
    return both


def hide_masked(mask, *arrays):
    """Replaces masked entries by zero, before anything is computed from them.

    Masking the result is not enough: `0 * inf` in the backward pass is NaN.

    Args:
        mask: Bool or float `[...]`, zero where an entry is to be hidden, or None.
        *arrays: Tensors `[...]`; None stays None.

    Returns:
        List of the tensors with zeros where the mask is zero.

    Example:

    ```python
    log_probs, advantages = hide_masked(mask, log_probs, advantages)
    ```
    """
    if mask is None:
        return list(arrays)
    keep = ops.cast(mask, "bool")
    return [x if x is None else ops.where(keep, x, ops.zeros_like(x)) for x in arrays]
