"""Dense layers with learned noise, which explore by themselves."""

import contextvars

import keras
from keras import ops

from kerasrl import checks
from kerasrl.models.configured import Configured

_SCOPE = contextvars.ContextVar("noise_scope", default=None)


class NoiseScope:
    """Switches the noise of every `NoisyDense` called inside, however nested.

    Outside any scope a `NoisyDense` is noisy in training and exact otherwise. Agents
    act inside `NoiseScope()` while they explore, and evaluate target networks inside
    `NoiseScope(stream=1)`, whose noise is independent of the noise of the network that
    is trained even if both read the same generator state.

    Args:
        enabled: Bool, whether there is noise, whatever `training` says.
        stream: Integer. Streams of different numbers never share a random number.

    Attributes:
        drew: Whether any layer has been noisy inside.

    Example:

    ```python
    with kerasrl.models.NoiseScope():
        outputs = q_network(inputs)  # explores; outside, the same call does not
    ```
    """

    def __init__(self, enabled=True, stream=0):
        self.enabled = enabled
        self.stream = stream
        self.drew = False
        self._tokens = []

    def __enter__(self):
        self._tokens.append(_SCOPE.set(self))
        return self

    def __exit__(self, *exception):
        _SCOPE.reset(self._tokens.pop())


def drew_noise():
    """Whether a layer has been noisy in the present `NoiseScope`; False without one."""
    scope = _SCOPE.get()
    return scope is not None and scope.drew


class _NoiseSeedGenerator(keras.random.SeedGenerator):
    """Draws from the stream of the current `NoiseScope`."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        scope = _SCOPE.get()
        stream = 0 if scope is None else scope.stream
        # Far apart, so that no stream is the first stream of another layer's seed.
        offset = ops.convert_to_tensor([(stream * 0x9E3779B9) % 2**32, 0], seed.dtype)
        return ops.add(seed, offset)


@keras.saving.register_keras_serializable("kerasrl")
class NoisyDense(Configured, keras.layers.Layer):
    """Dense layer whose weights have learned, factorised Gaussian noise.

    Fortunato et al. (2018), https://arxiv.org/abs/1706.10295. With `p` inputs,

        y = x @ (mu + sigma * f(e) f(e')^T) + bias_mu + bias_sigma * f(e'),
        f(e) = sign(e) sqrt(|e|),

    where `e` (one per input) and `e'` (one per unit) are standard normal. Kernel and
    bias `mu` begin uniform in `+-1 / sqrt(p)`, `sigma` at `sigma_zero / sqrt(p)`.

    Each row of a batch gets noise of its own. The paper holds the noise fixed across a
    batch of replay; both estimate the same gradient, and independent rows do so with
    less variance. They also give each environment its own exploration.

    There is noise in training, and wherever a `NoiseScope` asks for it; otherwise the
    layer uses `mu` alone.

    Args:
        units: Integer, number of outputs.
        activation: Activation, anything Keras accepts.
        sigma_zero: Float, the first size of the noise.
        seed: Integer or `None`, seed of initial weights and of the noise.

    Input shape:
        `(batch_size, features)`.

    Output shape:
        `(batch_size, units)`.

    Example:

    ```python
    layer = kerasrl.models.NoisyDense(4)
    layer(features)  # exact
    layer(features, training=True)  # noisy, differently at every call
    ```
    """

    def __init__(self, units, activation=None, sigma_zero=0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        if sigma_zero < 0:
            raise ValueError(
                f"Received sigma_zero={sigma_zero}. Expected a number not below zero."
            )
        self.units = units
        self.activation = checks.named("activation", activation, keras.activations)
        self.sigma_zero = sigma_zero
        self.seed = seed
        self.seed_generator = _NoiseSeedGenerator(seed)

    def build(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                f"Received inputs of shape {tuple(input_shape)}. Expected "
                "(batch_size, features)."
            )
        features = input_shape[-1]
        limit = features**-0.5
        for number, (name, shape) in enumerate(
            {"kernel": (features, self.units), "bias": (self.units,)}.items()
        ):
            mu = keras.initializers.RandomUniform(
                -limit, limit, seed=self._seed(number)
            )
            sigma = keras.initializers.Constant(self.sigma_zero * limit)
            options = {"shape": shape, "trainable": True}
            mu = self.add_weight(name=f"{name}_mu", initializer=mu, **options)
            sigma = self.add_weight(name=f"{name}_sigma", initializer=sigma, **options)
            setattr(self, f"{name}_mu", mu)
            setattr(self, f"{name}_sigma", sigma)

    def call(self, inputs, training=False):
        outputs = ops.matmul(inputs, self.kernel_mu) + self.bias_mu
        scope = _SCOPE.get()
        if scope.enabled if scope is not None else training:
            outputs = outputs + self._noise(inputs)
            if scope is not None:
                scope.drew = True
        return self.activation(outputs)

    def _noise(self, inputs):
        num_rows, features = ops.shape(inputs)[0], inputs.shape[-1]
        normal = keras.random.normal(
            (num_rows, features + self.units),
            dtype=self.compute_dtype,
            seed=self.seed_generator,
        )
        noise = ops.sign(normal) * ops.sqrt(ops.abs(normal))
        noise_in, noise_out = ops.split(noise, [features], axis=-1)
        # The factors of the noise never meet in a matrix of their own:
        # x (sigma * a b^T) = ((x * a) sigma) * b.
        sigma_part = ops.matmul(inputs * noise_in, self.kernel_sigma)
        return (sigma_part + self.bias_sigma) * noise_out

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)
