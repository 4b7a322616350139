"""Priorities of sequences."""

import numpy as np


def sequence_priorities(absolute_td_errors, mask, eta=0.9):
    """Mixes the largest and the mean error of sequences.

    `p = eta * max_t |error_t| + (1 - eta) * mean_t |error_t|`, R2D2,
    https://openreview.net/forum?id=r1lyTjAqYX.

    Args:
        absolute_td_errors: Float array `[..., L]`, not negative where `mask`.
        mask: bool `[..., L]`, the steps that count: valid ones behind the burn-in.
        eta: Float in `[0, 1]`.

    Returns:
        float64 `[...]`, 0 for a sequence of which no step counts.

    Raises:
        ValueError: The shapes differ or `eta` is out of range.

    Example:

    ```python
    sequence_priorities([[1.0, 2.0, 4.0, 0.5]], np.ones((1, 4), bool))  # [3.7875]
    ```
    """
    errors, mask = np.asarray(absolute_td_errors, np.float64), np.asarray(mask)
    if errors.shape != mask.shape or not errors.ndim or mask.dtype != bool:
        raise ValueError(
            "`absolute_td_errors` and `mask` must have the same shape [..., L], and "
            f"`mask` the dtype bool. Received: shapes {errors.shape} and {mask.shape}, "
            f"mask of dtype {mask.dtype}."
        )
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must be from 0 to 1. Received: {eta!r}.")
    counted = np.where(mask, errors, 0.0)
    mean = counted.sum(axis=-1) / np.maximum(mask.sum(axis=-1), 1)
    return eta * counted.max(axis=-1, initial=0.0) + (1.0 - eta) * mean
