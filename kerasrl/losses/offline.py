"""Losses of algorithms that learn from data that somebody else acted.

What such data does not show, values overestimate. Each of these losses keeps to the
actions of the data in its own way: by weighing them, by holding down the values of all
others, or by pulling the policy towards them.
"""

import math

from keras import ops

from kerasrl.losses.reductions import hide_masked, masked_mean
from kerasrl.losses.shapes import (
    as_floats,
    check_number,
    check_rank,
    check_same_shape,
)
from kerasrl.losses.value import value_loss

#: The greatest power of e by which an action is weighed in MARWIL.
MAX_EXPONENT = 20.0


def moving_square(square, advantages, rate, mask=None):
    """Moves the running mean of squared advantages, as MARWIL does for each batch.

    ```
    square + rate * (mean(advantages^2) - square)
    ```

    Args:
        square: Float scalar, the running mean so far.
        advantages: Float `[...]`. No gradient flows through it.
        rate: Float in `[0, 1]`, how far it moves.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all. Where nothing counts, nothing moves.

    Returns:
        Float scalar.

    Raises:
        ValueError: The shapes differ, or `rate` is out of range.

    Example:

    ```python
    moving_square(4.0, [1.0, -2.0, 0.5], rate=0.1)  # 3.775
    ```
    """
    check_same_shape(advantages=advantages, mask=mask)
    check_rank(0, square=square, rate=rate)
    check_number("rate", rate, 0.0, 1.0)
    advantages, square, rate = as_floats(advantages, square, rate)
    mean = masked_mean(ops.square(ops.stop_gradient(advantages)), mask)
    if mask is not None:
        counts = ops.sum(ops.cast(mask, mean.dtype))
        mean = ops.where(ops.equal(counts, 0), square, mean)
    return square + rate * (mean - square)


def exponential_weights(advantages, beta, square=None, max_weight=None):
    """Weights of actions that grow with how much better they were than expected.

    ```
    weights = min(exp(beta * advantages / sqrt(square)), max_weight)
    ```

    With `square` this is MARWIL's, Wang et al. (2018), whose exponent stops at 20; with
    `max_weight` that of advantage-weighted regression, https://arxiv.org/abs/1910.00177,
    and IQL.

    Args:
        advantages: Float `[...]`.
        beta: Float of at least 0; 0 weighs all actions alike.
        square: Float scalar, the running mean of squared advantages, or None for 1.
        max_weight: Float above 0, the greatest weight, or None.

    Returns:
        Float `[...]`; no gradient flows through it.

    Raises:
        ValueError: A number is out of range.

    Example:

    ```python
    exponential_weights([-1.0, 0.0, 2.0], beta=3.0, max_weight=100.0)
    # [0.0498, 1.0, 100.0]
    ```
    """
    check_rank(0, beta=beta, square=square, max_weight=max_weight)
    check_number("beta", beta, 0.0)
    if square is not None:
        check_number("square", square, 0.0)
    most = MAX_EXPONENT
    if max_weight is not None:
        check_number("max_weight", max_weight, 0.0, exclusive=True)
        most = math.log(max_weight)
    advantages, beta, square = as_floats(advantages, beta, square)
    exponents = beta * advantages
    if square is not None:
        exponents = exponents / (1e-8 + ops.sqrt(square))
    # Before the exponential: the gradient of what overflows is NaN.
    return ops.stop_gradient(ops.exp(ops.minimum(exponents, most)))


