"""The residual network of IMPALA, a trunk for images."""

import keras

from kerasrl import checks
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer
from kerasrl.models.trunks import MLP, check_images, scale_images


@keras.saving.register_keras_serializable("kerasrl")
class ImpalaCNN(Configured, keras.layers.Layer):
    """Residual convolutions and dense layers: the deep network of IMPALA.

    A section is a convolution and a pooling that halves the image, followed by residual
    blocks; there are as many as `channels`. All convolutions are 3 x 3. It has fewer
    weights than `CNN` and needs about six times its arithmetic; policies take it by
    its name, `"impala"`. Integer images, which policies have scaled already (see
    `Encoder`), are divided by 255.

    Paper: Espeholt et al. (2018), figure 3 on the right,
    https://arxiv.org/abs/1802.01561.

    Args:
        channels: Sequence of integers, the channels of each section.
        num_blocks: Integer, residual blocks of a section.
        hidden_units: Sequence of integers, widths of the dense layers that follow.
        activation: Activation before each convolution of a block, and of all that
            follows the sections.
        kernel_initializer: As in `MLP`.
        seed: Integer or `None`, seed of the initializers.

    Input shape:
        `(batch_size, height, width, channels)`.

    Output shape:
        `(batch_size, hidden_units[-1])`.

    Example:

    ```python
    agent = kerasrl.PPO(policy={"trunk": "impala"})
    trunk = kerasrl.models.ImpalaCNN(channels=(32, 64, 64))  # twice as wide
    agent = kerasrl.PPO(policy={"trunk": trunk, "cell": "lstm"})
    ```
    """

    def __init__(
        self,
        channels=(16, 32, 32),
        num_blocks=2,
        hidden_units=(256,),
        activation="relu",
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.channels = checks.units("channels", channels)
        self.num_blocks = checks.positive_integer("num_blocks", num_blocks)
        self.hidden_units = checks.units("hidden_units", hidden_units)
        self.activation = checks.named("activation", activation, keras.activations)
        self.kernel_initializer = kernel_initializer
        self.seed = seed
        #: Of each section the first convolution, then two of each block.
        self.convolutions = []
        for count in self.channels:
            for _ in range(1 + 2 * self.num_blocks):
                layer = keras.layers.Conv2D(
                    count,
                    3,
                    padding="same",
                    kernel_initializer=self._initializer(len(self.convolutions)),
                )
                self.convolutions.append(layer)
        self.pooling = keras.layers.MaxPooling2D(3, strides=2, padding="same")
        self.flatten = keras.layers.Flatten()
        self.dense = MLP(
            self.hidden_units,
            self.activation,
            kernel_initializer,
            self._seed(len(self.convolutions)),
        )

    def build(self, input_shape):
        check_images(input_shape)
        # Once more: the seed may have been set since.
        for offset, layer in enumerate(self.convolutions):
            layer.kernel_initializer = self._initializer(offset)
        self.dense.seed = self._seed(len(self.convolutions))
        for first, *others in self._sections():
            first.build(input_shape)
            input_shape = first.compute_output_shape(input_shape)
            input_shape = self.pooling.compute_output_shape(input_shape)
            for layer in others:
                layer.build(input_shape)
        flat_shape = self.flatten.compute_output_shape(input_shape)
        self.dense.build(flat_shape)
        self.width = flat_shape[-1]

    def call(self, inputs):
        features = scale_images(inputs)
        for first, *others in self._sections():
            features = self.pooling(first(features))
            for inner, outer in zip(others[::2], others[1::2], strict=True):
                change = inner(self.activation(features))
                features = features + outer(self.activation(change))
        return self.dense(self.flatten(self.activation(features)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], (self.hidden_units or (self.width,))[-1])

    def _initializer(self, offset):
        gain = 1.0 if self.kernel_initializer == "normc" else 2.0**0.5
        return make_initializer(self.kernel_initializer, gain, self._seed(offset))

    def _sections(self):
        size = 1 + 2 * self.num_blocks
        for start in range(0, len(self.convolutions), size):
            yield self.convolutions[start : start + size]
