"""Targets and priorities of stored sequences, for recurrent replay (R2D2)."""

from keras import ops

from kerasrl.losses.reductions import hide_masked
from kerasrl.losses.returns import n_step_returns
from kerasrl.losses.shapes import (
    as_floats,
    check_number,
    check_rank,
    check_same_shape,
)
from kerasrl.losses.value_rescaling import rescale, unrescale

# Far below any return, and still finite when it is unrescaled.
_LEAST = -1e15


def usable_rows(valid, terminated):
    """Returns which rows of sequences have a target, as `transformed_n_step_targets`.

    Args:
        valid, terminated: Bool `[T, ...]`.

    Returns:
        Bool `[T, ...]`: an action was taken, and what follows is in the sequence, or
        nothing does.

    Example:

    ```python
    no, yes = [False] * 3, [True] * 3
    usable_rows(yes, no)  # [True, True, False]
    ```
    """
    valid, terminated = ops.cast(valid, "bool"), ops.cast(terminated, "bool")
    has_next = ops.concatenate(
        [ops.ones_like(valid[:-1]), ops.zeros_like(valid[-1:])], axis=0
    )
    return ops.logical_and(valid, ops.logical_or(has_next, terminated))


def transformed_n_step_targets(
    values, rewards, terminated, truncated, valid, gamma, n, epsilon=1e-3
):
    """n-step targets along a sequence of rows, for values that are rescaled.

    ```
    targets_t = h(sum_{k<m} gamma^k * rewards_{t+k} + gamma^m * h^-1(values_{t+m}))
    ```

    h is `rescale`. m is `n`, or less where the episode or the sequence ends before:
    after a termination there is no value, after a truncation there is that of the
    final observation, and where the sequence stops there is that of its last row. From
    R2D2, https://openreview.net/forum?id=r1lyTjAqYX.

    A row is an observation with the action taken on it. After a step that ends an
    episode comes a row of the final observation, on which no action was taken
    (`valid` is False), and then the next episode begins. So the row after a step always
    holds the observation that the step led to. Wherever a valid row is followed by one
    that is not, experience is cut, whether or not `truncated` says so.

    Args:
        values: Float `[T, ...]`, rescaled value of every row, such as `greedy_values`
            of the target network's Q.
        rewards: Float `[T, ...]`, of the action taken on each row.
        terminated: Bool `[T, ...]`, that action reached a terminal state.
        truncated: Bool `[T, ...]`, the episode was cut off after that action.
        valid: Bool `[T, ...]`, an action was taken on this row. Nothing else but the
            value is read of rows where it is False.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        n: Int of at least 1, steps.
        epsilon: Float of at least 0, that of `rescale`; None for values that are not
            rescaled.

    Returns:
        Tuple of the targets, float `[T, ...]`, through which no gradient flows, and a
        mask, bool `[T, ...]`, of the rows that have one: those on which an action was
        taken and whose next observation is in the sequence or not needed. The targets
        of other rows are 0.

    Raises:
        ValueError: Shapes differ, there is no time axis, or `gamma`, `n` or `epsilon`
            is out of range.

    Example:

    ```python
    no, yes = [False] * 3, [True] * 3
    transformed_n_step_targets(
        [8.0, 4.0, 2.0], [1.0, 1.0, 1.0], no, no, yes, gamma=0.5, n=2, epsilon=None
    )  # [2.0, 2.0, 0.0] and [True, True, False]
    ```
    """
    check_same_shape(
        values=values,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
    )
    check_rank(1, at_least=True, values=values)
    (values,) = as_floats(values)
    terminated, truncated, valid = (
        ops.cast(x, "bool") for x in (terminated, truncated, valid)
    )
    usable = usable_rows(valid, terminated)
    next_values = _next_row(values)
    # No action may be possible there. What follows stays finite, and impossible.
    next_values = ops.maximum(next_values, _LEAST)
    if epsilon is not None:
        next_values = unrescale(next_values, epsilon)
    # The sum also stops before a row that it cannot use.
    targets = n_step_returns(
        rewards, next_values, terminated, truncated, gamma, n, usable
    )
    if epsilon is not None:
        targets = rescale(targets, epsilon)
    return targets, usable


def sequence_priorities(errors, mask=None, eta=0.9):
    """Priority of each sequence: a mixture of its greatest and its mean error.

    ```
    eta * max_t errors_t + (1 - eta) * mean_t errors_t
    ```

    From R2D2, https://openreview.net/forum?id=r1lyTjAqYX: the mean alone is about the
    same for all long sequences.

    Args:
        errors: Float `[T, ...]`, absolute errors, such as `td_errors`.
        mask: Bool `[T, ...]`, False for rows that do not count; None counts all.
        eta: Float in `[0, 1]`, weight of the greatest error.

    Returns:
        Float `[...]`, no gradient flows through it; 0 for a sequence in which no row
        counts.

    Raises:
        ValueError: The shapes differ, there is no time axis, or `eta` is out of range.

    Example:

    ```python
    sequence_priorities([1.0, 2.0, 4.0, 0.5])  # 3.7875
    ```
    """
    check_same_shape(errors=errors, mask=mask)
    check_rank(1, at_least=True, errors=errors)
    check_number("eta", eta, 0.0, 1.0)
    errors, eta = as_floats(errors, eta)
    (errors,) = hide_masked(mask, errors)
    counts = ops.ones_like(errors) if mask is None else ops.cast(mask, "bool")
    count = ops.sum(ops.cast(counts, errors.dtype), axis=0)
    mean = ops.sum(errors, axis=0) / ops.maximum(count, ops.ones_like(count))
    return ops.stop_gradient(eta * ops.max(errors, axis=0) + (1 - eta) * mean)


def _next_row(x):
    return ops.concatenate([x[1:], ops.zeros_like(x[-1:])], axis=0)
