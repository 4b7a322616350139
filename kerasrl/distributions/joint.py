"""Actions of several parts, each of its own kind."""

import numpy as np
import optree
from keras import ops

from kerasrl.distributions.distribution import (
    Distribution,
    check_last_axis,
    spread_seed,
)


class Joint(Distribution):
    """Independent parts of one action, for `Tuple` and `Dict` action spaces.

    The parameters of all parts stand side by side on the last axis, in the order of the
    leaves of `types`, dicts by their sorted keys. The log-probability, entropy and
    divergence of the whole action are the sums over its parts. `distribution_for` makes
    the types, and knows how many parameters a space needs.

    Args:
        parameters: Float `[..., P]`, P the sum of the parts' sizes.
        types: Tree (dicts and tuples, nested) of `DistributionType`, one for each part.

    Raises:
        ValueError: The last axis has another size, or there is no part at all.

    Example:

    ```python
    choice, number = gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-1, 1, (2,))
    space = gymnasium.spaces.Dict({"choice": choice, "number": number})
    distribution = distribution_for(space)(np.zeros((8, 7)))
    distribution.sample()  # {"choice": [8], "number": [8, 2]}
    ```
    """

    def __init__(self, parameters, types):
        super().__init__(parameters)
        leaves, self._structure = optree.tree_flatten(types)
        if not leaves:
            raise ValueError(f"A joint distribution needs parts. Received: {types!r}.")
        sizes = [leaf.parameters_size for leaf in leaves]
        check_last_axis("Joint", self.parameters, sum(sizes), f"parts of {sizes}")
        ends = np.cumsum(sizes).tolist()
        self.parts = [
            leaf(self.parameters[..., end - size : end])
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]

    def sample(self, seed=None):
        """Draws actions, a tree of `[..., *shape]`. See `Distribution.sample`."""
        pairs = zip(self.parts, spread_seed(seed, len(self.parts)), strict=True)
        return self._structure.unflatten([part.sample(seed) for part, seed in pairs])

    def mode(self):
        """Most probable actions, a tree of `[..., *shape]`."""
        return self._structure.unflatten([part.mode() for part in self.parts])

    def log_prob(self, actions):
        """Log-probability of actions, a tree of `[..., *shape]`.

        See `Distribution.log_prob`.
        """
        try:
            leaves = self._structure.flatten_up_to(actions)
        except ValueError as error:
            raise ValueError(
                "Joint.log_prob needs a tree of actions like the action space. "
                f"Received: {optree.tree_structure(actions)}. Expected: "
                f"{self._structure}."
            ) from error
        pairs = zip(self.parts, leaves, strict=True)
        return _total([part.log_prob(leaf) for part, leaf in pairs])

    def entropy(self):
        """Entropy, float32 `[...]`, in nats."""
        return _total([part.entropy() for part in self.parts])

    def kl(self, other):
        """KL(self || other), float32 `[...]`. See `Distribution.kl`."""
        self._check_kl(other)
        if self._structure != other._structure:
            raise ValueError(
                "KL divergence is defined between joint distributions of the same "
                f"parts. Received: {other._structure}. Expected: {self._structure}."
            )
        pairs = zip(self.parts, other.parts, strict=True)
        return _total([part.kl(other_part) for part, other_part in pairs])


def _total(parts):
    return ops.sum(ops.stack(parts), axis=0)
