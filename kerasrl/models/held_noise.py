"""Exploration that depends on what is seen, and is held for several steps."""

import math

import keras
from gymnasium import spaces
from keras import ops

from kerasrl import checks

# Of noise that does not depend on features: where those vanish, some is left. The
# square root of what the authors add to the variance.
_LEAST = 1e-3


class HeldNoise(keras.layers.Layer):
    """Noise on actions that is linear in features.

    ```
    action_j = mean_j + sum_i features_i std_ij noise_ij + 0.001 noise_j

    noise_ij, noise_j ~ N(0, 1)
    ```

    Generalised state-dependent exploration: while the matrix `noise` is held, equal
    features give equal noise, and a robot sways where white noise makes it shake. Of
    one step alone, actions are normally distributed, with the variance
    `sum_i (features_i std_ij)^2 + 1e-6`: where features vanish, a little is left.

    Paper: Raffin et al. (2021), https://arxiv.org/abs/2005.05719.

    Args:
        size: Integer, number of entries of an action.
        initial_log_std: Float, the logarithm of the standard deviation of first actions
            where all features are 1 or -1.

    Input shape:
        Features, `(..., F)`.

    Output shape:
        Logarithms of the standard deviations of actions, `(..., size)`.

    Example:

    ```python
    layer = HeldNoise(2)
    log_std = layer(np.ones((8, 64), "float32"))  # zeros
    ```
    """

    def __init__(self, size, initial_log_std=0.0, **kwargs):
        # A logarithm of sums of squares: not in halves.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = size
        self.initial_log_std = initial_log_std

    def build(self, features_shape):
        num_features = features_shape[-1]
        initial = self.initial_log_std - 0.5 * math.log(num_features)
        self.log_std = self.add_weight(
            name="log_std",
            shape=(num_features, self.size),
            initializer=keras.initializers.Constant(initial),
        )

    @property
    def matrix_shape(self):
        """Shape of the matrix of noise of one environment."""
        # The last row is of the feature that never vanishes.
        return (self.log_std.shape[0] + 1, self.size)

    def call(self, features):
        variances = ops.exp(2.0 * self.log_std)
        total = ops.matmul(ops.square(features), variances) + _LEAST**2
        return 0.5 * ops.log(total)

    def unit(self, features, matrix):
        """Returns the noise on actions in units of their standard deviations.

        Args:
            features: Float32 `[N, F]`.
            matrix: Float32 `[N, *matrix_shape]`, drawn from standard normals.

        Returns:
            Float32 `[N, size]`, standard normal over draws of the matrix.
        """
        weights = features[:, :, None] * ops.exp(self.log_std)
        noise = ops.sum(weights * matrix[:, :-1], axis=1) + _LEAST * matrix[:, -1]
        return noise * ops.exp(-self(features))


def check_noise(noise_steps, **contradictions):
    """Checks the argument `noise_steps` of a policy.

    Args:
        noise_steps: `None`, or a positive integer.
        **contradictions: Other arguments, true where they say something else of noise.

    Returns:
        The argument.

    Raises:
        ValueError: It is something else, or contradicts others.
    """
    if noise_steps is None:
        return None
    wrong = [name for name, given in contradictions.items() if given]
    if wrong:
        raise ValueError(
            f"Received noise_steps={noise_steps!r} together with {', '.join(wrong)}. "
            "With noise that is held, actions are normally distributed around a mean "
            "as far as features say: leave those out."
        )
    return checks.positive_integer("noise_steps", noise_steps)


def check_action_space(noise_steps, action_space):
    """Raises if noise is to be held on actions that are not numbers.

    Raises:
        ValueError: That is so.
    """
    if noise_steps is not None and not isinstance(action_space, spaces.Box):
        raise ValueError(
            f"Received noise_steps={noise_steps} for the action space {action_space}. "
            "Noise is added to numbers, of a Box: leave it out."
        )
