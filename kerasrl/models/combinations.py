"""Several choices as one, for networks with a value for every action."""

import math

import numpy as np
from gymnasium import spaces
from keras import ops

from kerasrl.action_masks import counts_of_options

#: Spaces of which each action can have a value.
DISCRETE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
#: With more, a network would consist of its last layer, and see most of them never.
MOST = 4096


class Combinations:
    """Numbers the actions of a discrete space, every combination of its choices.

    Action values need one number for each action, and the best of all is exact only if
    every combination has a value of its own: one choice may be worth more or less with
    another. So `MultiDiscrete` and `MultiBinary` actions are numbered, the last choice
    counting fastest. Rollouts and replay hold the actions themselves.

    Args:
        action_space: `Discrete`, `MultiDiscrete` or `MultiBinary`.

    Raises:
        TypeError: The space is of another kind.
        ValueError: There are more than `MOST` combinations.

    Attributes:
        count: Integer, number of actions.

    Example:

    ```python
    combinations = Combinations(gymnasium.spaces.MultiDiscrete([3, 2]))
    combinations.number(np.array([[2, 1], [0, 0]]))  # [5, 0]
    combinations.actions(np.array([5, 0]))  # [[2, 1], [0, 0]]
    ```
    """

    def __init__(self, action_space):
        self.is_single = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.MultiBinary):
            counts = [2] * math.prod(action_space.shape)
        else:
            counts = counts_of_options(action_space)
        if counts is None:
            raise TypeError(
                "Actions that are no choices cannot be numbered. Received: "
                f"{action_space}."
            )
        self.count = math.prod(counts)
        if self.count > MOST:
            raise ValueError(
                f"{action_space} has {self.count:,} actions, every combination of its "
                f"{len(counts)} choices. An algorithm that values each of them can "
                f"have {MOST:,} at most. Use kerasrl.PPO, which chooses one by one, or "
                "give fewer choices."
            )
        self._counts = counts
        self._shape = action_space.shape

    def number(self, actions):
        """Returns the numbers of actions.

        Args:
            actions: Int `[..., *shape]`, choices counted from zero.

        Returns:
            Int `[...]`; what was given, if there is a single choice.
        """
        if self.is_single:
            return actions
        flat = ops.reshape(ops.cast(actions, "int32"), (*self._lead(actions), -1))
        strides = np.cumprod([1, *self._counts[:0:-1]])[::-1].astype(np.int32)
        return ops.sum(flat * strides, axis=-1)

    def actions(self, numbers):
        """Returns the actions that have these numbers, int32 `[..., *shape]`."""
        if self.is_single:
            return numbers
        rows = ops.take(ops.convert_to_tensor(self._table()), numbers, axis=0)
        return ops.reshape(rows, (*ops.shape(numbers), *self._shape))

    def legal(self, options):
        """Returns which actions consist of legal options only.

        Args:
            options: Bool `[..., sum(counts)]`, from `legal_options`.

        Returns:
            Bool `[..., count]`.
        """
        if self.is_single:
            return options
        starts = np.cumsum([0, *self._counts[:-1]])
        legal = None
        for start, column in zip(starts, self._table().T, strict=True):
            part = ops.take(options, start + column, axis=-1)
            legal = part if legal is None else ops.logical_and(legal, part)
        return legal

    def _table(self):
        """The choices of every action, int32 `[count, number of choices]`."""
        grid = np.indices(self._counts, np.int32)
        return grid.reshape(len(self._counts), -1).T

    def _lead(self, actions):
        shape = ops.shape(actions)
        return shape[: len(shape) - len(self._shape)]
