"""Several switches at once."""

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


class Bernoulli(Distribution):
    """Independent switches, each on or off.

    For `MultiBinary` action spaces. Infinite logits make a switch certain.

    Args:
        parameters: Float `[..., D]`, log-odds of each switch being on (logits).
        shape: Tuple of ints, shape of one action, of D entries. None is `(D,)`.

    Example:

    ```python
    distribution = Bernoulli(np.zeros((8, 3)))
    distribution.sample().shape  # (8, 3), entries 0 or 1
    ```
    """

    def __init__(self, parameters, shape=None):
        super().__init__(parameters)
        if shape is not None:
            self.shape = tuple(shape)
            check_last_axis(
                "Bernoulli", parameters, math.prod(self.shape), f"shape={self.shape}"
            )

    @staticmethod
    def parameters_size(action_space):
        """Number of switches of a `MultiBinary` space."""
        if not isinstance(action_space, spaces.MultiBinary):
            raise space_error("Bernoulli", action_space, "MultiBinary")
        return int(np.prod(action_space.shape))

    @staticmethod
    def options_for(action_space):
        """The shape of an action."""
        return {"shape": action_space.shape}

    def sample(self, seed=None):
        """Draws actions, int32 `[..., *shape]`. See `Distribution.sample`."""
        uniform = keras.random.uniform(ops.shape(self.parameters), seed=seed)
        on = ops.less(uniform, ops.sigmoid(self.parameters))
        return self._unflatten(ops.cast(on, "int32"))

    def mode(self):
        """Most probable actions, int32 `[..., *shape]`."""
        return self._unflatten(ops.cast(ops.greater(self.parameters, 0), "int32"))

    def log_prob(self, actions):
        """Log-probability of actions, 0 or 1, `[..., *shape]`.

        See `Distribution.log_prob`.
        """
        actions = self._flatten(actions, self.parameters.shape[-1])
        on = ops.cast(actions, "bool")
        logits = ops.where(on, self.parameters, -self.parameters)
        return ops.sum(ops.log_sigmoid(logits), axis=-1)

    def entropy(self):
        """Entropy, float32 `[...]`, in nats."""
        return -self._expected(*self._log_probs())

    def kl(self, other):
        """KL(self || other), float32 `[...]`. See `Distribution.kl`."""
        self._check_kl(other)
        on, off = self._log_probs()
        other_on, other_off = other._log_probs()
        return self._expected(on - other_on, off - other_off)

    def _log_probs(self):
        logits = self.parameters
        return ops.log_sigmoid(logits), ops.log_sigmoid(-logits)

    def _expected(self, if_on, if_off):
        """Mean over each switch of a quantity, summed over the switches."""
        total = 0.0
        for logits, x in ((self.parameters, if_on), (-self.parameters, if_off)):
            probs = ops.sigmoid(logits)
            total += probs * ops.where(probs > 0, x, ops.zeros_like(x))
        return ops.sum(total, axis=-1)
