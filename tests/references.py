"""Definitions as the papers write them: float64, slow, no recursion.

Every sum over time is spelled out from each step to the end of its episode, so that
nothing here shares a shortcut (or a mistake) with the shipped code.
"""

import keras
import numpy as np
import tensorflow as tf


def steps_left(ended, t):
    """Number of steps from t to the end of its episode, or of the data, inclusive."""
    for u in range(t, len(ended)):
        if ended[u]:
            return u - t + 1
    return len(ended) - t


def until_filler(function):
    """The definition on each stretch of valid rows by itself; 0 where not valid.

    A filler has the observation that the row before led to, whose value is that row's
    `next_values`. Where a stretch stops, nothing else of what follows is looked at.
    """

    def stretches(*arrays, valid, **options):
        flat = [np.reshape(x, (len(valid), -1)) for x in (*arrays, valid)]
        result = np.zeros(flat[0].shape)
        for env in range(result.shape[1]):
            *columns, counts = (x[:, env] for x in flat)
            start = 0
            while start < len(counts):
                stop = start + 1
                while stop < len(counts) and counts[stop] == counts[start]:
                    stop += 1
                if counts[start]:
                    part = [column[start:stop] for column in columns]
                    result[start:stop, env] = function(*part, **options)
                start = stop
        return result.reshape(np.shape(valid))

    return stretches


def gae(rewards, values, next_values, terminated, truncated, gamma, lam):
    """A_t = sum_l (gamma lam)^l delta_{t+l}, over what is left of the episode.

    https://arxiv.org/abs/1506.02438, equation 16.
    """

    def column(rewards, values, next_values, terminated, truncated):
        delta = rewards + gamma * next_values * ~terminated - values
        return [
            sum(
                (gamma * lam) ** k * delta[t + k]
                for k in range(steps_left(terminated | truncated, t))
            )
            for t in range(len(rewards))
        ]

    return _each_column(column, rewards, values, next_values, terminated, truncated)


def n_step_returns(rewards, next_values, terminated, truncated, gamma, n):
    """sum_{k<m} gamma^k r_{t+k} + gamma^m V(s_{t+m}), m = min(n, what is left)."""

    def column(rewards, next_values, terminated, truncated):
        ended = terminated | truncated
        return [
            _n_step(
                rewards, next_values, terminated, gamma, t, min(n, steps_left(ended, t))
            )
            for t in range(len(rewards))
        ]

    return _each_column(column, rewards, next_values, terminated, truncated)


def discounted_returns(rewards, next_values, terminated, truncated, gamma):
    """The n-step return with n beyond every horizon."""
    return n_step_returns(
        rewards, next_values, terminated, truncated, gamma, len(rewards)
    )


def lambda_returns(rewards, next_values, terminated, truncated, gamma, lam):
    """(1 - lam) sum_{n<L} lam^(n-1) G^(n) + lam^(L-1) G^(L).

    Sutton and Barto, equation 12.3.
    """

    def column(rewards, next_values, terminated, truncated):
        results = []
        for t in range(len(rewards)):
            left = steps_left(terminated | truncated, t)
            n_step = [
                _n_step(rewards, next_values, terminated, gamma, t, n)
                for n in range(1, left + 1)
            ]
            total = sum((1 - lam) * lam**i * g for i, g in enumerate(n_step[:-1]))
            results.append(total + lam ** (left - 1) * n_step[-1])
        return results

    return _each_column(column, rewards, next_values, terminated, truncated)


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
):
    """Targets and advantages `[2, T, ...]`, as sums of products of ratios.

    https://arxiv.org/abs/1802.01561, equation 1 and section 4.2. With `lam` below 1,
    what follows a step is valued as a mixture of the target and the value, as RLax
    does: on-policy, that is GAE.
    """

    def column(log_ratios, rewards, values, next_values, terminated, truncated):
        ratios = np.exp(log_ratios)
        rho, c = np.minimum(ratios, clip_rho), lam * np.minimum(ratios, clip_c)
        delta = rewards + gamma * np.where(terminated, 0.0, next_values) - values
        targets, advantages = [], []
        for t in range(len(rewards)):
            total = 0.0
            for k in range(steps_left(terminated | truncated, t)):
                weight = np.prod(gamma * c[t : t + k])
                total += weight * rho[t + k] * delta[t + k]
            targets.append(values[t] + total)
        for t in range(len(rewards)):
            follows = 0.0 if terminated[t] else next_values[t]
            if steps_left(terminated | truncated, t) > 1:
                follows = lam * targets[t + 1] + (1 - lam) * values[t + 1]
            estimate = rewards[t] + gamma * follows
            advantages.append(min(ratios[t], clip_pg) * (estimate - values[t]))
        return targets, advantages

    arrays = log_ratios, rewards, values, next_values, terminated, truncated
    return np.stack(
        [
            _each_column(lambda *x, n=number: column(*x)[n], *arrays)
            for number in range(2)
        ]
    )


