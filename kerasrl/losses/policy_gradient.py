"""Losses that move a policy, and what keeps it from moving too far."""

import numbers

from keras import ops

from kerasrl.losses.reductions import hide_masked, masked_mean
from kerasrl.losses.shapes import as_floats, check_number, check_same_shape

# exp(20) is 5e8: no update means to go further, and its square is still a float32.
MAX_LOG_RATIO = 20.0


def policy_gradient(log_probs, advantages, mask=None):
    """Policy gradient (REINFORCE, advantage actor-critic).

    ```
    loss = -mean(log_probs * advantages)
    ```

    Its gradient is that of the expected return if the actions were drawn from the
    present policy. https://doi.org/10.1007/BF00992696

    Args:
        log_probs: Float `[...]`, log-probability of each action taken.
        advantages: Float `[...]`. No gradient flows through them.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and an empty dict.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    loss, _ = policy_gradient([-1.0, -2.0], advantages=[1.0, 0.5])  # 1.0
    ```
    """
    check_same_shape(log_probs=log_probs, advantages=advantages, mask=mask)
    log_probs, advantages = as_floats(log_probs, advantages)
    log_probs, advantages = hide_masked(mask, log_probs, advantages)
    return -masked_mean(log_probs * ops.stop_gradient(advantages), mask), {}


def clipped_surrogate(
    log_probs, old_log_probs, advantages, clip_ratio, mask=None, reciprocal=False
):
    """PPO's clipped surrogate objective, https://arxiv.org/abs/1707.06347.

    ```
    ratio = exp(log_probs - old_log_probs)
    loss = -mean(min(ratio * A, clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * A))
    ```

    Log-ratios beyond 20 in size are cut to 20 (a factor of 5e8), so that one action
    that became impossible, or certain, does not make the loss infinite.

    Args:
        log_probs: Float `[...]`, log-probability of each action under the policy that
            is being trained.
        old_log_probs: Float `[...]`, the same under the policy that acted.
        advantages: Float `[...]`. No gradient flows through these two.
        clip_ratio: Float above 0, how far from 1 the ratio is rewarded for going.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.
        reciprocal: Whether the lower end of the interval is `1 / (1 + clip_ratio)`, as
            far from 1 on a logarithmic scale as the upper end is; so in Sample Factory.

    Returns:
        Tuple of the loss, a float scalar, and a dict of float scalars:
        `"clip_fraction"`, the fraction of entries whose ratio lies outside of the
        interval, and `"approximate_kl"`, `mean(ratio - 1 - log(ratio))`, an
        estimate of KL(old || new) in nats (http://joschu.net/blog/kl-approx.html).

    Raises:
        ValueError: The shapes differ or `clip_ratio` is not positive.

    Example:

    ```python
    loss, logs = clipped_surrogate([0.0], [-1.0], advantages=[1.0], clip_ratio=0.2)
    loss  # -1.2: the ratio is 2.7, its reward ends at 1.2
    ```
    """
    check_same_shape(
        log_probs=log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        mask=mask,
    )
    check_number("clip_ratio", clip_ratio, 0.0, exclusive=True)
    log_probs, old_log_probs, advantages, clip_ratio = as_floats(
        log_probs, old_log_probs, advantages, clip_ratio
    )
    log_probs, old_log_probs, advantages = hide_masked(
        mask, log_probs, old_log_probs, advantages
    )
    advantages = ops.stop_gradient(advantages)
    log_ratio = ops.clip(
        log_probs - ops.stop_gradient(old_log_probs), -MAX_LOG_RATIO, MAX_LOG_RATIO
    )
    ratio = ops.exp(log_ratio)
    least = 1 / (1 + clip_ratio) if reciprocal else 1 - clip_ratio
    clipped_ratio = ops.clip(ratio, least, 1 + clip_ratio)
    objective = ops.minimum(ratio * advantages, clipped_ratio * advantages)
    ratio, log_ratio = ops.stop_gradient(ratio), ops.stop_gradient(log_ratio)
    outside = ops.abs(ratio - 1) > clip_ratio
    if reciprocal:
        outside = ops.logical_or(ratio < least, ratio > 1 + clip_ratio)
    outside = ops.cast(outside, ratio.dtype)
    return -masked_mean(objective, mask), {
        "clip_fraction": masked_mean(outside, mask),
        "approximate_kl": masked_mean(ratio - 1 - log_ratio, mask),
    }


