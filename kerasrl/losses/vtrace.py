"""Learning from what an older policy acted: V-trace, and ratios between policies."""

import math

from keras import ops

from kerasrl.losses.policy_gradient import MAX_LOG_RATIO
from kerasrl.losses.recursion import (
    cut_before_fillers,
    linear_recursion,
    zero_fillers,
)
from kerasrl.losses.reductions import hide_masked, masked_mean
from kerasrl.losses.shapes import (
    as_floats,
    check_discount,
    check_number,
    check_rank,
    check_same_shape,
)


def vtrace(
    log_ratios,
    rewards,
    values,
    next_values,
    terminated,
    truncated,
    gamma,
    lam=1.0,
    clip_rho=1.0,
    clip_c=1.0,
    clip_pg=1.0,
    valid=None,
):
    """V-trace targets and advantages, https://arxiv.org/abs/1802.01561.

    ```
    ratio_t = exp(log_ratios_t)
    rho_t = min(clip_rho, ratio_t)    c_t = lam * min(clip_c, ratio_t)
    d_t = rewards_t + gamma * (1 - terminated_t) * next_values_t - values_t
    targets_t = values_t + rho_t * d_t + gamma * c_t * (targets_{t+1} - values_{t+1})
    advantages_t =
        min(clip_pg, ratio_t) * (d_t + gamma * lam * (targets_{t+1} - values_{t+1}))
    ```

    Both sums stop where the episode ended at t, where the experience ends, and before
    a row that is not valid: there the difference at t + 1 is 0, so that `next_values`
    is what follows. At a truncation that is the value of the episode's own last
    observation. If both flags are set, termination wins.

    On experience of the present policy, with all ratios 1, the advantages are those of
    `gae`, and with `lam=1` the targets are n-step returns. Where the ratios are 0 the
    targets are the values. Log-ratios beyond 20 in size are cut to 20.

    Args:
        log_ratios: Float `[T, ...]`, log-probability of each action under the policy
            that is being trained less that under the policy that acted.
        rewards: Float `[T, ...]`. `rewards[t]` follows the action taken at step t.
        values: Float `[T, ...]`, value of the observation that step t acted on, under
            the weights that are being trained.
        next_values: Float `[T, ...]`, value of the observation that step t led to,
            before any reset.
        terminated: Bool `[T, ...]`, the episode reached a terminal state at step t.
        truncated: Bool `[T, ...]`, the episode was cut off at step t.
        gamma: Float in `[0, 1]`, discount per step; or float `[T, ...]`, discount of
            what follows each step.
        lam: Float in `[0, 1]`, as in `gae`.
        clip_rho: Float of at least 0, bound of the ratios that weigh errors. It decides
            which policy's values are learnt: infinity for those of the policy that is
            being trained, less for a policy between the two.
        clip_c: Float of at least 0, bound of the ratios that carry errors back. It
            decides how fast.
        clip_pg: Float of at least 0, bound of the ratios that weigh advantages.
        valid: Bool `[T, ...]`, False for rows on which no action was taken; None if all
            count. Their own target and advantage are 0.

    Returns:
        Tuple of targets and advantages, float `[T, ...]`. No gradient flows through
        them.

    Raises:
        ValueError: Shapes differ, there is no time axis, or a number is out of range.

    Example:

    Two steps, the second half as probable as it was when it was acted.

    ```python
    no = [False, False]
    targets, advantages = vtrace(
        np.log([1.0, 0.5]), [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], no, no, gamma=1.0
    )
    targets, advantages  # [1.5, 0.5], [1.5, 0.5]
    ```
    """
    check_same_shape(
        log_ratios=log_ratios,
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
    clips = {"clip_rho": clip_rho, "clip_c": clip_c, "clip_pg": clip_pg}
    for name, clip in clips.items():
        check_number(name, clip, 0.0)
    check_rank(0, lam=lam, **clips)
    values, log_ratios, rewards, next_values, gamma, lam, *clips = (
        ops.stop_gradient(x)
        for x in as_floats(
            *(values, log_ratios, rewards, next_values, gamma, lam), *clips.values()
        )
    )
    (log_ratios,) = hide_masked(valid, log_ratios)
    ratios = ops.exp(_bounded(log_ratios))
    rho, c, pg = (ops.minimum(clip, ratios) for clip in clips)
    terminated = ops.cast(terminated, "bool")
    ended = ops.logical_or(terminated, cut_before_fillers(truncated, valid))
    zeros = ops.zeros_like(values)
    errors = rewards + ops.where(terminated, zeros, gamma * next_values) - values
    carried = ops.where(ended, zeros, zeros + gamma * lam)
    sums = linear_recursion(rho * errors, c * carried)
    later = ops.concatenate([sums[1:], zeros[:1]], axis=0)
    # What lies behind an end may be anything, also infinite.
    later = ops.where(ops.equal(carried, 0), zeros, carried * later)
    advantages = pg * (errors + later)
    return zero_fillers(values + sums, valid), zero_fillers(advantages, valid)


def ratio_metrics(log_ratios, clip=1.0, mask=None):
    """Says how far a policy is from the one that acted, by the ratios of actions.

    Args:
        log_ratios: Float `[...]`, log-probability of each action under the policy that
            is being trained less that under the policy that acted.
        clip: Float of at least 0, bound of the ratios.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Dict of float scalars: `"rho_mean"`, the mean ratio before clipping, about 1
        however far apart the policies are as long as both may do the same;
        `"rho_clipped_fraction"`, the fraction of ratios beyond `clip`; and
        `"approximate_kl"`, `mean(ratio - 1 - log(ratio))`, an estimate of KL(acted ||
        trained) in nats.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    ratio_metrics(np.log([0.5, 2.0]))["rho_clipped_fraction"]  # 0.5
    ```
    """
    check_same_shape(log_ratios=log_ratios, mask=mask)
    check_number("clip", clip, 0.0)
    log_ratios, clip = as_floats(log_ratios, clip)
    (log_ratios,) = hide_masked(mask, ops.stop_gradient(log_ratios))
    log_ratios = _bounded(log_ratios)
    ratios = ops.exp(log_ratios)
    beyond = ops.cast(ratios > clip, ratios.dtype)
    return {
        "rho_mean": masked_mean(ratios, mask),
        "rho_clipped_fraction": masked_mean(beyond, mask),
        "approximate_kl": masked_mean(ratios - 1 - log_ratios, mask),
    }


def surrogate_reference(target_log_probs, acting_log_probs, clip=2.0):
    """Log-probabilities that the clipped surrogate of asynchronous PPO compares with.

    Actions were acted by one policy, and the policy that is being trained is to stay
    near another, that of a target network. The ratio that the surrogate clips is

    ```
    min(acting / target, clip) * trained / acting
    ```

    which is `trained / target`, unless the action was far less probable to the target
    network than to the policy that acted. This returns the logarithm of what `trained`
    is divided by there. Given as `old_log_probs` of `clipped_surrogate`, it makes that
    the loss of RLlib's APPO.

    Args:
        target_log_probs: Float `[...]`, log-probability of each action under the target
            network.
        acting_log_probs: Float `[...]`, the same under the policy that acted.
        clip: Float above 0, bound of the ratio between them.

    Returns:
        Float `[...]`, no gradient flows through it.

    Raises:
        ValueError: The shapes differ or `clip` is not positive.

    Example:

    ```python
    reference = surrogate_reference(np.log([0.4]), np.log([0.5]))  # log(0.4)
    ```
    """
    check_same_shape(
        target_log_probs=target_log_probs, acting_log_probs=acting_log_probs
    )
    check_number("clip", clip, 0.0, exclusive=True)
    target_log_probs, acting_log_probs = as_floats(target_log_probs, acting_log_probs)
    reference = ops.maximum(target_log_probs, acting_log_probs - math.log(clip))
    return ops.stop_gradient(reference)


def _bounded(log_ratios):
    return ops.clip(log_ratios, -MAX_LOG_RATIO, MAX_LOG_RATIO)
