"""Logits and values of actions that may not be taken."""

import numpy as np
from keras import ops

from kerasrl import action_masks
from kerasrl.action_masks import ILLEGAL
from kerasrl.distributions import Autoregressive, Categorical, MultiCategorical


def legal_options(mask, counts):
    """Where options may be chosen.

    Args:
        mask: Array `[..., sum(counts)]` of ones and zeros, as environments tell it.
        counts: List of integers, the numbers of options of each choice; see
            `kerasrl.action_masks.counts_of_options`.

    Returns:
        Bool `[..., sum(counts)]`. Where a choice has no option, as after the end of a
        game, all of it are let through: nothing is chosen there, and whatever is
        computed stays finite.

    Example:

    ```python
    legal_options(np.array([[0, 1, 0, 0]]), [2, 2])  # [[False, True, True, True]]
    ```
    """
    legal = ops.cast(mask, "bool")
    if len(counts) == 1:
        return ops.logical_or(legal, ~ops.any(legal, axis=-1, keepdims=True))
    choices = np.repeat(np.eye(len(counts), dtype=np.float32), counts, axis=0)
    numbers = ops.matmul(ops.cast(legal, "float32"), choices)
    empty = ops.matmul(ops.cast(numbers < 0.5, "float32"), choices.T)
    return ops.logical_or(legal, empty > 0.5)


def mask_illegal(values, legal):
    """Replaces logits, or values, of actions that may not be taken.

    Args:
        values: Float `[..., A]`.
        legal: Bool `[..., A]`, as from `legal_options`.

    Returns:
        Float32 `[..., A]`: `kerasrl.action_masks.ILLEGAL`, which halves do not hold,
        where an action may not be taken. No gradient flows there.

    Example:

    ```python
    mask_illegal(np.array([2.0, 3.0]), np.array([True, False]))  # [2.0, -1e9]
    ```
    """
    values = ops.cast(values, "float32")
    return ops.where(legal, values, ops.full_like(values, ILLEGAL))


def random_legal(uniform, legal):
    """Chooses among legal actions, each as probable as the others.

    Args:
        uniform: Float `[N]` in [0, 1), drawn uniformly.
        legal: Bool `[N, A]`, one at least in each row.

    Returns:
        int32 `[N]`.

    Example:

    ```python
    random_legal(np.array([0.6]), np.array([[True, False, True]]))  # [2]
    ```
    """
    ranks = ops.cumsum(ops.cast(legal, "float32"), axis=-1)
    numbers = ranks[:, -1]
    # Drawn below 1, but the product may round up to the number of them.
    chosen = ops.minimum(ops.floor(uniform * numbers), numbers - 1.0)
    return ops.cast(ops.argmax(ranks > chosen[:, None], axis=-1), "int32")


class MasksActions:
    """What `Policy` knows of masks; the other half of the class.

    Whatever a subclass computes in `call`, logits and values of actions that may not be
    taken are replaced in what the call returns.
    """

    #: Whether a mask in observations is honoured. Policies that were saved when none
    #: was have learnt to read it as any other observation.
    honours_masks = True
    #: Which output has a number for each option.
    _masked_output = "distribution"

    def __call__(self, inputs, *args, **kwargs):
        return self.masked(super().__call__(inputs, *args, **kwargs), inputs)

    @property
    def has_action_mask(self):
        """Whether observations say which actions may be taken."""
        return self.honours_masks and action_masks.has_mask(
            self.observation_space, self.action_space
        )

    @property
    def network_space(self):
        """The space of what networks get of observations: no mask is among it."""
        if self.has_action_mask:
            return action_masks.without_mask(self.observation_space)
        return self.observation_space

    def network_observations(self, observations):
        """Returns what networks get of observations, a tree as in `network_space`."""
        if self.has_action_mask:
            return action_masks.without_mask(observations)
        return observations

    def legal_actions(self, observations):
        """Returns which actions may be taken.

        Args:
            observations: Tree `[..., *shape]` as in the observation space.

        Returns:
            Bool `[..., A]`, one for each logit or value, of `MultiDiscrete` actions for
            the options of all choices side by side, or for every combination of them if
            the policy has those; `None` if observations do not say.
        """
        if not self.has_action_mask:
            return None
        legal = legal_options(
            observations[action_masks.KEY],
            action_masks.counts_of_options(self.action_space),
        )
        combinations = getattr(self, "combinations", None)
        return legal if combinations is None else combinations.legal(legal)

    def masked(self, outputs, inputs):
        """Replaces what stands for actions that may not be taken.

        Args:
            outputs: Dict as from `call` or `unroll`.
            inputs: Dict as for them.

        Returns:
            The dict, with logits, or action values, of `kerasrl.action_masks.ILLEGAL`
            where observations say so; for autoregressive distributions with
            `"legal_actions"`, which they are given.
        """
        key = self._masked_output
        if not isinstance(outputs, dict) or key not in outputs:
            return outputs  # Refused elsewhere.
        legal = self.legal_actions(inputs["observations"])
        if legal is None:
            return outputs
        found = getattr(self, "distribution_type", None)  # Value functions have none.
        if found is not None and issubclass(found.distribution_class, Autoregressive):
            # Its logits come of its model, later.
            return {**outputs, "legal_actions": legal}
        if outputs[key].shape[-1] != legal.shape[-1]:
            return outputs  # Refused elsewhere, rather than broadcast.
        return {**outputs, key: mask_illegal(outputs[key], legal)}

    def _check_maskable(self):
        if not self.has_action_mask or self._masked_output != "distribution":
            return
        found = self.distribution_type.distribution_class
        can = issubclass(found, (Autoregressive, Categorical, MultiCategorical))
        if not can:
            raise ValueError(
                f"Observations have an entry {action_masks.KEY!r}, and the policy's "
                f"distribution is {found.__name__}. Masks replace logits of "
                "Categorical and MultiCategorical distributions. Rename the entry, and "
                "use it in a policy of your own."
            )
