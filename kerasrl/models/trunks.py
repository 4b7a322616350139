"""Trunks: layers that turn an observation into a vector of features."""

import keras
from keras import ops

from kerasrl import checks
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer


@keras.saving.register_keras_serializable("kerasrl")
class MLP(Configured, keras.layers.Layer):
    """A stack of dense layers.

    Args:
        hidden_units: Sequence of integers, the width of each layer.
        activation: Activation of every layer, anything Keras accepts.
        kernel_initializer: `"orthogonal"` (gain sqrt 2), `"normc"` (columns of norm
            1), or a Keras initializer.
        seed: Integer or `None`, seed of the initializers.

    Input shape:
        `(batch_size, features)`.

    Output shape:
        `(batch_size, hidden_units[-1])`, or the input if `hidden_units` is empty.

    Example:

    ```python
    policy = kerasrl.models.ActorCritic(trunk=kerasrl.models.MLP((256, 256), "relu"))
    ```
    """

    def __init__(
        self,
        hidden_units=(64, 64),
        activation="tanh",
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_units = checks.units("hidden_units", hidden_units)
        self.activation = checks.named("activation", activation, keras.activations)
        self.kernel_initializer = kernel_initializer
        self.seed = seed
        self.hidden_layers = [
            keras.layers.Dense(
                units,
                activation=self.activation,
                kernel_initializer=self._initializer(index),
            )
            for index, units in enumerate(self.hidden_units)
        ]

    def build(self, input_shape):
        for index, layer in enumerate(self.hidden_layers):
            # Once more: the seed may have been set since.
            layer.kernel_initializer = self._initializer(index)
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs):
        for layer in self.hidden_layers:
            inputs = layer(inputs)
        return inputs

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], *(self.hidden_units or input_shape)[-1:])

    def _initializer(self, offset):
        gain = 1.0 if self.kernel_initializer == "normc" else 2.0**0.5
        return make_initializer(self.kernel_initializer, gain, self._seed(offset))


#: The convolutions of Mnih et al. (2015), for 84 x 84 images.
NATURE_FILTERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def check_images(input_shape):
    """Raises a ValueError unless a shape is that of a batch of images."""
    if len(input_shape) != 4:
        raise ValueError(
            f"Received images of shape {tuple(input_shape)}. Expected "
            "(batch_size, height, width, channels)."
        )


def scale_images(images):
    """Returns images as floats; those of integers are divided by 255."""
    is_float = "float" in keras.backend.standardize_dtype(images.dtype)
    images = ops.cast(images, "float32")
    return images if is_float else images / 255.0


class _Convolutional(Configured, keras.layers.Layer):
    """The arguments of `CNN`."""

    def __init__(
        self,
        filters=NATURE_FILTERS,
        hidden_units=(512,),
        activation="relu",
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = checks.filters(filters)
        self.hidden_units = checks.units("hidden_units", hidden_units)
        self.activation = checks.named("activation", activation, keras.activations)
        self.kernel_initializer = kernel_initializer
        self.seed = seed


@keras.saving.register_keras_serializable("kerasrl")
class CNN(_Convolutional):
    """A stack of convolutions, flattened, and dense layers.

    The default is the network of Mnih et al. (2015),
    https://doi.org/10.1038/nature14236. Integer images, which policies have scaled
    already (see `Encoder`), are divided by 255.

    Args:
        filters: Sequence of `(channels, kernel, stride)`. If the image is smaller
            than a kernel, `"same"` padding is used for that layer.
        hidden_units: Sequence of integers, widths of the dense layers after the
            convolutions.
        activation: Activation of every layer.
        kernel_initializer: As in `MLP`.
        seed: Integer or `None`, seed of the initializers.

    Input shape:
        `(batch_size, height, width, channels)`.

    Output shape:
        `(batch_size, hidden_units[-1])`.

    Example:

    ```python
    trunk = kerasrl.models.CNN([(16, 3, 2), (32, 3, 2)], hidden_units=(128,))
    policy = kerasrl.models.ActorCritic(trunk=trunk)
    ```
    """

    def build(self, input_shape):
        check_images(input_shape)
        gain = 1.0 if self.kernel_initializer == "normc" else 2.0**0.5
        self.convolutions = []
        for index, (channels, kernel, stride) in enumerate(self.filters):
            fits = min(input_shape[1:3]) >= kernel
            layer = keras.layers.Conv2D(
                channels,
                kernel,
                strides=stride,
                padding="valid" if fits else "same",
                activation=self.activation,
                kernel_initializer=make_initializer(
                    self.kernel_initializer, gain, self._seed(index)
                ),
            )
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
            self.convolutions.append(layer)
        self.flatten = keras.layers.Flatten()
        self.dense = MLP(
            self.hidden_units,
            self.activation,
            self.kernel_initializer,
            self._seed(len(self.filters)),
        )
        flat_shape = self.flatten.compute_output_shape(input_shape)
        self.dense.build(flat_shape)
        self.width = flat_shape[-1]

    def call(self, inputs):
        inputs = scale_images(inputs)
        for layer in self.convolutions:
            inputs = layer(inputs)
        return self.dense(self.flatten(inputs))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], (self.hidden_units or (self.width,))[-1])


@keras.saving.register_keras_serializable("kerasrl")
class MixedTrunk(_Convolutional):
    """Convolutions for each image, joined with a vector in dense layers.

    The default for `Dict` and `Tuple` observations that hold images: each goes through
    the convolutions of `CNN`, with weights of its own.

    Args:
        filters, hidden_units, activation, kernel_initializer, seed: As in `CNN`. The
            dense layers follow where everything is joined.

    Input shape:
        Tuple of images, `(batch_size, height, width, channels)`, and vectors,
        `(batch_size, features)`.

    Output shape:
        `(batch_size, hidden_units[-1])`.

    Example:

    ```python
    trunk = kerasrl.models.MixedTrunk([(16, 3, 2), (32, 3, 2)], hidden_units=(128,))
    policy = kerasrl.models.ActorCritic(trunk=trunk)
    ```
    """

    def build(self, input_shape):
        rest = (self.activation, self.kernel_initializer)
        self.branches, width = [], 0
        for shape in input_shape:
            branch = None
            if len(shape) == 4:
                branch = CNN(
                    self.filters, (), *rest, self._seed(100 * (len(self.branches) + 1))
                )
                branch.build(shape)
                shape = branch.compute_output_shape(shape)
            self.branches.append(branch)
            width += shape[-1]
        self.dense = MLP(self.hidden_units, *rest, self._seed(0))
        self.dense.build((None, width))
        self.width = width

    def call(self, inputs):
        parts = [
            part if branch is None else branch(part)
            for branch, part in zip(self.branches, inputs, strict=True)
        ]
        parts = [ops.cast(part, self.compute_dtype) for part in parts]
        return self.dense(ops.concatenate(parts, axis=-1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], (self.hidden_units or (self.width,))[-1])
