"""Errors of steps that were just acted, from what the actor knew of their values."""

import numpy as np


def first_errors(rollout, rewards, values, next_values, n_step, gamma):
    """Computes the absolute n-step errors of the steps of a rollout.

    ```
    error_t = |r_t + gamma r_t+1 + ... + gamma^n next_values_t+n - values_t|
    ```

    with fewer rewards and no value behind the end of a task. So a learner whose
    weights, those of the target network included, are those that acted would say.

    Paper: Horgan et al. (2018), https://arxiv.org/abs/1803.00933.

    Args:
        rollout: A `kerasrl.rollouts.Rollout` `[T, B, ...]`.
        rewards: Float `[T, B]`, its rewards as they are learnt from.
        values: Float `[T, B]`, what the actor thought of the actions it took.
        next_values: Float `[T, B]`, what it thought of the best ones in their place.
        n_step: Integer, the largest number of rewards that are summed.
        gamma: Float, discount of one step.

    Returns:
        float64 `[T, B]`, NaN where there is no value to bootstrap from: where the
        episode was cut off, and in the last `n_step` steps.

    Example:

    ```python
    values = {name: rollout.extras[name] for name in ("values", "next_values")}
    errors = first_errors(rollout, rollout.rewards, **values, n_step=3, gamma=0.99)
    buffer.add(rollout, errors)
    ```
    """
    length = len(rewards)
    errors = np.full(np.shape(rewards), np.nan)
    targets = np.zeros(np.shape(rewards))
    goes_on = np.array(rollout.valid, bool)
    cut = rollout.truncated | ~rollout.valid
    for ahead in range(min(n_step, length)):
        # The steps that have one so far ahead of them in the rollout.
        rows, later = slice(None, length - ahead), slice(ahead, None)
        targets[rows] += np.where(goes_on[rows], gamma**ahead * rewards[later], 0.0)
        ends = goes_on[rows] & rollout.terminated[later]
        errors[rows] = np.where(ends, targets[rows] - values[rows], errors[rows])
        goes_on[rows] &= ~(rollout.terminated | cut)[later]
        goes_on[length - ahead :] = False
    rows, later = slice(None, max(0, length - n_step)), slice(n_step, None)
    known = goes_on[rows] & rollout.valid[later]
    targets[rows] += gamma**n_step * next_values[later]
    errors[rows] = np.where(known, targets[rows] - values[rows], errors[rows])
    return np.abs(errors)
