"""Numbers between -1 and 1: a normal distribution squashed by tanh."""

import math

import keras
import numpy as np
from gymnasium import spaces
from keras import ops

from kerasrl.distributions.diagonal_gaussian import LOG_2_PI, DiagonalGaussian
from kerasrl.distributions.distribution import space_error

# The range of the authors of soft actor-critic. A deviation of exp(2) before tanh
# already puts most actions next to the bounds.
MAX_LOG_STD = 2.0
# The greatest float32 below 1.
NEARLY_ONE = 1.0 - 2.0**-24


class TanhGaussian(DiagonalGaussian):
    """Independent normal distributions, squashed into (-1, 1) by tanh.

    ```
    actions = tanh(u),   u ~ N(mean, exp(log_std)^2)
    ```

    The policy of soft actor-critic, https://arxiv.org/abs/1801.01290, appendix C. For
    bounded `Box` action spaces, whose bounds are to be laid over -1 and 1 by whoever
    acts. `distribution_for` does not choose it: `DiagonalGaussian` is the default.

    Tanh is invertible, so the divergence of two of these is that of their normal
    distributions. Of the entropy no closed form is known.

    Args:
        parameters: Float `[..., 2 * D]`, D means followed by D logarithms of standard
            deviations, both of what goes into tanh. The latter are held between -20
            and 2.
        shape: Tuple of ints, shape of one action, of D entries. None is `(D,)`.

    Example:

    ```python
    distribution = TanhGaussian([[0.5, -9.0, 0.0, 0.0]])
    distribution.mode()  # [[0.462, -1.0]]
    actions, log_probs = distribution.sample_and_log_prob(seed=1)
    ```
    """

    def __init__(self, parameters, shape=None):
        super().__init__(parameters, shape)
        self.log_std = ops.minimum(self.log_std, MAX_LOG_STD)

    @staticmethod
    def parameters_size(action_space):
        """Two for each entry of a `Box` space."""
        if not isinstance(action_space, spaces.Box):
            raise space_error("TanhGaussian", action_space, "Box")
        return 2 * int(np.prod(action_space.shape))

    def from_noise(self, noise):
        """Makes actions, each between -1 and 1, of noise that was drawn elsewhere.

        See `DiagonalGaussian.from_noise`; `sample` does so.
        """
        return ops.tanh(super().from_noise(noise))

    def mode(self):
        """tanh of the means, float32 `[..., *shape]`.

        It is the median of each entry, which policies act by when they do not explore.
        The density itself may be greatest elsewhere, even next to both bounds.
        """
        return ops.tanh(super().mode())

    def sample_and_log_prob(self, seed=None):
        """Draws actions and gives the log-density of each.

        Exact even where tanh rounds to 1, which `log_prob(sample())` is not: the
        log-density is taken from the noise. Gradients flow through both results to the
        parameters (the reparameterization trick).

        Args:
            seed: As in `Distribution.sample`; equal seeds draw equal actions.

        Returns:
            Tuple of actions, float32 `[..., *shape]`, and log-densities, float32
            `[...]`, in nats.
        """
        noise = keras.random.normal(ops.shape(self.mean), seed=seed)
        before_tanh = self.mean + ops.exp(self.log_std) * noise
        log_density = -0.5 * ops.square(noise) - self.log_std - 0.5 * LOG_2_PI
        log_prob = ops.sum(log_density - _log_slope_of_tanh(before_tanh), axis=-1)
        return self._unflatten(ops.tanh(before_tanh)), log_prob

    def log_prob(self, actions):
        """Log-density of actions, float `[..., *shape]`, each between -1 and 1.

        Accurate away from the bounds only: near them float32 cannot tell what tanh was
        taken of. In nats, for a standard normal, the result is off by up to 1e-5 near
        actions of tanh(3) = 0.995, by 1e-3 near tanh(5) and by 0.1 near tanh(7).
        Actions beyond the greatest float32 below 1, 0.99999994, are taken for it.
        Where actions are drawn to learn from, use `sample_and_log_prob`, or keep what
        tanh is taken of and use `log_prob_before_tanh`.

        See `Distribution.log_prob`.
        """
        actions = ops.cast(actions, "float32")
        inside = ops.clip(actions, -NEARLY_ONE, NEARLY_ONE)
        return self.log_prob_before_tanh(ops.arctanh(inside))

    def log_prob_before_tanh(self, before_tanh):
        """Log-density of the actions `tanh(before_tanh)`, exact at any size.

        ```
        log N(u; mean, std) - sum log(1 - tanh(u)^2)
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))
        ```

        The second form neither overflows nor takes the logarithm of 0, as the first
        does from u = 9 on.

        Args:
            before_tanh: Float `[..., *shape]`, one u for each distribution.

        Returns:
            Float32 `[...]`, in nats.

        Raises:
            ValueError: The shape is another one; nothing is broadcast.
        """
        log_prob = super().log_prob(before_tanh)
        before_tanh = self._flatten(before_tanh, self.mean.shape[-1])
        slope = _log_slope_of_tanh(ops.cast(before_tanh, "float32"))
        return log_prob - ops.sum(slope, axis=-1)

    def entropy(self):
        """Not known in closed form.

        Raises:
            NotImplementedError: Always. Minus the log-density of a sample estimates the
                entropy without bias.
        """
        raise NotImplementedError(
            "The entropy of a TanhGaussian has no closed form. Estimate it by "
            "`-distribution.sample_and_log_prob(seed)[1]`, or act by a "
            "DiagonalGaussian, whose entropy is exact."
        )


def _log_slope_of_tanh(x):
    """log(d tanh(x) / dx) = log(1 - tanh(x)^2)."""
    return 2.0 * (math.log(2.0) - x - ops.softplus(-2.0 * x))
