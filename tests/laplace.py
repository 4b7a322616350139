"""A distribution as a user would write it."""

import keras
import numpy as np
from keras import ops

from kerasrl.distributions import Distribution


@keras.saving.register_keras_serializable("tests")
class Laplace(Distribution):
    """Independent numbers, each with heavier tails than a normal one."""

    def __init__(self, parameters, shape):
        super().__init__(parameters)
        self.shape = tuple(shape)
        self.mean, log_scale = ops.split(self.parameters, 2, axis=-1)
        self.scale = ops.exp(log_scale)

    @staticmethod
    def parameters_size(action_space):
        return 2 * int(np.prod(action_space.shape))

    @staticmethod
    def options_for(action_space):
        return {"shape": action_space.shape}

    def sample(self, seed=None):
        uniform = keras.random.uniform(
            ops.shape(self.mean), minval=-0.4999, maxval=0.4999, seed=seed
        )
        noise = -ops.sign(uniform) * ops.log1p(-2 * ops.abs(uniform))
        return self._unflatten(self.mean + self.scale * noise)

    def mode(self):
        return self._unflatten(self.mean)

    def log_prob(self, actions):
        actions = self._flatten(actions, self.mean.shape[-1])
        distance = ops.abs(ops.cast(actions, "float32") - self.mean) / self.scale
        return -ops.sum(distance + ops.log(2 * self.scale), axis=-1)

    def entropy(self):
        return ops.sum(1 + ops.log(2 * self.scale), axis=-1)

    def kl(self, other):
        self._check_kl(other)
        apart = ops.abs(self.mean - other.mean)
        spread = self.scale * ops.exp(-apart / self.scale)
        ratio = ops.log(other.scale / self.scale)
        return ops.sum(ratio + (apart + spread) / other.scale - 1, axis=-1)
