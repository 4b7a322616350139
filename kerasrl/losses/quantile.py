"""Distributional Q-learning with quantiles of the return (QR-DQN, IQN)."""

from keras import ops

from kerasrl.losses.q_learning import huber, weighted_mean
from kerasrl.losses.reductions import hide_masked, masked_mean, possible
from kerasrl.losses.shapes import (
    as_floats,
    check_number,
    check_rank,
    check_same_shape,
)


def quantile_huber_loss(
    quantiles, targets, taus=None, kappa=1.0, weights=None, mask=None
):
    """Quantile regression with the Huber function.

    ```
    u_ij = targets_j - quantiles_i
    loss = mean(weights * sum_i mean_j |taus_i - (u_ij < 0)| * huber(u_ij, kappa))
    ```

    The sum is over the predicted quantiles and the mean over the targets, as in QR-DQN,
    https://arxiv.org/abs/1710.10044, and IQN, https://arxiv.org/abs/1806.06923.
    (TQC takes the mean over both: a loss M times as small.) The Huber function is not
    divided by `kappa`, as in QR-DQN's paper; IQN's divides it, which matters for
    `kappa` other than 1 only. For priorities see `quantile_td_errors`.

    Args:
        quantiles: Float `[..., M]`, of the actions taken, under the weights that are
            being trained. Nothing is learnt where one of them, or of the targets, says
            that the action could not be taken, see `td_loss`.
        targets: Float `[..., K]`, samples or quantiles of what they should be,
            `rewards[..., None] + discounts[..., None] * next_quantiles`. No gradient
            flows through it.
        taus: Float `[..., M]`, the fraction of returns that each quantile should
            exceed. None is the midpoints, `(i + 0.5) / M`.
        kappa: Float of at least 0, size of the errors beyond which the loss grows
            linearly; 0 is plain quantile regression, whose loss is linear everywhere.
        weights: Float `[...]`, importance of each entry; None is 1 for all.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the mean `"td_error"`,
        without weights: see `quantile_td_errors`.

    Raises:
        ValueError: The shapes do not go together or `kappa` is negative.

    Example:

    ```python
    loss, logs = quantile_huber_loss([[0.0, 1.0]], targets=[[3.0]])
    loss  # 0.25 * 2.5 + 0.75 * 1.5 = 1.75
    ```
    """
    check_number("kappa", kappa, 0.0)
    check_same_shape(quantiles=quantiles, taus=taus)
    quantiles, targets = _prepare(quantiles, targets, weights, mask)
    quantiles, taus = as_floats(quantiles, taus)
    errors = ops.expand_dims(targets, -2) - ops.expand_dims(quantiles, -1)
    sizes = ops.abs(errors) if kappa == 0 else huber(errors, kappa)
    sides = ops.abs(_column(taus, quantiles) - ops.cast(errors < 0, errors.dtype))
    losses = ops.sum(ops.mean(sides * sizes, axis=-1), axis=-1)
    return weighted_mean(losses, weights, mask), {
        "td_error": masked_mean(_mean_errors(quantiles, targets), mask)
    }


def quantile_td_errors(quantiles, targets, mask=None):
    """Absolute temporal-difference errors of the mean returns, one for each entry.

    ```
    |mean_j targets_j - mean_i quantiles_i|
    ```

    Priorities for replay, the same as those of DQN with Q the mean of the quantiles.
    (The loss itself makes a poor priority: it stays above 0 wherever returns are
    random, learned or not.)

    Args:
        quantiles: Float `[..., M]`, of the actions taken.
        targets: Float `[..., K]`, see `quantile_huber_loss`.
        mask: Bool or float `[...]`, zero for entries that do not count, whose error is
            0; None counts all.

    Returns:
        Float `[...]`, no gradient flows through it.

    Raises:
        ValueError: The shapes do not go together.

    Example:

    ```python
    quantile_td_errors([[0.0, 1.0]], targets=[[3.0]])  # [2.5]
    ```
    """
    return _mean_errors(*_prepare(quantiles, targets, None, mask))


def _prepare(quantiles, targets, weights, mask):
    check_rank(1, at_least=True, quantiles=quantiles, targets=targets)
    quantiles, targets = as_floats(quantiles, targets)
    check_same_shape(
        **{"quantiles[..., 0]": quantiles[..., 0], "targets[..., 0]": targets[..., 0]},
        weights=weights,
        mask=mask,
    )
    mask = None if mask is None else ops.expand_dims(mask, -1)
    quantiles, targets = hide_masked(mask, quantiles, targets)
    rows = [ops.all(possible(x), axis=-1, keepdims=True) for x in (quantiles, targets)]
    quantiles, targets = hide_masked(ops.logical_and(*rows), quantiles, targets)
    return quantiles, ops.stop_gradient(targets)


def _column(taus, quantiles):
    """Fractions `[..., M, 1]`, or `[M, 1]`."""
    if taus is None:
        count = ops.shape(quantiles)[-1]
        numbers = ops.cast(ops.arange(count), quantiles.dtype)
        taus = (numbers + 0.5) / ops.cast(count, quantiles.dtype)
    return ops.stop_gradient(ops.expand_dims(taus, -1))


def _mean_errors(quantiles, targets):
    errors = ops.mean(targets, axis=-1) - ops.mean(quantiles, axis=-1)
    return ops.stop_gradient(ops.abs(errors))
