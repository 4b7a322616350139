"""Several choices at once."""

import math

import numpy as np
from gymnasium import spaces
from keras import ops

from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.distribution import (
    Distribution,
    check_last_axis,
    space_error,
)


class MultiCategorical(Distribution):
    """Independent choices, each out of its own number of options.

    For `MultiDiscrete` action spaces. The logits of all choices stand side by side on
    the last axis; `-inf` masks an option, as in `Categorical`.

    Args:
        parameters: Float `[..., sum(nvec)]`, logits of the first choice, then of the
            second, and so on.
        nvec: Ints, number of options of each choice. A nested list (or array of more
            dimensions) gives actions its shape; choices are in row-major order.

    Example:

    ```python
    distribution = MultiCategorical(np.zeros((8, 5)), nvec=[2, 3])
    distribution.sample().shape  # (8, 2)
    ```
    """

    def __init__(self, parameters, nvec):
        super().__init__(parameters)
        nvec = np.asarray(nvec)
        if nvec.ndim == 0 or nvec.size == 0 or nvec.min() < 1:
            raise ValueError(
                "`nvec` must list the number of options of each choice, at least 1 "
                f"each. Received: nvec={nvec.tolist()!r}."
            )
        sizes = [int(n) for n in nvec.ravel()]
        check_last_axis(
            "MultiCategorical", self.parameters, sum(sizes), f"nvec={nvec.tolist()}"
        )
        self.shape = nvec.shape
        self.choices = Categorical(self._align(sizes))

    @staticmethod
    def parameters_size(action_space):
        """Total number of options of a `MultiDiscrete` space."""
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise space_error("MultiCategorical", action_space, "MultiDiscrete")
        return int(np.sum(action_space.nvec))

    @staticmethod
    def options_for(action_space):
        """The numbers of options."""
        return {"nvec": action_space.nvec}

    def sample(self, seed=None):
        """Draws actions, int32 `[..., *shape]`. See `Distribution.sample`."""
        return self._unflatten(self.choices.sample(seed))

    def mode(self):
        """Most probable actions, int32 `[..., *shape]`."""
        return self._unflatten(self.choices.mode())

    def log_prob(self, actions):
        """Log-probability of actions, int `[..., *shape]`.

        See `Distribution.log_prob`.
        """
        actions = self._flatten(actions, math.prod(self.shape))
        return ops.sum(self.choices.log_prob(actions), axis=-1)

    def entropy(self):
        """Entropy, float32 `[...]`, in nats."""
        return ops.sum(self.choices.entropy(), axis=-1)

    def kl(self, other):
        """KL(self || other), float32 `[...]`. See `Distribution.kl`."""
        self._check_kl(other)
        return ops.sum(self.choices.kl(other.choices), axis=-1)

    def _align(self, sizes):
        """Logits `[..., len(sizes), max(sizes)]`, missing options masked."""
        logits, widest = self.parameters, max(sizes)
        if min(sizes) != widest:
            # Missing options point to one extra column of -inf.
            starts = np.cumsum([0, *sizes[:-1]])[:, None]
            options = np.arange(widest)
            columns = np.where(
                options < np.array(sizes)[:, None], starts + options, sum(sizes)
            )
            masked = ops.full_like(logits[..., :1], -np.inf)
            logits = ops.concatenate([logits, masked], axis=-1)
            logits = ops.take(logits, columns.ravel(), axis=-1)
        batch = ops.shape(logits)[:-1]
        return ops.reshape(logits, (*batch, len(sizes), widest))
