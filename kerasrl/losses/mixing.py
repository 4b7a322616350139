"""Values of teams from values of their members."""

from keras import ops

from kerasrl.losses.shapes import as_floats, check_rank


def monotonic_mix(values, first_weights, first_biases, second_weights, offset):
    """Mixes values of members so that none of them can lower that of the team.

    ```
    elu(values @ |first_weights| + first_biases) . |second_weights| + offset
    ```

    Whoever makes its own value greatest then makes that of the team greatest. Only
    weights pass through the absolute value. All but the values come of the state of the
    whole, by networks. QMIX, https://arxiv.org/abs/1803.11485.

    Args:
        values: Float `[..., n]`, of each member.
        first_weights: Float `[..., n, E]`.
        first_biases: Float `[..., E]`.
        second_weights: Float `[..., E]`.
        offset: Float `[...]`.

    Returns:
        Float `[...]`.

    Raises:
        ValueError: The shapes do not fit.

    Example:

    ```python
    monotonic_mix([2.0, 1.0], [[-1.0], [3.0]], [0.0], [-2.0], 0.5)  # 10.5
    ```
    """
    values, first_weights, first_biases, second_weights, offset = as_floats(
        values, first_weights, first_biases, second_weights, offset
    )
    check_rank(1, at_least=True, values=values)
    count, size = first_weights.shape[-2:]
    shapes = [tuple(x.shape[-1:]) for x in (values, first_biases, second_weights)]
    if shapes != [(count,), (size,), (size,)]:
        raise ValueError(
            f"Received first_weights [..., {count}, {size}] with values, first_biases "
            f"and second_weights that end in {shapes}. Expected [..., n, E] with "
            "[..., n], [..., E] and [..., E]."
        )
    hidden = ops.sum(values[..., None] * ops.abs(first_weights), axis=-2)
    hidden = ops.elu(hidden + first_biases)
    return ops.sum(hidden * ops.abs(second_weights), axis=-1) + offset


def sum_mix(values):
    """Adds up values of members, as in VDN, https://arxiv.org/abs/1706.05296.

    Args:
        values: Float `[..., n]`, of each member.

    Returns:
        Float `[...]`.

    Example:

    ```python
    sum_mix([2.0, 1.0])  # 3.0
    ```
    """
    (values,) = as_floats(values)
    check_rank(1, at_least=True, values=values)
    return ops.sum(values, axis=-1)
