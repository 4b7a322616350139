"""Distributional Q-learning with probabilities on fixed returns (C51)."""

import numpy as np
from keras import ops

from kerasrl.losses.q_learning import weighted_mean
from kerasrl.losses.reductions import hide_masked, masked_mean
from kerasrl.losses.shapes import (
    as_floats,
    check_rank,
    check_same_shape,
    static_shape,
)

# Logarithm of the probability of what a network calls impossible. The mean of losses of
# 1e38 would be infinite.
_LEAST_LOG_PROB = -1e6


def project_categorical(source_atoms, probabilities, atoms):
    """Moves probability from any returns onto fixed, evenly spaced ones.

    Each source atom gives its probability to the two atoms around it, the more the
    nearer they are; all of it to the first or last atom if it lies beyond them. Of all
    distributions on `atoms` the result is the nearest in the Cramer distance, and
    within their range it has the same mean. From C51,
    https://arxiv.org/abs/1707.06887.

    The target distribution of a step is the projection of
    `rewards[..., None] + discounts[..., None] * atoms` with the probabilities of the
    next observation's best action.

    Args:
        source_atoms: Float `[..., M]`, returns, in any order.
        probabilities: Float `[..., M]`, probability of each.
        atoms: Float `[Z]`, increasing and evenly spaced, at least 2. Checked if it is
            an array or a list; tensors are taken at their word.

    Returns:
        Float `[..., Z]`, probability of each atom.

    Raises:
        ValueError: The shapes differ, or `atoms` is not evenly spaced and increasing.

    Example:

    ```python
    project_categorical([1.2, 9.0], [0.5, 0.5], atoms=[0.0, 1.0, 2.0])
    # [0.0, 0.4, 0.6]
    ```
    """
    check_same_shape(source_atoms=source_atoms, probabilities=probabilities)
    check_rank(1, at_least=True, source_atoms=source_atoms)
    check_rank(1, atoms=atoms)
    _check_evenly_spaced(atoms)
    probabilities, source_atoms, atoms = as_floats(probabilities, source_atoms, atoms)
    numbers = ops.cast(ops.arange(ops.shape(atoms)[0]), atoms.dtype)
    # Positions counted in atoms: the two shares of a source atom then sum to 1.
    spacing = (atoms[-1] - atoms[0]) / numbers[-1]
    positions = ops.clip((source_atoms - atoms[0]) / spacing, 0, numbers[-1])
    # All pairs, [..., M, Z]. A scatter moves less but does not compile well.
    shares = ops.relu(1 - ops.abs(ops.expand_dims(positions, -1) - numbers))
    return ops.sum(ops.expand_dims(probabilities, -1) * shares, axis=-2)


def categorical_td_loss(logits, target_probabilities, weights=None, mask=None):
    """Mean cross-entropy of predicted and target distributions.

    ```
    loss = mean(weights * -sum_z target_probabilities_z * log_softmax(logits)_z)
    ```

    From C51, https://arxiv.org/abs/1707.06887. For priorities see
    `categorical_td_errors`.

    Args:
        logits: Float `[..., Z]`, of the actions taken, under the weights that are being
            trained. Log-probabilities count as at least -1e6, so that atoms which the
            network masks do not make the loss infinite.
        target_probabilities: Float `[..., Z]`, see `project_categorical`. No gradient
            flows through it.
        weights: Float `[...]`, importance of each entry; None is 1 for all.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the mean `"td_error"`,
        without weights: see `categorical_td_errors`.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    loss, logs = categorical_td_loss([[0.0, 0.0]], [[1.0, 0.0]])  # 0.693
    ```
    """
    logits, targets = _prepare(logits, target_probabilities, weights, mask)
    losses = _cross_entropy(targets, _log_probs(logits))
    return weighted_mean(losses, weights, mask), {
        "td_error": masked_mean(_divergence(logits, targets), mask)
    }


def categorical_td_errors(logits, target_probabilities, mask=None):
    """Divergence of predicted from target distributions, one for each entry.

    ```
    KL(target || softmax(logits))
    ```

    The priorities of Rainbow, https://arxiv.org/abs/1710.02298. Its gradient is that of
    the cross-entropy, but it is 0 where there is nothing left to learn; the
    cross-entropy stays at the entropy of the target there, so that replay would prefer
    what is random over what is not known yet.

    Args:
        logits: Float `[..., Z]`, of the actions taken.
        target_probabilities: Float `[..., Z]`, see `project_categorical`.
        mask: Bool or float `[...]`, zero for entries that do not count, whose error is
            0; None counts all.

    Returns:
        Float `[...]`, in nats, not negative; no gradient flows through it.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    categorical_td_errors([[0.0, 0.0]], [[1.0, 0.0]])  # [0.693]
    categorical_td_errors([[0.0, 0.0]], [[0.5, 0.5]])  # [0.0]
    ```
    """
    return _divergence(*_prepare(logits, target_probabilities, None, mask))


def _prepare(logits, targets, weights, mask):
    check_same_shape(logits=logits, target_probabilities=targets)
    check_rank(1, at_least=True, logits=logits)
    logits, targets = as_floats(logits, targets)
    check_same_shape(**{"logits[..., 0]": logits[..., 0]}, weights=weights, mask=mask)
    mask = None if mask is None else ops.expand_dims(mask, -1)
    logits, targets = hide_masked(mask, logits, targets)
    return logits, ops.stop_gradient(targets)


def _log_probs(logits):
    log_probs = ops.log_softmax(logits, axis=-1)
    infinite = ops.isinf(log_probs)
    finite = ops.where(infinite, ops.full_like(log_probs, _LEAST_LOG_PROB), log_probs)
    # The slope stays that of the cross-entropy, softmax(logits) - targets.
    cut = _LEAST_LOG_PROB + (finite - ops.stop_gradient(finite))
    return ops.where(log_probs > _LEAST_LOG_PROB, log_probs, cut)


def _cross_entropy(targets, log_probs):
    # Atoms that the target leaves out may be impossible: 0 * -inf is NaN.
    terms = ops.where(
        ops.equal(targets, 0), ops.zeros_like(targets), targets * log_probs
    )
    return -ops.sum(terms, axis=-1)


def _divergence(logits, targets):
    ratio = ops.log(targets) - _log_probs(ops.stop_gradient(logits))
    return ops.relu(-_cross_entropy(targets, ratio))


def _check_evenly_spaced(atoms):
    size = static_shape(atoms)
    if size and size[0] is not None and size[0] < 2:
        raise ValueError(f"`atoms` must be at least 2 numbers. Received: {size[0]}.")
    if ops.is_tensor(atoms):
        return
    steps = np.diff(np.asarray(atoms, "float64"))
    if not (steps > 0).all() or np.ptp(steps) > 1e-3 * steps.mean():
        raise ValueError(
            "`atoms` must be increasing and evenly spaced. Received: "
            f"atoms={np.asarray(atoms)}. Make them by np.linspace(low, high, num)."
        )
