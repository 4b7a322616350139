"""Several dense layers as one, for ensembles of critics."""

import keras
from keras import ops

from kerasrl import checks
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer


@keras.saving.register_keras_serializable("kerasrl")
class BatchedDense(Configured, keras.layers.Layer):
    """As many dense layers of equal size as there are members, in one product.

    Twin critics are two small networks of one shape; multiplied as one, they cost fewer
    and larger operations.

    Args:
        num_members: Integer `C`, number of layers.
        units: Integer, number of outputs of each.
        activation: Activation, anything Keras accepts.
        kernel_initializer: As in `MLP`, and `"fan_in_uniform"`. Each member draws a
            kernel of its own: a given initializer is copied with other seeds.
        gain: Float, the scale of the initializer; see `make_initializer`.
        seed: Integer or `None`, seed of the initializers.

    Input shape:
        `(batch_size, features)`, the same inputs for every member, or
        `(num_members, batch_size, features)`.

    Output shape:
        `(num_members, batch_size, units)`.

    Example:

    ```python
    layer = BatchedDense(2, 256, "relu")
    layer(np.zeros((32, 17))).shape  # (2, 32, 256)
    ```
    """

    def __init__(
        self,
        num_members,
        units,
        activation=None,
        kernel_initializer="fan_in_uniform",
        gain=1.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_members = num_members
        self.units = units
        self.activation = checks.named("activation", activation, keras.activations)
        self.kernel_initializer = kernel_initializer
        self.gain = gain
        self.seed = seed

    def build(self, input_shape):
        if len(input_shape) not in (2, 3) or (
            len(input_shape) == 3 and input_shape[0] != self.num_members
        ):
            raise ValueError(
                f"Received inputs of shape {tuple(input_shape)}. Expected (batch_size, "
                f"features) or ({self.num_members}, batch_size, features)."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_members, input_shape[-1], self.units),
            initializer=self._initial_kernels,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.num_members, self.units), initializer="zeros"
        )

    def call(self, inputs, members=None):
        """Runs the layers.

        Args:
            inputs: See "Input shape".
            members: Integer, to run only that many, the first; `None` for all.
        """
        kernel, bias = self.kernel[:members], self.bias[:members]
        # Inputs in common are repeated, not written as one wide product: transposing
        # what comes of that takes longer.
        return self.activation(ops.matmul(inputs, kernel) + bias[:, None])

    def compute_output_shape(self, input_shape):
        return (self.num_members, input_shape[-2], self.units)

    def _initial_kernels(self, shape, dtype=None):
        kernels = [
            make_initializer(
                reseed(self.kernel_initializer, member),
                self.gain,
                self._seed(member),
            )(shape[1:], dtype=dtype)
            for member in range(self.num_members)
        ]
        return ops.stack(kernels)


def reseed(initializer, offset):
    """Returns an initializer that draws other numbers than a given one.

    A Keras initializer draws the same numbers at every call. Critics that begin equal
    would stay equal.

    Args:
        initializer: A name or a `keras.initializers.Initializer`.
        offset: Integer, added to its seed.
    """
    if isinstance(initializer, str) or offset == 0:
        return initializer
    config = initializer.get_config()
    if config.get("seed") is None:
        return initializer
    return type(initializer).from_config({**config, "seed": config["seed"] + offset})