def _n_step(rewards, next_values, terminated, gamma, t, m):
    total = sum(gamma**k * rewards[t + k] for k in range(m))
    last = t + m - 1
    return total + (0.0 if terminated[last] else gamma**m * next_values[last])


def _each_column(function, *arrays):
    """Applies a function of `[T]` arrays to every column of `[T, ...]` arrays."""
    shape = np.shape(arrays[0])
    flat = []
    for x in arrays:
        x = np.asarray(x)
        x = x if x.dtype == bool else x.astype("float64")
        flat.append(x.reshape(shape[0], -1))
    columns = [function(*(x[:, i] for x in flat)) for i in range(flat[0].shape[1])]
    return np.array(columns, "float64").T.reshape(shape)


def clipped_surrogate(log_probs, old_log_probs, advantages, clip_ratio):
    """https://arxiv.org/abs/1707.06347, equation 7, one entry at a time."""
    total = 0.0
    for new, old, advantage in zip(
        np.ravel(log_probs), np.ravel(old_log_probs), np.ravel(advantages), strict=True
    ):
        ratio = np.exp(float(new) - float(old))
        clipped = min(max(ratio, 1 - clip_ratio), 1 + clip_ratio)
        total += min(ratio * advantage, clipped * advantage)
    return -total / np.size(log_probs)


def hostile_data(seed=0, steps=12, batch=(3,), dtype="float32"):
    """Experience built to hurt: every kind of ending, in mid-rollout and at its edge.

    V of the observation that ended an episode differs from V of the one that the next
    episode starts with, and from V of the observation before it. Between endings
    `next_values[t] == values[t + 1]`, as in real experience.

    Returns:
        Dict of `rewards, values, next_values, terminated, truncated`, `[T, ...]`.
    """
    generator = np.random.default_rng(seed)
    shape = (steps, *batch)
    kinds = generator.choice(4, size=shape, p=[0.7, 0.12, 0.12, 0.06])
    flat = kinds.reshape(steps, -1)
    if steps >= 12:
        flat[:, 0] = 0  # ends in mid-rollout, goes on at its edge
        flat[[2, 5, 8], 0] = [1, 2, 3]
        flat[-1, -1] = 2  # ends just where the rollout stops
    values = generator.normal(size=shape)
    next_values = 3.0 + generator.normal(size=shape)
    going_on = kinds[:-1] == 0
    next_values[:-1][going_on] = values[1:][going_on]
    return {
        "rewards": generator.normal(size=shape).astype(dtype),
        "values": values.astype(dtype),
        "next_values": next_values.astype(dtype),
        "terminated": (kinds == 1) | (kinds == 3),
        "truncated": (kinds == 2) | (kinds == 3),
    }


def check_gae(function):
    """Raises AssertionError unless a function computes GAE on hostile data."""
    for seed in range(3):
        data = hostile_data(seed)
        for gamma, lam in ((0.9, 0.8), (0.99, 0.95)):
            np.testing.assert_allclose(
                function(**data, gamma=gamma, lam=lam),
                gae(**data, gamma=gamma, lam=lam),
                rtol=1e-5,
                atol=1e-5,
            )


def everywhere(function, *arrays, rtol=1e-5, atol=1e-6):
    """Runs a function on NumPy arrays, in a tf.function, and compiled with XLA.

    Also with every dimension unknown to the tf.function. Checks that all agree.

    Returns:
        The result on NumPy arrays, its tensors as NumPy arrays.
    """
    results = [function(*arrays)]
    tensors = [tf.constant(x) for x in arrays]
    unknown = [tf.TensorSpec([None] * x.ndim, x.dtype) for x in tensors]
    for jit_compile in (False, True):
        for signature in (None, unknown):
            compiled = tf.function(
                function,
                jit_compile=jit_compile,
                autograph=False,
                input_signature=signature,
            )
            results.append(compiled(*tensors))
    results = [keras.tree.map_structure(np.asarray, x) for x in results]
    for other in results[1:]:
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
            results[0],
            other,
        )
    return results[0]


def gradient(function, x, atol=1e-6):
    """Gradient of the sum of `function(x)`, eagerly and under XLA (which must agree).

    None if x does not reach the result.
    """
    x = tf.constant(x)

    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(function(x))
        return tape.gradient(y, x)

    eager = differentiate(x)
    if eager is None:
        return None
    compiled = tf.function(differentiate, jit_compile=True, autograph=False)(x)
    np.testing.assert_allclose(eager, compiled, rtol=1e-4, atol=atol)
    return np.asarray(eager)
