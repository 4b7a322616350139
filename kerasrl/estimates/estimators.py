"""How well a policy would do, computed from what another one did: pure functions.

Arrays are `[n, T]`: n episodes, each filled up to T steps. Behind its last step an
episode has ratios of 1, and rewards and values of 0. A ratio is the probability (or
density) of the action that was taken, by the policy that is judged over that by which
it was taken. Products of ratios are computed as sums of logarithms, which many steps
make neither 0 nor infinite; with `are_logs` the ratios are given as such. Durations are
whole episodes: what would have come after a truncation is not counted.
"""

import numpy as np


def discounted_sums(rewards, gamma):
    """Discounted return of each episode.

    Args:
        rewards: Float `[n, T]`.
        gamma: Float in `[0, 1]`.

    Returns:
        Float64 `[n]`.
    """
    rewards = _array("rewards", rewards)
    return rewards @ np.power(float(gamma), np.arange(rewards.shape[1]))


def importance_sampling(ratios, rewards, gamma, are_logs=False):
    """The return of each episode times the product of all its ratios (IS).

    Args:
        ratios, rewards: Float `[n, T]`.
        gamma: Float in `[0, 1]`.
        are_logs: Whether `ratios` are logarithms of ratios.

    Returns:
        Float64 `[n]`, whose mean is the estimate.

    Raises:
        ValueError: Shapes differ.

    Example:

    ```python
    importance_sampling([[2.0, 0.5]], [[1.0, 1.0]], gamma=1.0)  # [2.0]
    ```
    """
    ratios, rewards = _arrays(ratios=ratios, rewards=rewards)
    products = np.exp(_logs(ratios, are_logs).sum(axis=1))
    return products * discounted_sums(rewards, gamma)


def weighted_importance_sampling(ratios, rewards, gamma, are_logs=False):
    """The mean of returns, weighed by the products of ratios (WIS).

    Biased, but consistent, and of far less variance than `importance_sampling`.

    Args:
        ratios, rewards, gamma, are_logs: As for `importance_sampling`.

    Returns:
        Float, the estimate; NaN if all weights are 0.
    """
    ratios, rewards = _arrays(ratios=ratios, rewards=rewards)
    weights = _shares(_logs(ratios, are_logs).sum(axis=1))
    return float(weights @ discounted_sums(rewards, gamma))


def per_decision_importance_sampling(ratios, rewards, gamma, are_logs=False):
    """Each reward times the product of the ratios until then (PDIS).

    Precup et al. (2000).

    Args:
        ratios, rewards, gamma, are_logs: As for `importance_sampling`.

    Returns:
        Float64 `[n]`, whose mean is the estimate.
    """
    ratios, rewards = _arrays(ratios=ratios, rewards=rewards)
    products = np.exp(np.cumsum(_logs(ratios, are_logs), axis=1))
    return discounted_sums(products * rewards, gamma)


def doubly_robust(ratios, rewards, q_values, values, gamma, are_logs=False):
    """What a model says, corrected by what happened (DR).

    ```
    X_t = V_t + ratio_t * (r_t + gamma * X_{t+1} - Q_t)
    ```

    Without bias if either ratios or values are exact. Jiang and Li (2016),
    https://arxiv.org/abs/1511.03722.

    Args:
        ratios, rewards, gamma, are_logs: As for `importance_sampling`.
        q_values: Float `[n, T]`, Q of the actions that were taken.
        values: Float `[n, T]`, V of the observations, of the policy that is judged.

    Returns:
        Float64 `[n]`, whose mean is the estimate.

    Raises:
        ValueError: Shapes differ.
    """
    ratios, rewards, q_values, values = _arrays(
        ratios=ratios, rewards=rewards, q_values=q_values, values=values
    )
    ratios = np.exp(ratios) if are_logs else ratios
    found = np.zeros(len(ratios))
    for t in range(ratios.shape[1] - 1, -1, -1):
        correction = rewards[:, t] + gamma * found - q_values[:, t]
        found = values[:, t] + ratios[:, t] * correction
    return found


def weighted_doubly_robust(ratios, rewards, q_values, values, gamma, are_logs=False):
    """As `doubly_robust`, with weights that sum to 1 over episodes (WDR).

    ```
    sum_t gamma^t sum_i (w_{i,t} (r_{i,t} - Q_{i,t}) + w_{i,t-1} V_{i,t})
    ```

    where w are the products of ratios over their sum, 1 / n before the first step.
    Episodes that have ended keep their last. Thomas and Brunskill (2016),
    https://arxiv.org/abs/1604.00923.

    Args:
        ratios, rewards, q_values, values, gamma, are_logs: As for `doubly_robust`.

    Returns:
        Float, the estimate; NaN if all weights are 0.
    """
    ratios, rewards, q_values, values = _arrays(
        ratios=ratios, rewards=rewards, q_values=q_values, values=values
    )
    weights = _shares(np.cumsum(_logs(ratios, are_logs), axis=1))
    before = np.full((len(ratios), 1), 1.0 / len(ratios))
    before = np.concatenate([before, weights[:, :-1]], axis=1)
    terms = weights * (rewards - q_values) + before * values
    return float(discounted_sums(terms, gamma).sum())


def effective_sample_size(ratios, are_logs=False):
    """How many episodes of the judged policy these are worth, from 0 to n.

    ```
    (sum c)^2 / sum c^2,  c the product of the ratios of an episode
    ```

    Args:
        ratios, are_logs: As for `importance_sampling`.

    Returns:
        Float.

    Example:

    ```python
    effective_sample_size([[1.0], [1.0], [0.0]])  # 2.0
    ```
    """
    weights = _shares(_logs(_array("ratios", ratios), are_logs).sum(axis=1))
    # They sum to 1, or are NaN where all are 0.
    return float(np.nan_to_num(1.0 / np.square(weights).sum()))


def bootstrap(function, num_episodes, num_samples=200, confidence=0.95, seed=0):
    """An interval of an estimate, from episodes that are drawn with replacement.

    Args:
        function: Of an integer array `[n]`, which episodes to take; returns a float.
        num_episodes: Integer, n.
        num_samples: Integer, how often they are drawn.
        confidence: Float in `(0, 1)`, the share of draws within the interval.
        seed: Integer.

    Returns:
        Tuple of floats, the lower and the upper end.

    Example:

    ```python
    returns = np.array([1.0, 2.0, 6.0])
    bootstrap(lambda chosen: returns[chosen].mean(), 3)
    ```
    """
    generator = np.random.default_rng(seed)
    draws = generator.integers(num_episodes, size=(num_samples, num_episodes))
    found = np.array([function(chosen) for chosen in draws])
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(found, [tail, 1.0 - tail])
    return float(low), float(high)


def _logs(ratios, are_logs):
    if are_logs:
        return ratios
    with np.errstate(divide="ignore"):  # A ratio of 0 is one, too.
        return np.log(ratios)


def _shares(logs):
    """What `exp(logs)` is of its sum over the first axis; NaN where that is 0."""
    with np.errstate(invalid="ignore"):
        weights = np.exp(logs - logs.max(axis=0))
    return weights / weights.sum(axis=0)


def _array(name, array):
    array = np.asarray(array, np.float64)
    if array.ndim != 2 or not len(array):
        raise ValueError(
            f"Received {name} of shape {array.shape}. Expected [n, T]: a row for each "
            "of at least one episode."
        )
    return array


def _arrays(**arrays):
    found = {name: _array(name, array) for name, array in arrays.items()}
    shapes = {name: array.shape for name, array in found.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Received arrays of different shapes: {shapes}. Expected [n, T], the same "
            "of all."
        )
    return found.values()
