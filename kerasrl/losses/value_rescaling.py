"""An invertible squashing of values that takes the place of clipping rewards."""

from keras import ops

from kerasrl.losses.shapes import as_floats, check_number


def rescale(x, epsilon=1e-3):
    """Makes large values small, and leaves their order as it is.

    ```
    h(x) = sign(x) * (sqrt(|x| + 1) - 1) + epsilon * x
    ```

    Networks that learn `h(Q)` cope with returns of any size, and rewards need no
    clipping. From https://arxiv.org/abs/1805.11593, used by R2D2.

    Args:
        x: Float `[...]`, finite.
        epsilon: Float of at least 0, what remains of the slope far from zero. At 0 the
            inverse is not Lipschitz continuous.

    Returns:
        Float `[...]`, right to a few units in the last place, however small or large
        x is.

    Raises:
        ValueError: `epsilon` is negative.

    Example:

    ```python
    rescale([0.0, 3.0, -3.0])  # [0.0, 1.003, -1.003]
    ```
    """
    check_number("epsilon", epsilon, 0.0)
    x, epsilon = as_floats(x, epsilon)
    # sqrt(|x| + 1) - 1 = |x| / (sqrt(|x| + 1) + 1), which subtracts nothing.
    return x * (1 / (ops.sqrt(ops.abs(x) + 1) + 1) + epsilon)


def unrescale(x, epsilon=1e-3):
    """Inverse of `rescale`.

    ```
    h^-1(x) = sign(x) * (((sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1)
                          / (2 epsilon))^2 - 1)
    ```

    It is computed in a form that loses no digits to subtractions. Taken literally, in
    float32, the formula is off by up to 2e-4 below 1 and by 9e-3 below 100.

    Args:
        x: Float `[...]`, finite.
        epsilon: Float of at least 0, the one given to `rescale`.

    Returns:
        Float `[...]`. `unrescale(rescale(x))` is x to within `5e-7 * |x|`.

    Raises:
        ValueError: `epsilon` is negative.

    Example:

    ```python
    unrescale([0.0, 1.003, -1.003])  # [0.0, 3.0, -3.0]
    ```
    """
    check_number("epsilon", epsilon, 0.0)
    x, epsilon = as_floats(x, epsilon)
    # With u = sqrt(|h^-1| + 1) - 1 the definition reads
    # epsilon u^2 + (1 + 2 epsilon) u - |x| = 0, and |h^-1| = u (u + 2).
    b = 1 + 2 * epsilon
    u = 2 * x / (b + ops.sqrt(b * b + 4 * epsilon * ops.abs(x)))
    return u * (ops.abs(u) + 2)
