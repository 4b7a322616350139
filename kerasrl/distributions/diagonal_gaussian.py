"""Real numbers, each around its own mean."""

import math

import keras
import numpy as np
from gymnasium import spaces
from keras import ops

from kerasrl.distributions.distribution import (
    Distribution,
    check_last_axis,
    space_error,
)
from kerasrl.losses.shapes import static_shape

# exp(20) and its square fit a float32 with room for the distances they multiply.
MAX_LOG_STD = 20.0
LOG_2_PI = math.log(2 * math.pi)


class DiagonalGaussian(Distribution):
    """Independent normal distributions.

    For `Box` action spaces. Actions are unbounded: the environment clips them to the
    bounds of its space, after their log-probability was taken.

    Args:
        parameters: Float `[..., 2 * D]`, D means followed by D logarithms of standard
            deviations, which are held between -20 and 20.
        shape: Tuple of ints, shape of one action, of D entries. None is `(D,)`.

    Example:

    ```python
    distribution = DiagonalGaussian([[1.0, -1.0, 0.0, 0.0]])  # means 1, -1; std 1, 1
    distribution.mode()  # [[1.0, -1.0]]
    distribution.entropy()  # [2.838]
    ```
    """

    def __init__(self, parameters, shape=None):
        super().__init__(parameters)
        size = static_shape(self.parameters)
        size = size[-1] if size else None
        if size is not None and size % 2:
            raise ValueError(
                "DiagonalGaussian needs an even number of parameters, means followed "
                f"by log standard deviations. Received: {size} on the last axis."
            )
        if shape is not None:
            self.shape = tuple(shape)
            check_last_axis(
                "DiagonalGaussian",
                parameters,
                2 * math.prod(self.shape),
                f"2 for each entry of shape={self.shape}",
            )
        self.mean, log_std = ops.split(self.parameters, 2, axis=-1)
        self.log_std = ops.clip(log_std, -MAX_LOG_STD, MAX_LOG_STD)

    @staticmethod
    def parameters_size(action_space):
        """Two for each entry of a `Box` space."""
        if not isinstance(action_space, spaces.Box):
            raise space_error("DiagonalGaussian", action_space, "Box")
        return 2 * int(np.prod(action_space.shape))

    @staticmethod
    def options_for(action_space):
        """The shape of an action."""
        return {"shape": action_space.shape}

    def sample(self, seed=None):
        """Draws actions, float32 `[..., *shape]`. See `Distribution.sample`."""
        return self.from_noise(keras.random.normal(ops.shape(self.mean), seed=seed))

    def from_noise(self, noise):
        """Makes actions of noise that was drawn elsewhere.

        Args:
            noise: Float32 `[..., D]`, distributed as standard normals.

        Returns:
            Float32 `[..., *shape]`, distributed as samples.
        """
        return self._unflatten(self.mean + ops.exp(self.log_std) * noise)

    def mode(self):
        """Means, float32 `[..., *shape]`."""
        return self._unflatten(self.mean)

    def log_prob(self, actions):
        """Log-density of actions, float `[..., *shape]`.

        See `Distribution.log_prob`.
        """
        actions = self._flatten(actions, self.mean.shape[-1])
        distance = (ops.cast(actions, "float32") - self.mean) * ops.exp(-self.log_std)
        return -ops.sum(
            0.5 * ops.square(distance) + self.log_std + 0.5 * LOG_2_PI, axis=-1
        )

    def entropy(self):
        """Differential entropy, float32 `[...]`, in nats."""
        return ops.sum(self.log_std + 0.5 * (1 + LOG_2_PI), axis=-1)

    def kl(self, other):
        """KL(self || other), float32 `[...]`. See `Distribution.kl`."""
        self._check_kl(other)
        ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * ops.exp(-other.log_std)
        # (s^2 - 1) / 2 - log s, with expm1 for the digits that count when s is near 1.
        spread = 0.5 * ops.expm1(2 * ratio) - ratio
        return ops.sum(spread + 0.5 * ops.square(distance), axis=-1)
