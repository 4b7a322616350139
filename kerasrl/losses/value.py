"""Losses and measures of a value function."""

from keras import ops

from kerasrl.losses.reductions import hide_masked, masked_mean
from kerasrl.losses.shapes import as_floats, check_number, check_same_shape


def value_loss(values, targets, old_values=None, clip=None, mask=None):
    """Mean squared error of the values, optionally clipped as in PPO2.

    ```
    loss = mean(max((V - targets)^2, (V_clipped - targets)^2))
    V_clipped = old_values + clip(V - old_values, -clip, clip)
    ```

    With `clip` a value that already moved by more than `clip` towards its target gets
    no further gradient. There is no factor of one half. From OpenAI Baselines' PPO2;
    whether it helps is doubtful, https://arxiv.org/abs/2006.05990.

    Args:
        values: Float `[...]`, V under the weights that are being trained.
        targets: Float `[...]`, what V should be. No gradient flows through it.
        old_values: Float `[...]`, V when the experience was collected. Has an effect
            only together with `clip`.
        clip: Float above 0, how far V may move, in units of the return. None does not
            clip.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict: with `clip`, the
        `"value_clip_fraction"` of entries that moved by more than `clip`; else empty.

    Raises:
        ValueError: The shapes differ, `clip` is not positive or is given without
            `old_values`.

    Example:

    ```python
    loss, _ = value_loss([1.0, 2.0], targets=[0.0, 2.0])  # 0.5
    ```
    """
    check_same_shape(values=values, targets=targets, old_values=old_values, mask=mask)
    values, targets, old_values, clip_value = _arguments(
        values, targets, old_values, clip
    )
    values, targets, old_values = hide_masked(mask, values, targets, old_values)
    targets = ops.stop_gradient(targets)
    error = ops.square(values - targets)
    if clip is None:
        return masked_mean(error, mask), {}
    old_values = ops.stop_gradient(old_values)
    change = values - old_values
    clipped = old_values + ops.clip(change, -clip_value, clip_value)
    error = ops.maximum(error, ops.square(clipped - targets))
    moved = ops.cast(ops.abs(ops.stop_gradient(change)) > clip_value, error.dtype)
    return masked_mean(error, mask), {"value_clip_fraction": masked_mean(moved, mask)}


def explained_variance(values, targets, mask=None):
    """Fraction of the targets' variance that the values predict.

    ```
    1 - Var(targets - values) / Var(targets)
    ```

    1 is a perfect prediction, 0 no better than a constant, negative worse than that.

    Args:
        values: Float `[...]`, predictions.
        targets: Float `[...]`, what came true.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Float scalar, at most 1. If the targets do not vary, there is nothing to
        explain and it is 0 (not NaN, which would spread to every mean over updates).

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    explained_variance([1.0, 2.0, 2.0], targets=[1.0, 2.0, 3.0])  # 0.667
    ```
    """
    check_same_shape(values=values, targets=targets, mask=mask)
    values, targets = as_floats(values, targets)
    values, targets = hide_masked(mask, values, targets)
    total = _variance(targets, mask)
    constant = ops.equal(total, 0)
    ratio = _variance(targets - values, mask) / ops.where(
        constant, ops.ones_like(total), total
    )
    return ops.where(constant, ops.zeros_like(total), 1 - ratio)


def _arguments(values, targets, old_values, clip):
    if clip is None:
        return as_floats(values, targets, old_values, None)
    if old_values is None:
        raise ValueError(
            f"`clip` limits how far values move from `old_values`. Received: "
            f"clip={clip!r}, old_values=None. Pass the values that were recorded when "
            "the experience was collected, or clip=None."
        )
    check_number("clip", clip, 0.0, exclusive=True)
    return as_floats(values, targets, old_values, clip)


def _variance(x, mask):
    return masked_mean(ops.square(x - masked_mean(x, mask)), mask)
