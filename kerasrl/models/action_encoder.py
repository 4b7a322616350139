"""From previous actions to one vector."""

import numpy as np
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl import spaces
from kerasrl.models.encoder import Encoder


class ActionEncoder(Encoder):
    """Turns actions, as a policy emitted them, into what policies see of the last one.

    Choices become one-hot vectors. Numbers become those that the environment got:
    rounded if it takes integers, and within the bounds. So it makes no difference
    whether an action is given before or after that conversion, and a policy learns
    from what happened rather than from what it wished.

    Args:
        action_space: A `gymnasium.spaces.Space`.

    Input shape:
        Tree `[N, ...]` with the structure of the space, choices counted from zero.

    Output shape:
        `(N, features)`.

    Example:

    ```python
    encoder = ActionEncoder(gymnasium.spaces.Discrete(3, start=5))
    encoder(np.array([0, 2]))  # the one-hot rows of 5 and 7
    ```
    """

    # Whatever its rank, an action is joined to features.
    keeps_images = False

    def __init__(self, action_space, **kwargs):
        super().__init__(spaces.emitted(action_space), **kwargs)
        self.taken = spaces.leaves(action_space)

    def encode(self, index, value):
        leaf = self.taken[index]
        if isinstance(leaf, gym_spaces.Box):
            value = ops.cast(value, "float32")
            if leaf.dtype.kind != "f":
                value = ops.round(value)
            if leaf.bounded_below.any():
                value = ops.maximum(value, leaf.low.astype(np.float32))
            if leaf.bounded_above.any():
                value = ops.minimum(value, leaf.high.astype(np.float32))
        return super().encode(index, value)
