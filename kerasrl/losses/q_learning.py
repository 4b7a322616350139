"""Q-learning: values of actions, their targets, and the loss between the two."""

from keras import ops

from kerasrl.losses.reductions import hide_masked, masked_mean, possible
from kerasrl.losses.shapes import (
    as_floats,
    check_number,
    check_rank,
    check_same_shape,
)


def select_actions(q_values, actions, axis=-1):
    """Values of the actions that were taken.

    Args:
        q_values: Float `[..., A]`, one value for each of A actions; with `axis=-2`
            `[..., A, Z]`, several for each, such as logits or quantiles.
        actions: Int `[...]`, counted from 0. Whether they lie within `0 .. A - 1` is
            not checked; the value of an action beyond that is 0.
        axis: Int, -1 or -2, the axis of the actions.

    Returns:
        Float `[...]`, `q_values[..., actions]`; or `[..., Z]`,
        `q_values[..., actions, :]`.

    Raises:
        ValueError: `actions` has not the shape of `q_values` up to its actions, or
            `axis` is another one.

    Example:

    ```python
    select_actions([[1.0, 2.0], [3.0, 4.0]], actions=[1, 0])  # [2.0, 3.0]
    select_actions([[[1.0, 2.0], [3.0, 4.0]]], actions=[1], axis=-2)  # [[3.0, 4.0]]
    ```
    """
    if axis not in (-1, -2):
        raise ValueError(f"`axis` must be -1 or -2. Received: axis={axis!r}.")
    check_rank(-axis, at_least=True, q_values=q_values)
    (q_values,) = as_floats(q_values)
    one_action = q_values[..., 0] if axis == -1 else q_values[..., 0, 0]
    check_same_shape(**{"actions": actions, "q_values of one action": one_action})
    # As in `Categorical.log_prob`: faster than take_along_axis, and 0 * inf is NaN.
    chosen = ops.one_hot(
        ops.cast(actions, "int32"), ops.shape(q_values)[axis], dtype="bool"
    )
    if axis == -2:
        chosen = ops.expand_dims(chosen, -1)
    return ops.sum(ops.where(chosen, q_values, ops.zeros_like(q_values)), axis=axis)


def greedy_values(q_values, selector_q_values=None):
    """Values of the best actions.

    The greatest value, as in Q-learning; or, with a selector, the value of the action
    that the selector holds for the best. In double Q-learning,
    https://arxiv.org/abs/1509.06461, the network that is being trained selects and the
    target network gives the value, so that noise is not mistaken for value.

    Args:
        q_values: Float `[..., A]`. Give actions that cannot be taken the value -inf,
            here and in the selector.
        selector_q_values: Float `[..., A]` or None. Of equal values the first is
            chosen.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    greedy_values([[1.0, 2.0]])  # [2.0]
    greedy_values([[1.0, 2.0]], selector_q_values=[[5.0, 4.0]])  # [1.0]
    ```
    """
    check_rank(1, at_least=True, q_values=q_values)
    check_same_shape(q_values=q_values, selector_q_values=selector_q_values)
    if selector_q_values is None:
        (q_values,) = as_floats(q_values)
        return ops.max(q_values, axis=-1)
    return select_actions(q_values, ops.argmax(selector_q_values, axis=-1))


def td_targets(rewards, discounts, next_values):
    """Temporal-difference targets.

    ```
    targets = rewards + discounts * next_values
    ```

    What the next value is makes the algorithm: of the action taken next (SARSA), the
    mean over the policy (expected SARSA), of the best action (Q-learning), of the
    actor's action (DDPG), with an entropy bonus (soft actor-critic).

    Args:
        rewards: Float `[...]`, reward of a step, or the discounted sum of several.
        discounts: Float `[...]`, discount of what follows: `gamma` to the power of the
            number of steps, 0 if the last of them terminated the episode. (A truncated
            episode would have gone on: its discount is not 0.)
        next_values: Float `[...]`, value of the observation after the last step, before
            any reset. Not looked at where the discount is 0.

    Returns:
        Float `[...]`, no gradient flows through it.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    td_targets([1.0, 1.0], discounts=[0.5, 0.0], next_values=[4.0, 4.0])  # [3.0, 1.0]
    ```
    """
    check_same_shape(rewards=rewards, discounts=discounts, next_values=next_values)
    next_values, rewards, discounts = as_floats(next_values, rewards, discounts)
    future = ops.where(
        ops.equal(discounts, 0), ops.zeros_like(next_values), discounts * next_values
    )
    return ops.stop_gradient(rewards + future)


def q_learning_targets(rewards, discounts, next_q_values, selector_q_values=None):
    """Targets of Q-learning, and of double Q-learning if there is a selector.

    ```
    targets = rewards + discounts * max_a next_q_values[a]
    targets = rewards + discounts * next_q_values[argmax_a selector_q_values[a]]
    ```

    Args:
        rewards: Float `[...]`, reward of a step, or the discounted sum of several.
        discounts: Float `[...]`, see `td_targets`.
        next_q_values: Float `[..., A]`, of the target network, in the observation after
            the last step, before any reset.
        selector_q_values: Float `[..., A]`, of the network that is being trained, in
            the same observation; or None. See `greedy_values`.

    Returns:
        Float `[...]`, no gradient flows through it.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    q_learning_targets([1.0], [0.9], [[2.0, 3.0]])  # [3.7]
    q_learning_targets([1.0], [0.9], [[2.0, 3.0]], [[1.0, 0.0]])  # [2.8]
    ```
    """
    return td_targets(
        rewards, discounts, greedy_values(next_q_values, selector_q_values)
    )


