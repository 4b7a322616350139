"""Running normalization of observations, as a Keras layer."""

import keras
from keras import ops

from kerasrl.distribute.summing import sum_over_replicas
from kerasrl.models.configured import Configured

#: Beyond this no number measures anything, and its square would soon be infinite.
LARGEST = 1e15
# Four times what float32 can tell apart, relative to the number.
_RESOLUTION = 2.0**-21


@keras.saving.register_keras_serializable("kerasrl")
class RunningNormalization(Configured, keras.layers.Layer):
    """Shifts and scales inputs by the mean and variance of all data seen so far.

    The statistics change only when `update` is called, which agents do once per
    training iteration with the new observations. Calling the layer, also with
    `training=True`, never changes them: a policy acts, is evaluated and is restored
    with the statistics it was trained with. The merge of two sets of statistics is
    that of Chan, Golub and LeVeque (1979), computed in float64, so the result does not
    depend on how the data were cut into batches.

    What does not vary is not made to: the deviation counts as at least `2**-21` of the
    mean, since smaller differences are the rounding of float32. (A clock of `1.7e9`
    that moves by 10 is constant in float32. Where the space is float64, agents subtract
    their first observation before it is rounded; else subtract a date in a wrapper.)
    Observations with a number beyond `1e15` are left out of the statistics.

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
        least = ops.square(self.mean * _RESOLUTION)
        scale = ops.rsqrt(ops.maximum(self.variance + self.epsilon, least))
        return ops.clip((inputs - self.mean) * scale, -self.clip, self.clip)

    def update(self, inputs, mask=None):
        """Merges a batch, or those of all replicas, into the statistics.

        Args:
            inputs: Float `[N, *features]`.
            mask: Bool or float `[N]`, or `None`. Rows of weight 0 are left out.
        """
        inputs = ops.cast(inputs, "float64")
        axes = tuple(range(1, len(inputs.shape)))
        counts = ops.all(ops.abs(inputs) <= LARGEST, axis=axes, keepdims=True)
        weights = ops.cast(counts, "float64")
        if mask is not None:
            rows = ops.reshape(ops.cast(mask, "float64"), (-1,) + (1,) * len(axes))
            weights = weights * rows
        # Not only of weight 0: times infinity that would be NaN.
        inputs = ops.where(weights > 0, inputs, ops.zeros_like(inputs))
        total = sum_over_replicas(ops.sum(weights))
        weights = weights / ops.maximum(total, 1.0)
        batch_mean = sum_over_replicas(ops.sum(weights * inputs, axis=0))
        squares = ops.square(inputs - batch_mean)
        batch_variance = sum_over_replicas(ops.sum(weights * squares, axis=0))
        mean, variance, seen = (
            ops.cast(v, "float64") for v in (self.mean, self.variance, self.count)
        )
        count = seen + total
        # With no data yet (count 0) and an empty batch, keep what is there.
        share = total / ops.maximum(count, 1.0)
        delta = batch_mean - mean
        variance = (
            variance * (1.0 - share)
            + batch_variance * share
            + ops.square(delta) * share * (1.0 - share)
        )
        mean = mean + delta * share
        for variable, value in zip(
            (self.mean, self.variance, self.count), (mean, variance, count), strict=True
        ):
            variable.assign(ops.cast(value, "float32"))