def entropy_bonus(entropy, mask=None):
    """Loss that falls as the policy becomes more random.

    Args:
        entropy: Float `[...]`, entropy of each action distribution, in nats.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, minus the mean entropy, a float scalar, and a dict with the
        mean `"entropy"`.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    loss, logs = entropy_bonus([0.6, 0.4])  # -0.5, {"entropy": 0.5}
    ```
    """
    check_same_shape(entropy=entropy, mask=mask)
    (entropy,) = as_floats(entropy)
    mean = masked_mean(entropy, mask)
    return -mean, {"entropy": ops.stop_gradient(mean)}


def estimated_kl(log_probs, old_log_probs):
    """Divergence of a policy from the one that acted, from the actions it took.

    ```
    r - 1 - log r,   r = pi_new(a) / pi_old(a),   a ~ pi_old
    ```

    Its mean is KL(old || new), as its gradient's mean is that of KL(old || new): the
    mean of r is 1, whatever the new policy. It is never negative.
    http://joschu.net/blog/kl-approx.html

    Args:
        log_probs: Float `[...]`, log-probability of each action under the policy that
            is being trained.
        old_log_probs: Float `[...]`, the same under the policy that acted. No gradient
            flows through it.

    Returns:
        Float `[...]`, in nats.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    estimated_kl([-1.0], [-1.0])  # [0.0]
    ```
    """
    check_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    log_probs, old_log_probs = as_floats(log_probs, old_log_probs)
    log_ratio = ops.clip(
        log_probs - ops.stop_gradient(old_log_probs), -MAX_LOG_RATIO, MAX_LOG_RATIO
    )
    return ops.expm1(log_ratio) - log_ratio


def kl_penalty(kl, coefficient, mask=None):
    """Loss that holds the policy near another one, usually the one that acted.

    https://arxiv.org/abs/1707.06347, section 4; see also `adapt_kl_coefficient`.

    Args:
        kl: Float `[...]`, divergence of each action distribution from the other
            policy's, KL(old || new), in nats.
        coefficient: Float of at least 0, weight of the mean.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, `coefficient * mean(kl)`, a float scalar, and a dict with the
        mean `"kl"`.

    Raises:
        ValueError: The shapes differ or `coefficient` is negative.

    Example:

    ```python
    loss, logs = kl_penalty([0.01, 0.03], coefficient=0.5)  # 0.01, {"kl": 0.02}
    ```
    """
    check_same_shape(kl=kl, mask=mask)
    check_number("coefficient", coefficient, 0.0)
    kl, coefficient = as_floats(kl, coefficient)
    mean = masked_mean(kl, mask)
    return ops.stop_gradient(coefficient) * mean, {"kl": ops.stop_gradient(mean)}


def adapt_kl_coefficient(coefficient, kl, target):
    """Weight of the KL penalty for the next update, by RLlib's rule.

    Above twice the target it grows by half; below half the target it is halved; between
    them, and for a NaN divergence, it stays. (PPO's paper doubles and halves at 1.5
    times the target, TF-Agents multiplies and divides by 1.5.)

    Args:
        coefficient: Float of at least 0, the present weight.
        kl: Float scalar, mean divergence that the last update led to, in nats.
        target: Float above 0, divergence wanted per update, in nats.

    Returns:
        The new weight: a Python float if all arguments are numbers, else a scalar
        tensor.

    Raises:
        ValueError: `target` is not positive or `coefficient` is negative.

    Example:

    ```python
    adapt_kl_coefficient(0.2, kl=0.05, target=0.01)  # 0.3
    ```
    """
    check_number("coefficient", coefficient, 0.0)
    check_number("target", target, 0.0, exclusive=True)
    if all(isinstance(x, numbers.Real) for x in (coefficient, kl, target)):
        if kl > 2 * target:
            return float(coefficient * 1.5)
        if kl < 0.5 * target:
            return float(coefficient * 0.5)
        return float(coefficient)
    coefficient, kl, target = as_floats(coefficient, kl, target)
    lower = ops.where(kl < 0.5 * target, coefficient * 0.5, coefficient)
    return ops.where(kl > 2 * target, coefficient * 1.5, lower)
