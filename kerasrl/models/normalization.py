"""Running normalization of observations, as a Keras layer."""

import keras
from keras import ops

from kerasrl.losses import sum_over_replicas


@keras.saving.register_keras_serializable("kerasrl")
class RunningNormalization(keras.layers.Layer):
    """Shifts and scales inputs by the mean and variance of all data seen so far.

    The statistics change only when `update` is called, which agents do once per
    training iteration with the new observations. Calling the layer, also with
    `training=True`, never changes them: a policy acts, is evaluated and is restored
    with the statistics it was trained with. The merge of two sets of statistics is
    that of Chan, Golub and LeVeque (1979), so the result does not depend on how the
    data were cut into batches.

    Args:
        clip: Float. Normalized values are clipped to `[-clip, clip]`.
        epsilon: Float added to the variance.

    Input shape:
        `(..., *features)`; the last axes are those of one observation.

    Output shape:
        That of the input, float32.

    Example:

    ```python
    layer = kerasrl.models.RunningNormalization()
    layer.build((None, 3))
    layer.update(np.random.normal(5.0, 2.0, (1000, 3)))
    layer(np.full((1, 3), 5.0))  # close to zero
    ```
    """

    def __init__(self, clip=10.0, epsilon=1e-8, dtype="float32", **kwargs):
        # Not the global policy: halves would round statistics and observations.
        super().__init__(dtype=dtype, **kwargs)
        self.clip = clip
        self.epsilon = epsilon

    def build(self, input_shape):
        shape = tuple(input_shape[1:])
        options = {"shape": shape, "trainable": False, "dtype": "float32"}
        self.mean = self.add_weight(name="mean", initializer="zeros", **options)
        self.variance = self.add_weight(name="variance", initializer="ones", **options)
        # In float32 adding one to a count stalls at 2**24, but batches are added,
        # and a stalled count only means a fixed, tiny step size.
        self.count = self.add_weight(
            name="count", shape=(), initializer="zeros", trainable=False
        )

    def call(self, inputs):
        inputs = ops.cast(inputs, "float32")
        scale = ops.rsqrt(self.variance + self.epsilon)
        return ops.clip((inputs - self.mean) * scale, -self.clip, self.clip)

    def update(self, inputs, mask=None):
        """Merges a batch, or those of all replicas, into the statistics.

        Args:
            inputs: Float `[N, *features]`.
            mask: Bool or float `[N]`, or `None`. Rows of weight 0 are left out.
        """
        inputs = ops.cast(inputs, "float32")
        if mask is None:
            weights = ops.ones(ops.shape(inputs)[:1])
        else:
            weights = ops.cast(mask, "float32")
        total = sum_over_replicas(ops.sum(weights))
        shape = (-1,) + (1,) * (len(inputs.shape) - 1)
        weights = ops.reshape(weights, shape) / ops.maximum(total, 1.0)
        batch_mean = sum_over_replicas(ops.sum(weights * inputs, axis=0))
        squares = ops.square(inputs - batch_mean)
        batch_variance = sum_over_replicas(ops.sum(weights * squares, axis=0))
        count = self.count + total
        # With no data yet (count 0) and an empty batch, keep what is there.
        share = total / ops.maximum(count, 1.0)
        delta = batch_mean - self.mean
        variance = (
            self.variance * (1.0 - share)
            + batch_variance * share
            + ops.square(delta) * share * (1.0 - share)
        )
        self.mean.assign(self.mean + delta * share)
        self.variance.assign(variance)
        self.count.assign(count)

    def get_config(self):
        config = super().get_config()
        config.update(clip=self.clip, epsilon=self.epsilon)
        return config
