"""Advantages: how much better an action was than the policy's average."""

from keras import ops

from kerasrl.distribute.summing import sum_over_replicas
from kerasrl.losses.recursion import (
    cut_before_fillers,
    linear_recursion,
    zero_fillers,
)
from kerasrl.losses.reductions import hide_masked
from kerasrl.losses.shapes import (
    as_floats,
    check_discount,
    check_number,
    check_rank,
    check_same_shape,
)


def gae(rewards, values, next_values, terminated, truncated, gamma, lam, valid=None):
    """Generalized advantage estimation, https://arxiv.org/abs/1506.02438.

    ```
    A_t = d_t + gamma * lam * A_{t+1}   unless the episode ended at t
    d_t = rewards_t + gamma * (1 - terminated_t) * next_values_t - values_t
    ```

    Termination removes the bootstrap; termination and truncation both cut the sum. At a
    truncation `next_values` is the value of the episode's own last observation, not of
    the one after the reset. If both flags are set, termination wins.

    `lam=0` gives the one-step error, `lam=1` the discounted return minus the value.
    The targets for the value function are `gae(...) + values`.

    Args:
        rewards: Float `[T, ...]`. `rewards[t]` follows the action taken at step t.
        values: Float `[T, ...]`, value of the observation that step t acted on.
        next_values: Float `[T, ...]`, value of the observation that step t led to,
            before any reset.
        terminated: Bool `[T, ...]`, the episode reached a terminal state at step t.
        truncated: Bool `[T, ...]`, the episode was cut off at step t, by a time limit
            for instance.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        lam: Float in `[0, 1]`, trades variance (1) against bias (0).
        valid: Bool `[T, ...]`, False for rows on which no action was taken (a vector
            environment that only resets, a worker that was lost); None if all count.
            The sum stops before such a row, with the value of the observation that
            it holds; its own advantage is 0.

    Returns:
        Float `[T, ...]`, no gradient flows through it.

    Raises:
        ValueError: Shapes differ, there is no time axis, or `gamma` or `lam` is out of
            range.

    Example:

    Three steps, the last one terminal: errors 1, 1 and 0, summed with weight 0.5.

    ```python
    rewards, values, next_values = [1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 9.0]
    no, end = [False, False, False], [False, False, True]
    gae(rewards, values, next_values, end, no, gamma=1.0, lam=0.5)  # [1.5, 1.0, 0.0]
    ```
    """
    check_same_shape(
        rewards=rewards,
        values=values,
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
    )
    check_rank(1, at_least=True, rewards=rewards)
    check_discount(gamma, rewards)
    check_number("lam", lam, 0.0, 1.0)
    check_rank(0, lam=lam)
    values, rewards, next_values, gamma, lam = (
        ops.stop_gradient(x)
        for x in as_floats(values, rewards, next_values, gamma, lam)
    )
    terminated = ops.cast(terminated, "bool")
    ended = ops.logical_or(terminated, cut_before_fillers(truncated, valid))
    zeros = ops.zeros_like(values)
    errors = rewards + ops.where(terminated, zeros, gamma * next_values) - values
    sums = linear_recursion(errors, ops.where(ended, zeros, zeros + gamma * lam))
    return zero_fillers(sums, valid)


def standardize(x, mask=None, epsilon=1e-8):
    """Shifts and scales to mean 0 and standard deviation 1.

    The deviation is the sample's (divided by `n - 1`), as in PyTorch and
    Stable-Baselines3. A single entry, or equal entries, become 0. With replicas that
    train together, mean and deviation are those of all their entries.

    Args:
        x: Float `[...]`.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all. Entries that do not count become 0.
        epsilon: Float, added to the standard deviation.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    standardize([1.0, 2.0, 3.0])  # [-1.0, 0.0, 1.0]
    ```
    """
    check_same_shape(x=x, mask=mask)
    (x,) = as_floats(x)
    keep = ops.ones_like(x) if mask is None else ops.cast(mask, "bool")
    keep = ops.cast(keep, x.dtype)
    (x,) = hide_masked(mask, x)
    count = ops.maximum(sum_over_replicas(ops.sum(keep)), 1)
    centred = (x - sum_over_replicas(ops.sum(x)) / count) * keep
    # Again, because rounding left a remainder that equal entries would scale up to 1.
    centred = (centred - sum_over_replicas(ops.sum(centred)) / count) * keep
    squares = sum_over_replicas(ops.sum(ops.square(centred)))
    variance = squares / ops.maximum(count - 1, 1)
    # The square root's slope at 0 is infinite; there the result is 0 anyway.
    constant = ops.equal(variance, 0)
    deviation = ops.sqrt(ops.where(constant, ops.ones_like(variance), variance))
    return centred / (deviation + epsilon)
