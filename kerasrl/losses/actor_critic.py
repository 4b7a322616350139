"""Actors that learn from a critic: deterministic ones, and soft actor-critic."""

from keras import ops

from kerasrl.losses.q_learning import td_errors, td_loss
from kerasrl.losses.reductions import hide_masked, masked_mean, possible
from kerasrl.losses.shapes import (
    as_floats,
    check_number,
    check_rank,
    check_same_shape,
)


def deterministic_policy_gradient(q_values, mask=None):
    """Loss of a deterministic actor: minus what the critic thinks of its actions.

    ```
    loss = -mean(Q(s, actor(s)))
    ```

    Differentiate it with respect to the actor's weights only. From
    https://arxiv.org/abs/1509.02971 (DDPG); TD3 uses it with the first of its critics.

    Args:
        q_values: Float `[...]`, Q of the actor's own actions. Gradients flow through it
            into the actions.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and an empty dict.

    Raises:
        ValueError: The shapes differ.

    Example:

    ```python
    loss, _ = deterministic_policy_gradient([1.0, 3.0])  # -2.0
    ```
    """
    check_same_shape(q_values=q_values, mask=mask)
    (q_values,) = as_floats(q_values)
    return -masked_mean(q_values, mask), {}


def soft_values(q_values, log_probs, temperature):
    """Values with an entropy bonus, from one action drawn in each observation.

    ```
    V = Q(s, a) - temperature * log pi(a | s),   a ~ pi(. | s)
    ```

    From soft actor-critic, https://arxiv.org/abs/1812.05905. `td_targets` makes targets
    of them; there the drawn action is that of the next observation, and Q the lesser
    of two target critics.

    Args:
        q_values: Float `[...]`, Q of the drawn actions.
        log_probs: Float `[...]`, their log-probability (or density), in nats.
        temperature: Float scalar of at least 0, what a nat of entropy is worth, in
            units of the return. No gradient flows through it.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes differ or `temperature` is negative.

    Example:

    ```python
    soft_values([1.0], log_probs=[-2.0], temperature=0.1)  # [1.2]
    ```
    """
    check_same_shape(q_values=q_values, log_probs=log_probs)
    q_values, log_probs, temperature = _with_temperature(
        q_values, log_probs, temperature
    )
    return q_values - temperature * log_probs


def discrete_soft_values(q_values, log_probs, temperature):
    """Values with an entropy bonus, the exact mean over all actions.

    ```
    V = sum_a pi(a | s) * (Q(s, a) - temperature * log pi(a | s))
    ```

    Soft actor-critic with discrete actions, https://arxiv.org/abs/1910.07207.

    Args:
        q_values: Float `[..., A]`, Q of every action.
        log_probs: Float `[..., A]`, log-probability of every action, in nats. Actions
            that either calls impossible (`IMPOSSIBLE`, or less) are left out; the mean
            is over the others.
        temperature: Float scalar of at least 0, what a nat of entropy is worth, in
            units of the return. No gradient flows through it.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes differ or `temperature` is negative.

    Example:

    ```python
    half = np.log([[0.5, 0.5]])
    discrete_soft_values([[1.0, 3.0]], half, temperature=0.1)  # [2.069]
    ```
    """
    check_same_shape(q_values=q_values, log_probs=log_probs)
    check_rank(1, at_least=True, q_values=q_values)
    q_values, log_probs, temperature = _with_temperature(
        q_values, log_probs, temperature
    )
    return _mean_over_actions(q_values, log_probs, temperature)


def soft_policy_loss(q_values, log_probs, temperature, mask=None):
    """Loss of soft actor-critic's policy: minus the mean soft value of its actions.

    ```
    loss = mean(temperature * log_probs - q_values)
    ```

    The actions must be reparameterized samples (`sample_and_log_prob`). Differentiate
    with respect to the policy's weights only. https://arxiv.org/abs/1812.05905

    Args:
        q_values: Float `[...]`, Q of actions drawn from the present policy, the lesser
            of two critics. Gradients flow through it into the actions.
        log_probs: Float `[...]`, log-density of these actions, in nats.
        temperature: Float scalar of at least 0. No gradient flows through it.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the `"entropy"`, the mean of
        `-log_probs`, in nats.

    Raises:
        ValueError: The shapes differ or `temperature` is negative.

    Example:

    ```python
    loss, logs = soft_policy_loss([1.0], [-2.0], temperature=0.1)  # -1.2
    ```
    """
    check_same_shape(q_values=q_values, log_probs=log_probs, mask=mask)
    q_values, log_probs, temperature = _with_temperature(
        q_values, log_probs, temperature
    )
    loss = -masked_mean(q_values - temperature * log_probs, mask)
    entropy = -masked_mean(ops.stop_gradient(log_probs), mask)
    return loss, {"entropy": entropy}


