"""Weight initializers of reinforcement learning that Keras lacks."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasrl")
class Normc(keras.initializers.Initializer):
    """Normal initializer whose columns are scaled to a given norm.

    Every column of the kernel (the incoming weights of one unit) is drawn from a
    standard normal distribution and divided by its Euclidean norm. A small `scale`
    on an output layer makes the first policy nearly uniform.

    Args:
        scale: Float, the norm of every column.
        seed: Integer or `None`, as in `keras.initializers`.

    Example:

    ```python
    kernel = kerasrl.models.Normc(0.01)(shape=(64, 2))
    ```
    """

    def __init__(self, scale=1.0, seed=None):
        self.scale = scale
        self.seed = seed

    def __call__(self, shape, dtype=None):
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
        kernel = normal(shape, dtype=dtype)
        axes = tuple(range(len(shape) - 1))
        norm = ops.sqrt(ops.sum(ops.square(kernel), axis=axes, keepdims=True))
        return self.scale * kernel / norm

    def get_config(self):
        return {"scale": self.scale, "seed": self.seed}


def make_initializer(name, scale, seed=None):
    """Returns a fresh kernel initializer with a given output scale.

    Args:
        name: `"orthogonal"`, `"normc"`, `"fan_in_uniform"` (uniform within plus or
            minus one over the square root of the number of inputs, as in Lillicrap et
            al. 2016), or a `keras.initializers.Initializer`, which gets the seed if it
            has none.
        scale: Float, the gain (orthogonal) or column norm (normc). The others have
            a scale of their own.
        seed: Integer or `None`.

    Returns:
        A `keras.initializers.Initializer`.

    Raises:
        ValueError: `name` is none of these.

    Example:

    ```python
    layer = keras.layers.Dense(2, kernel_initializer=make_initializer("normc", 0.01))
    ```
    """
    if isinstance(name, keras.initializers.Initializer):
        config = name.get_config()
        if config.get("seed", 0) is not None:
            return name
        # A new one also without a seed: one object draws the same numbers every time.
        try:
            return type(name).from_config({**config, "seed": seed})
        except TypeError:  # Not everybody's `get_config` is whole.
            return name
    if name == "orthogonal":
        return keras.initializers.Orthogonal(gain=scale, seed=seed)
    if name == "normc":
        return Normc(scale, seed=seed)
    if name == "fan_in_uniform":
        # The variance of a uniform variable in +-1 / sqrt(n) is 1 / (3 n).
        return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed)
    raise ValueError(
        f"Received kernel_initializer={name!r}. Expected 'orthogonal', 'normc', "
        "'fan_in_uniform' or a keras.initializers.Initializer."
    )


def shift_seed(seed, offset):
    """Returns the seed of one of several initializers: `None` if there is none.

    Args:
        seed: Integer or `None`, the seed of all of them.
        offset: Integer, other for each.
    """
    return None if seed is None else seed + offset