def huber(errors, delta=1.0):
    """Huber function: a parabola that goes on as a straight line.

    ```
    0.5 * errors^2                        within delta of zero
    delta * (|errors| - 0.5 * delta)      beyond
    ```

    Its slope is the error clipped to `[-delta, delta]`.

    Args:
        errors: Float `[...]`.
        delta: Float above 0, where the line begins. None is never: half the square.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: `delta` is not positive.

    Example:

    ```python
    huber([0.5, -3.0])  # [0.125, 2.5]
    huber([0.5, -3.0], delta=None)  # [0.125, 4.5]
    ```
    """
    if delta is None:
        (errors,) = as_floats(errors)
        return 0.5 * ops.square(errors)
    check_number("delta", delta, 0.0, exclusive=True)
    errors, delta = as_floats(errors, delta)
    clipped = ops.clip(errors, -delta, delta)
    return clipped * (errors - 0.5 * clipped)


def td_loss(values, targets, weights=None, delta=1.0, mask=None):
    """Mean Huber function of the temporal-difference errors.

    ```
    loss = mean(weights * huber(values - targets, delta))
    ```

    The mean is over the entries that count, whatever their weights sum to: importance
    weights below 1 make the step smaller, as prioritized replay means them to,
    https://arxiv.org/abs/1511.05952. For the new priorities see `td_errors`.

    Args:
        values: Float `[...]`, Q of the actions taken, under the weights that are being
            trained. Nothing is learnt where it, or the target, says that the action
            could not be taken (`IMPOSSIBLE`, or less): the error there is 0.
        targets: Float `[...]`, what they should be. No gradient flows through it.
        weights: Float `[...]`, importance of each entry; None is 1 for all.
        delta: Float above 0, size of the errors beyond which the loss grows linearly;
            None is half the squared error. See `huber`.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the mean absolute
        `"td_error"`, without weights.

    Raises:
        ValueError: The shapes differ or `delta` is not positive.

    Example:

    ```python
    loss, logs = td_loss([1.0, 5.0], targets=[2.0, 2.0])  # 1.5, {"td_error": 2.0}
    ```
    """
    check_same_shape(values=values, targets=targets, weights=weights, mask=mask)
    values, targets = as_floats(values, targets)
    values, targets = _comparable(values, targets, mask)
    errors = values - ops.stop_gradient(targets)
    size = ops.abs(ops.stop_gradient(errors))
    return weighted_mean(huber(errors, delta), weights, mask), {
        "td_error": masked_mean(size, mask)
    }


def td_errors(values, targets, mask=None):
    """Absolute temporal-difference errors, one for each entry.

    The priorities of prioritized replay, https://arxiv.org/abs/1511.05952.

    Args:
        values: Float `[...]`, Q of the actions taken.
        targets: Float `[...]`, what they should be.
        mask: Bool or float `[...]`, zero for entries that do not count, whose error is
            0; None counts all. Entries of impossible actions do not count either, see
            `td_loss`.

    Returns:
        Float `[...]`, no gradient flows through it.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    td_errors([1.0, 5.0], targets=[2.0, 2.0])  # [1.0, 3.0]
    ```
    """
    check_same_shape(values=values, targets=targets, mask=mask)
    values, targets = as_floats(values, targets)
    values, targets = _comparable(values, targets, mask)
    return ops.stop_gradient(ops.abs(values - targets))


def _comparable(values, targets, mask):
    """Values and targets, both 0 where there is no error to speak of."""
    values, targets = hide_masked(mask, values, targets)
    return hide_masked(possible(values, targets), values, targets)


def mean_value(values, mask=None):
    """Mean of the values of actions that are possible, to log.

    Args:
        values: Float `[...]`.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Float scalar, 0 if nothing counts; no gradient flows through it.

    Example:

    ```python
    mean_value([1.0, 3.0, -np.inf])  # 2.0
    ```
    """
    (values,) = as_floats(ops.stop_gradient(values))
    counts = ops.cast(possible(values), values.dtype)
    if mask is not None:
        counts = counts * ops.cast(mask, values.dtype)
    return masked_mean(values, counts)


def weighted_mean(losses, weights, mask):
    """Mean of weighted losses over the entries that count, whatever the weights sum to.

    Args:
        losses: Float `[...]`.
        weights: Float `[...]` or None. No gradient flows through it.
        mask: Bool or float `[...]` or None, as in `masked_mean`.

    Returns:
        Float scalar, `sum(mask * weights * losses) / sum(mask)`.

    Example:

    ```python
    weighted_mean([1.0, 3.0], weights=[0.5, 0.5], mask=None)  # 1.0
    ```
    """
    if weights is not None:
        losses, weights = as_floats(losses, weights)
        losses = ops.stop_gradient(weights) * losses
    return masked_mean(losses, mask)