def discrete_soft_policy_loss(q_values, log_probs, temperature, mask=None):
    """Loss of soft actor-critic's policy over discrete actions.

    ```
    loss = mean(sum_a pi(a | s) * (temperature * log pi(a | s) - Q(s, a)))
    ```

    https://arxiv.org/abs/1910.07207

    Args:
        q_values: Float `[..., A]`, Q of every action, the lesser of two critics. No
            gradient flows through it.
        log_probs: Float `[..., A]`, log-probability of every action under the policy
            that is being trained, in nats. Actions that it, or Q, calls impossible
            are left out.
        temperature: Float scalar of at least 0. No gradient flows through it.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the mean `"entropy"` of the
        policy, in nats.

    Raises:
        ValueError: The shapes differ or `temperature` is negative.

    Example:

    ```python
    half = np.log([[0.5, 0.5]])
    loss, _ = discrete_soft_policy_loss([[1.0, 3.0]], half, 0.1)  # -2.069
    ```
    """
    check_same_shape(q_values=q_values, log_probs=log_probs)
    check_rank(1, at_least=True, q_values=q_values)
    q_values, log_probs, temperature = _with_temperature(
        q_values, log_probs, temperature
    )
    check_same_shape(**{"q_values[..., 0]": q_values[..., 0]}, mask=mask)
    rows = None if mask is None else ops.expand_dims(mask, -1)
    q_values, log_probs = hide_masked(rows, ops.stop_gradient(q_values), log_probs)
    loss = -masked_mean(_mean_over_actions(q_values, log_probs, temperature), mask)
    entropy = _mean_over_actions(
        ops.zeros_like(q_values), ops.stop_gradient(log_probs), 1.0
    )
    return loss, {"entropy": masked_mean(entropy, mask)}


def temperature_loss(log_temperature, entropies, target_entropy, mask=None):
    """Loss that adjusts soft actor-critic's temperature.

    ```
    loss = mean(log_temperature * (entropies - target_entropy))
    ```

    Its slope is `entropies - target_entropy`. Where the policy is less random than
    wanted the slope is negative, gradient descent raises the temperature, and entropy
    pays more; where it is more random, the temperature falls. In the notation of
    https://arxiv.org/abs/1812.05905, with `-log_probs` for `entropies`, it is
    `-log_temperature * (log_probs + target_entropy)`; the paper has the temperature
    itself in place of its logarithm, whose steps would shrink along with it.

    Args:
        log_temperature: Float scalar, the logarithm that is being trained.
        entropies: Float `[...]`, of the policy in each observation, in nats:
            `-log_probs` of drawn actions, or exact. No gradient flows through it.
        target_entropy: Float scalar, mean entropy wanted, in nats. Usually `-D` for D
            continuous numbers, of a density on `(-1, 1)`, or a fraction of `log(A)`
            for A discrete actions.
        mask: Bool or float `[...]`, zero for entries that do not count; None counts
            all.

    Returns:
        Tuple of the loss, a float scalar, and a dict with the `"temperature"`.

    Raises:
        ValueError: The shapes differ, or `log_temperature` or `target_entropy` is not a
            scalar.

    Example:

    ```python
    loss, logs = temperature_loss(0.5, [1.0, 2.0], target_entropy=3.0)  # -0.75
    ```
    """
    check_same_shape(entropies=entropies, mask=mask)
    check_rank(0, log_temperature=log_temperature, target_entropy=target_entropy)
    log_temperature, entropies, target_entropy = as_floats(
        log_temperature, entropies, target_entropy
    )
    excess = masked_mean(entropies, mask) - target_entropy
    loss = log_temperature * ops.stop_gradient(excess)
    return loss, {"temperature": ops.exp(ops.stop_gradient(log_temperature))}


def _with_temperature(q_values, log_probs, temperature):
    check_rank(0, temperature=temperature)
    check_number("temperature", temperature, 0.0)
    q_values, log_probs, temperature = as_floats(q_values, log_probs, temperature)
    return q_values, log_probs, ops.stop_gradient(temperature)


def _mean_over_actions(q_values, log_probs, temperature):
    taken, valued = possible(log_probs), possible(q_values)
    both = ops.logical_and(taken, valued)
    log_probs_or_zero, q_values = hide_masked(both, log_probs, q_values)
    probs = ops.exp(log_probs)
    mean = ops.sum(probs * (q_values - temperature * log_probs_or_zero), axis=-1)
    # Where Q leaves out what the policy would take, the mean is over the rest.
    rest = ops.sum(ops.where(both, probs, ops.zeros_like(probs)), axis=-1)
    whole = ops.logical_or(ops.all(valued, axis=-1), ops.equal(rest, 0))
    return mean / ops.where(whole, ops.ones_like(rest), rest)


def critics_loss(values, targets, weights=None, mask=None):
    """Half the mean squared errors of several critics, summed over them.

    ```
    loss = sum_c mean(weights * 0.5 * (values_c - targets)^2)
    ```

    Args:
        values: Float `[C, N]`, Q of the actions taken, of each of C critics.
        targets: Float `[N]`, what they should be, the same for all. No gradient flows
            through it.
        weights: Float `[N]`, importance of each sample; None is 1 for all.
        mask: Bool `[N]`, false for samples that do not count; None counts all.

    Returns:
        Tuple of the loss, a float scalar; a dict with the mean absolute `"td_error"`;
        and the absolute errors, float `[N]`, means over the critics, for priorities.

    Raises:
        ValueError: The shapes do not fit.

    Example:

    ```python
    critics_loss([[1.0], [3.0]], targets=[2.0])  # 1.0, {"td_error": 1.0}, [1.0]
    ```
    """
    check_rank(2, values=values)
    check_same_shape(**{"values[0]": values[0], "targets": targets, "weights": weights})
    values, targets, weights = as_floats(values, targets, weights)
    shape = ops.shape(values)
    targets = ops.broadcast_to(targets, shape)
    if weights is not None:
        weights = ops.broadcast_to(weights, shape)
    if mask is not None:
        mask = ops.broadcast_to(mask, shape)
    loss, metrics = td_loss(values, targets, weights, None, mask)
    errors = td_errors(values, targets, mask)
    return shape[0] * loss, metrics, ops.mean(errors, axis=0)
