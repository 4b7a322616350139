"""Directions to move in, from the returns of weights that were moved at random."""

import numpy as np
from keras import ops

from kerasrl.losses.shapes import as_floats, check_rank, static_shape


def centered_ranks(returns):
    """Ranks of returns, from -0.5 for the lowest to 0.5 for the highest.

    Equal returns get the mean of the ranks that they take up: were they told apart by
    their order, a population of equal returns would still move the weights. Returns of
    float64 are compared as they are.

    Args:
        returns: Float `[...]`.

    Returns:
        Float `[...]`; 0 for a single return. An array if it got one.

    Example:

    ```python
    centered_ranks([[10.0, -5.0], [3.0, 8.0], [0.0, 0.0]])
    # [[0.5, -0.5], [0.1, 0.3], [-0.2, -0.2]]
    ```
    """
    library, cast = _library(returns)
    if library is np:
        dtype = np.float64 if returns.dtype == np.float64 else np.float32
        returns = returns.astype(dtype)
    else:
        (returns,) = as_floats(returns)
    flat = library.reshape(returns, (-1,))
    ordered = library.sort(flat)
    below = library.searchsorted(ordered, flat, side="left")
    up_to = library.searchsorted(ordered, flat, side="right")
    count = cast(library.size(flat), returns.dtype)
    ranks = (cast(below + up_to, returns.dtype) - 1.0) / 2.0
    centered = ranks / library.maximum(count - 1.0, 1.0) - 0.5
    centered = library.where(count > 1.0, centered, library.zeros_like(centered))
    return library.reshape(centered, library.shape(returns))


def evolution_weights(returns):
    """Weights of the directions of evolution strategies (Salimans et al., 2017).

    The sum of the directions with these weights is the way up:
    `sum((u_plus - u_minus) * direction) / (2 n)`, where `u` are centered ranks. It is
    not divided by the size of the perturbations, which the learning rate contains.

    Args:
        returns: Float `[n, 2]`, of weights moved along each of n directions, and
            against it.

    Returns:
        Float `[n]`.

    Raises:
        ValueError: There are not two returns for each direction.

    Example:

    ```python
    weights = evolution_weights([[10.0, -5.0], [3.0, 8.0], [0.0, 1.0]])
    weights @ directions  # [D]
    ```
    """
    _check_pairs(returns)
    ranks = centered_ranks(returns)
    library, cast = _library(ranks)
    count = cast(library.size(ranks), ranks.dtype)
    return (ranks[:, 0] - ranks[:, 1]) / library.maximum(count, 1.0)


def random_search_weights(returns, num_top):
    """Weights of the directions of augmented random search (Mania et al., 2018).

    Of the `num_top` directions with the best return on either side, the difference of
    the two returns, over `num_top` and over the standard deviation of all returns that
    are kept. Of directions that tie for the last place the first are kept. Equal
    returns have no deviation, and no weights.

    Args:
        returns: Float `[n, 2]`, as for `evolution_weights`.
        num_top: Integer, from 1 to n.

    Returns:
        Tuple of float `[n]`, and of the standard deviation, a scalar.

    Raises:
        ValueError: There are not two returns for each direction, or fewer directions
            than `num_top`.

    Example:

    ```python
    weights, deviation = random_search_weights([[10.0, 2.0], [3.0, 8.0]], num_top=2)
    ```
    """
    _check_pairs(returns)
    size = static_shape(returns)
    size = None if size is None else size[0]
    if num_top < 1 or (size is not None and num_top > size):
        raise ValueError(
            f"`num_top` must be from 1 to the number of directions. Received: "
            f"num_top={num_top}, returns of {size} directions."
        )
    (returns,) = as_floats(returns)
    # Where there are ties, the first come first.
    order = ops.argsort(-ops.max(returns, axis=1))
    top = ops.take(returns, order[:num_top], axis=0)
    deviation = ops.std(top)
    safe = ops.where(deviation > 0.0, deviation, ops.ones_like(deviation))
    differences = (returns[:, 0] - returns[:, 1]) / (num_top * safe)
    is_top = ops.argsort(order) < num_top
    return ops.where(is_top, differences, ops.zeros_like(differences)), deviation


def _check_pairs(returns):
    check_rank(2, returns=returns)
    shape = static_shape(returns)
    if shape is not None and shape[1] not in (None, 2):
        raise ValueError(
            "`returns` must be [n, 2]: along each of n directions, and against it. "
            f"Received: returns of shape {tuple(shape)}."
        )


def _library(returns):
    """NumPy for arrays: a few numbers take TensorFlow longer than a step in a game."""
    if isinstance(returns, np.ndarray):
        return np, np.asarray
    return ops, ops.cast
