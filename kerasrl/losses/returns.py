"""Returns: discounted sums of rewards, bootstrapped where experience stops."""

import operator

from keras import ops

from kerasrl.losses.recursion import (
    cut_before_fillers,
    linear_recursion,
    repeat_recursion,
    zero_fillers,
)
from kerasrl.losses.shapes import (
    as_floats,
    check_discount,
    check_number,
    check_rank,
    check_same_shape,
)


def discounted_returns(rewards, next_values, terminated, truncated, gamma, valid=None):
    """Discounted returns to the end of each episode.

    ```
    G_t = rewards_t + gamma * G_{t+1}           within an episode
    G_t = rewards_t                             at a termination
    G_t = rewards_t + gamma * next_values_t     at a truncation, and at the last step
    ```

    Args:
        rewards: Float `[T, ...]`. `rewards[t]` follows the action taken at step t.
        next_values: Float `[T, ...]`, value of the observation that step t led to,
            before any reset. Read only where an episode was cut off: zeros give the
            plain sum of the rewards that were seen.
        terminated: Bool `[T, ...]`, the episode reached a terminal state at step t.
        truncated: Bool `[T, ...]`, the episode was cut off at step t.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        valid: Bool `[T, ...]`, False for rows on which no action was taken (a vector
            environment that only resets, a worker that was lost); None if all count.
            The sum stops before such a row, with the value of the observation that
            it holds; its own result is 0.

    Returns:
        Float `[T, ...]`, no gradient flows through it.

    Raises:
        ValueError: Shapes differ, there is no time axis, or `gamma` is out of range.

    Example:

    ```python
    rewards, next_values = [1.0, 1.0, 1.0], [0.0, 9.0, 4.0]
    end, no = [False, True, False], [False, False, False]
    discounted_returns(rewards, next_values, end, no, gamma=0.5)  # [1.5, 1.0, 3.0]
    ```
    """
    step = _prepare(rewards, next_values, terminated, truncated, gamma, valid)
    returns = linear_recursion(step["reward_or_target"], step["discount"])
    return zero_fillers(returns, valid)


def n_step_returns(rewards, next_values, terminated, truncated, gamma, n, valid=None):
    """Discounted sum of `n` rewards plus the value of what follows them.

    ```
    G_t = sum_{k<m} gamma^k * rewards_{t+k} + gamma^m * next_values_{t+m-1}
    ```

    m is `n`, or less where the episode ends or the rollout stops before: after a
    termination there is no value, after a truncation or the last step there is. (Some
    replay buffers drop those shortened steps instead.) Sutton and Barto, chapter 7,
    http://incompleteideas.net/book/the-book-2nd.html.

    Args:
        rewards: Float `[T, ...]`. `rewards[t]` follows the action taken at step t.
        next_values: Float `[T, ...]`, value of the observation that step t led to,
            before any reset.
        terminated: Bool `[T, ...]`, the episode reached a terminal state at step t.
        truncated: Bool `[T, ...]`, the episode was cut off at step t.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        n: Int of at least 1, steps.
        valid: Bool `[T, ...]`, False for rows on which no action was taken (a vector
            environment that only resets, a worker that was lost); None if all count.
            The sum stops before such a row, with the value of the observation that
            it holds; its own result is 0.

    Returns:
        Float `[T, ...]`, no gradient flows through it.

    Raises:
        ValueError: Shapes differ, there is no time axis, `gamma` is out of range or `n`
            is not a positive int.

    Example:

    ```python
    rewards, next_values = [1.0, 1.0, 1.0], [8.0, 4.0, 2.0]
    no = [False, False, False]
    n_step_returns(rewards, next_values, no, no, gamma=0.5, n=2)  # [2.5, 2.0, 2.0]
    ```
    """
    try:
        steps = operator.index(n)
    except TypeError:
        steps = 0
    if steps < 1 or isinstance(n, bool):
        raise ValueError(
            f"`n` must be an int of at least 1 (steps). Received: n={n!r}."
        )
    step = _prepare(rewards, next_values, terminated, truncated, gamma, valid)
    returns = repeat_recursion(
        step["reward_or_target"], step["discount"], step["target"], steps - 1
    )
    return zero_fillers(returns, valid)


def lambda_returns(rewards, next_values, terminated, truncated, gamma, lam, valid=None):
    """Lambda returns: the exponentially weighted mean of all n-step returns.

    ```
    G_t = rewards_t + gamma * ((1 - lam) * next_values_t + lam * G_{t+1})
    ```

    within an episode; at its end, and at the last step, as in `discounted_returns`.
    `lam=0` is the one-step target, `lam=1` the discounted return. With V for
    `next_values` this is `gae(...) + values`. Sutton and Barto, chapter 12,
    http://incompleteideas.net/book/the-book-2nd.html.

    Args:
        rewards: Float `[T, ...]`. `rewards[t]` follows the action taken at step t.
        next_values: Float `[T, ...]`, value of the observation that step t led to,
            before any reset.
        terminated: Bool `[T, ...]`, the episode reached a terminal state at step t.
        truncated: Bool `[T, ...]`, the episode was cut off at step t.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        lam: Float in `[0, 1]`, weight of longer returns.
        valid: Bool `[T, ...]`, False for rows on which no action was taken (a vector
            environment that only resets, a worker that was lost); None if all count.
            The sum stops before such a row, with the value of the observation that
            it holds; its own result is 0.

    Returns:
        Float `[T, ...]`, no gradient flows through it.

    Raises:
        ValueError: Shapes differ, there is no time axis, or `gamma` or `lam` is out of
            range.

    Example:

    ```python
    rewards, next_values, no = [1.0, 1.0], [2.0, 4.0], [False, False]
    lambda_returns(rewards, next_values, no, no, gamma=0.5, lam=0.5)  # [2.25, 3.0]
    ```
    """
    check_number("lam", lam, 0.0, 1.0)
    check_rank(0, lam=lam)
    step = _prepare(rewards, next_values, terminated, truncated, gamma, valid)
    target, sample = step["target"], step["reward_or_target"]
    (_, lam) = as_floats(target, lam)
    lam = ops.stop_gradient(lam)
    returns = linear_recursion(
        ops.where(step["cut"], target, (1 - lam) * target + lam * sample),
        lam * step["discount"],
    )
    return zero_fillers(returns, valid)


def _prepare(rewards, next_values, terminated, truncated, gamma, valid):
    """Splits each step into what is known at once and the weight of what follows."""
    check_same_shape(
        rewards=rewards,
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
    )
    check_rank(1, at_least=True, rewards=rewards)
    check_discount(gamma, rewards)
    next_values, rewards, gamma = (
        ops.stop_gradient(x) for x in as_floats(next_values, rewards, gamma)
    )
    terminated = ops.cast(terminated, "bool")
    ended = ops.logical_or(terminated, cut_before_fillers(truncated, valid))
    # Nothing follows the last step either: there the value stands for the future.
    cut = ops.concatenate([ended[:-1], ops.ones_like(ended[-1:])], axis=0)
    zeros = ops.zeros_like(rewards)
    target = rewards + ops.where(terminated, zeros, gamma * next_values)
    return {
        "cut": cut,
        "target": target,
        "reward_or_target": ops.where(cut, target, rewards),
        "discount": ops.where(cut, zeros, zeros + gamma),
    }
