"""Curves of several seeds as one, with a band that says how sure it is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Quantiles of Student's distribution for 95 %, by degrees of freedom from 1.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.96

#: Steps and values of one seed.
Curve = tuple[Sequence[float], Sequence[float]]


class Band(NamedTuple):
    """The mean of several seeds, and where it is with a confidence of 95 %.

    Attributes:
        steps: float `[N]`, environment steps, increasing.
        mean: float `[N]`.
        low, high: float `[N]`, ends of the interval; NaN where there is one seed.
        seeds: int, how many there are.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def on_common_steps(
    curves: Sequence[Curve], points: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Values of several curves at the same steps, by straight lines between theirs.

    Where one has not begun or has ended, nothing is made up: the common steps are those
    that all have.

    Args:
        curves: sequence of pairs of steps and values, each of the same length from 1;
            steps may be in any order, and the last value counts where one is repeated.
        points: int from 1, at how many steps.

    Returns:
        tuple of steps `[points]` and values `[len(curves), points]`. One step alone if
        there is no more in common; none if there is nothing in common.

    Raises:
        ValueError: if there is no curve, or one is empty or uneven.

    Example:

    ```python
    steps, values = on_common_steps([([0, 10], [0, 1]), ([0, 20], [0, 4])], points=2)
    steps, values  # [0, 10], [[0, 1], [0, 2]]
    ```
    """
    if not curves:
        raise ValueError("Received no curve. Expected at least one.")
    cleaned = []
    for steps, values in curves:
        if len(steps) != len(values) or not len(steps):
            raise ValueError(
                f"Received a curve of {len(steps)} steps and {len(values)} values. "
                "Expected as many of both, at least one."
            )
        last = dict(zip(map(float, steps), map(float, values), strict=True))
        places = np.array(sorted(last))
        cleaned.append((places, np.array([last[place] for place in places])))
    start = max(places[0] for places, _ in cleaned)
    end = min(places[-1] for places, _ in cleaned)
    if end < start:
        return np.empty(0), np.empty((len(cleaned), 0))
    common = np.linspace(start, end, points) if end > start else np.array([start])
    return common, np.stack([np.interp(common, *each) for each in cleaned])


def band(curves: Sequence[Curve], points: int = 200) -> Band:
    """The mean of several seeds with its 95 % confidence interval.

    The interval is Student's, which is honest about few seeds: with two of them it is
    twelve times as wide as with ten.

    Args:
        curves: as for `on_common_steps`, one for each seed.
        points: int, likewise.

    Returns:
        `Band`.

    Raises:
        ValueError: as `on_common_steps`.

    Example:

    ```python
    band([([0, 10], [0, 1]), ([0, 10], [0, 3])], points=2).mean  # [0, 2]
    ```
    """
    steps, values = on_common_steps(curves, points)
    mean = values.mean(axis=0)
    half = half_width(values)
    return Band(steps, mean, mean - half, mean + half, len(curves))


def half_width(values: np.ndarray) -> np.ndarray:
    """Half of the 95 % confidence interval of means over the first axis; NaN of one.

    Args:
        values: float `[S, ...]`, one row for each of `S` seeds.

    Returns:
        float `[...]`.
    """
    count = len(values)
    if count < 2:
        return np.full(values.shape[1:], math.nan)
    factor = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else _NORMAL
    return factor * values.std(axis=0, ddof=1) / math.sqrt(count)
