"""Numbers without a choice."""

import math

import numpy as np
from gymnasium import spaces

from kerasrl.distributions.distribution import (
    Distribution,
    check_last_axis,
    space_error,
)


class Deterministic(Distribution):
    """All probability on one action: the parameters themselves.

    For `Box` action spaces, where nothing is left to chance: policies that imitate by a
    `custom_loss`, controllers written by hand, algorithms that follow the slope of a
    value. There is no density, so no `log_prob`, `entropy` or `kl`, and `PG`, `A2C` and
    `PPO` refuse to learn by it.

    Args:
        parameters: Float `[..., D]`, the action.
        shape: Tuple of ints, shape of one action, of D entries. None is `(D,)`.

    Example:

    ```python
    Deterministic([[0.3, -0.2]]).sample()  # [[0.3, -0.2]]
    ```
    """

    def __init__(self, parameters, shape=None):
        super().__init__(parameters)
        if shape is not None:
            self.shape = tuple(shape)
            check_last_axis(
                "Deterministic",
                parameters,
                math.prod(self.shape),
                f"shape={self.shape}",
            )

    @staticmethod
    def parameters_size(action_space):
        """One for each entry of a `Box` space."""
        if not isinstance(action_space, spaces.Box):
            raise space_error("Deterministic", action_space, "Box")
        return int(np.prod(action_space.shape))

    @staticmethod
    def options_for(action_space):
        """The shape of an action."""
        return {"shape": action_space.shape}

    def sample(self, seed=None):
        """The parameters, float32 `[..., *shape]`; no random number is drawn."""
        return self._unflatten(self.parameters)

    def mode(self):
        """The parameters, float32 `[..., *shape]`."""
        return self._unflatten(self.parameters)

    def log_prob(self, actions):
        """Raises: there is no density."""
        raise self._no_density("log_prob")

    def entropy(self):
        """Raises: there is no density."""
        raise self._no_density("entropy")

    def kl(self, other):
        """Raises: there is no density."""
        raise self._no_density("kl")

    def _no_density(self, method):
        return NotImplementedError(
            f"Deterministic has no {method}: all probability is on one number, and "
            "nothing can be learnt from how probable an action was. Use kerasrl.DDPG "
            "or kerasrl.TD3, or a DiagonalGaussian."
        )