def weighted_imitation(log_probs, weights=None, mask=None):
    """Negative log-likelihood of the actions of the data, each with a weight.

    ```
    loss = -mean(weights * log_probs)
    ```

    Args:
        log_probs: Float `[...]`, log pi(a | s) of the actions of the data, in nats.
        weights: Float `[...]`, see `exponential_weights`, or None for 1 each, which is
            behaviour cloning. No gradient flows through it.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the mean `"log_likelihood"`
        of the data, in nats.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    weighted_imitation([-0.5, -1.5])  # 1.0, {"log_likelihood": -1.0}
    ```
    """
    check_same_shape(log_probs=log_probs, weights=weights, mask=mask)
    log_probs, weights = as_floats(log_probs, weights)
    log_probs, weights = hide_masked(mask, log_probs, weights)
    weighted = log_probs
    if weights is not None:
        weighted = ops.stop_gradient(weights) * log_probs
    likelihood = masked_mean(ops.stop_gradient(log_probs), mask)
    return -masked_mean(weighted, mask), {"log_likelihood": likelihood}


def marwil_loss(
    log_probs, values, returns, square, beta, value_coef=1.0, log_stds=None, mask=None
):
    """Loss of monotonic advantage re-weighted imitation learning.

    ```
    A = returns - values
    loss = -mean(exp(beta * A / sqrt(square)) * (log_probs + log_stds))
           + value_coef * 0.5 * mean(A^2)
    ```

    The weight is no part of the gradient. Wang et al. (2018),
    https://papers.nips.cc/paper/7866.

    Args:
        log_probs: Float `[...]`, log pi(a | s) of the actions of the data, in nats.
        values: Float `[...]`, V(s), to be trained.
        returns: Float `[...]`, discounted sums of rewards from there on.
        square: Float scalar, the running mean of squared advantages, see
            `moving_square`.
        beta: Float of at least 0; 0 is behaviour cloning.
        value_coef: Float, weight of the loss of values.
        log_stds: Float `[...]` to add to `log_probs`, or None: RLlib adds the
            `bc_logstd_coeff` times the sum of the logarithms of deviations.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict of `"policy_loss"`,
        `"value_loss"`, half the mean squared advantage, `"log_likelihood"` and the
        mean `"imitation_weight"`.

    Raises:
        ValueError: The shapes differ, or a number is out of range.

    Example:

    ```python
    marwil_loss([-0.5], [0.0], [1.0], square=1.0, beta=0.0)[0]  # 1.0
    ```
    """
    check_same_shape(
        log_probs=log_probs,
        values=values,
        returns=returns,
        log_stds=log_stds,
        mask=mask,
    )
    values, returns, log_probs, log_stds = as_floats(
        values, returns, log_probs, log_stds
    )
    values, returns, log_probs, log_stds = hide_masked(
        mask, values, returns, log_probs, log_stds
    )
    weights = exponential_weights(returns - values, beta, square)
    likelihood = log_probs if log_stds is None else log_probs + log_stds
    policy_loss, _ = weighted_imitation(likelihood, weights, mask)
    squared, _ = value_loss(values, returns, mask=mask)
    loss = policy_loss + value_coef * 0.5 * squared
    return loss, {
        "policy_loss": policy_loss,
        "value_loss": 0.5 * squared,
        "log_likelihood": masked_mean(ops.stop_gradient(log_probs), mask),
        "imitation_weight": masked_mean(weights, mask),
    }


def conservative_gap(q_values, taken_values, log_densities=None):
    """How far the values of all actions exceed those of the actions of the data.

    ```
    gap = log sum_k exp(Q_k - log_densities_k) - Q_taken
    ```

    The penalty of conservative Q-learning, CQL(H), Kumar et al. (2020),
    https://arxiv.org/abs/2006.04779. For discrete actions `q_values` are those of all
    of them. For continuous ones they are of some that were drawn, and the sum is an
    estimate of the integral of `exp(Q)` times their number.

    Args:
        q_values: Float `[..., K]`, Q of K actions. -inf for those that cannot be taken.
        taken_values: Float `[...]`, Q of the actions of the data.
        log_densities: Float `[..., K]`, logarithm of the density that each was drawn
            with, or None for 0. No gradient flows through it.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes do not fit.

    Example:

    ```python
    conservative_gap([[1.0, 2.0, 3.0]], taken_values=[1.0])  # [2.4076]
    ```
    """
    check_rank(1, at_least=True, q_values=q_values)
    check_same_shape(q_values=q_values, log_densities=log_densities)
    q_values, taken_values, log_densities = as_floats(
        q_values, taken_values, log_densities
    )
    check_same_shape(
        **{"q_values of one action": q_values[..., 0], "taken_values": taken_values}
    )
    if log_densities is not None:
        q_values = q_values - ops.stop_gradient(log_densities)
    return ops.logsumexp(q_values, axis=-1) - taken_values


def expectile_loss(values, targets, expectile, mask=None):
    """Squared errors, of which those below the target count more.

    ```
    u = targets - values
    loss = mean(|expectile - 1(u < 0)| * u^2)
    ```

    What is least is an expectile of the targets: 0.5 their mean, near 1 their greatest.
    That of implicit Q-learning, Kostrikov et al. (2021),
    https://arxiv.org/abs/2110.06169.

    Args:
        values: Float `[...]`, V(s), to be trained.
        targets: Float `[...]`, Q(s, a) of the actions of the data. No gradient flows
            through it.
        expectile: Float in `[0, 1]`.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Float scalar.

    Raises:
        ValueError: The shapes differ, or `expectile` is out of range.

    Example:

    ```python
    expectile_loss([0.0, 0.0], [1.0, -1.0], expectile=0.7)  # 0.5
    ```
    """
    check_same_shape(values=values, targets=targets, mask=mask)
    check_rank(0, expectile=expectile)
    check_number("expectile", expectile, 0.0, 1.0)
    values, targets, expectile = as_floats(values, targets, expectile)
    values, targets = hide_masked(mask, values, targets)
    errors = ops.stop_gradient(targets) - values
    weights = ops.where(errors < 0, 1.0 - expectile, expectile)
    return masked_mean(weights * ops.square(errors), mask)


def regularized_policy_loss(q_values, actions, data_actions, alpha, mask=None):
    """Loss of a deterministic policy that is pulled towards the actions of the data.

    ```
    scale = alpha / mean(|Q|)
    loss = -scale * mean(Q) + mean((actions - data_actions)^2)
    ```

    That of TD3+BC, Fujimoto and Gu (2021), https://arxiv.org/abs/2106.06860. The mean
    of squares is over samples and over all numbers of an action.

    Args:
        q_values: Float `[N]`, Q of `actions`. Gradients flow through it into them.
        actions: Float `[N, ...]` of the policy.
        data_actions: Float `[N, ...]` of the data.
        alpha: Float of at least 0; 0 is behaviour cloning.
        mask: Bool or float `[N]`, zero for samples that do not count; None counts all.

    Returns:
        Tuple of the loss, a float scalar, and a dict of `"imitation_error"`, that mean
        of squares, and the `"q_scale"`, of which no gradient flows.

    Raises:
        ValueError: The shapes differ, or `alpha` is negative.

    Example:

    ```python
    actions, data = [[0.1], [0.2], [0.3]], [[0.0], [0.5], [0.3]]
    regularized_policy_loss([10.0, -20.0, 30.0], actions, data, alpha=2.5)[0]  # -0.8
    ```
    """
    check_rank(1, q_values=q_values)
    check_same_shape(q_values=q_values, mask=mask)
    check_same_shape(actions=actions, data_actions=data_actions)
    check_rank(0, alpha=alpha)
    check_number("alpha", alpha, 0.0)
    q_values, actions, data_actions, alpha = as_floats(
        q_values, actions, data_actions, alpha
    )
    rows = (ops.shape(q_values)[0], -1)
    squares = ops.square(actions - data_actions)
    squares = ops.mean(ops.reshape(squares, rows), axis=-1)
    error = masked_mean(squares, mask)
    size = masked_mean(ops.abs(ops.stop_gradient(q_values)), mask)
    # Where all values are 0, there is no scale to speak of.
    scale = alpha / ops.maximum(size, 1e-8)
    loss = error - scale * masked_mean(q_values, mask)
    return loss, {"imitation_error": error, "q_scale": scale}
