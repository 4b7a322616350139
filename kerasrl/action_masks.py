"""Which actions may be taken, said by a part of the observations.

An environment says so by the entry `"action_mask"` of its observations, a `Dict`: ones
for the actions that may be taken, zeros for the others. That makes masks a part of
whatever observations are in: rollouts, replay, workers, checkpoints.
"""

import math

import numpy as np
from gymnasium import spaces

#: The key of the mask in observations, and in infos.
KEY = "action_mask"
#: The logit, or value, of actions that may not be taken. Finite, so that no NaN comes
#: of it; probabilities are exactly 0. Below `kerasrl.losses.IMPOSSIBLE`.
ILLEGAL = -1e9
#: The key under which observations stand beside their mask if they were no dict.
OBSERVATION = "observation"


def counts_of_options(action_space):
    """Returns the numbers of options of the choices that an action consists of.

    Args:
        action_space: A `gymnasium.Space`.

    Returns:
        List of integers: one for `Discrete`, one for each choice of `MultiDiscrete`, in
        row-major order; `None` for other spaces, which have no masks.

    Example:

    ```python
    counts_of_options(gymnasium.spaces.MultiDiscrete([3, 2]))  # [3, 2]
    ```
    """
    if isinstance(action_space, spaces.Discrete):
        return [int(action_space.n)]
    if isinstance(action_space, spaces.MultiDiscrete):
        return [int(count) for count in action_space.nvec.ravel()]
    return None


def has_mask(observation_space, action_space):
    """Whether observations say which actions may be taken.

    Args:
        observation_space, action_space: Spaces of one environment.

    Returns:
        Bool, whether there is an entry `"action_mask"`.

    Raises:
        ValueError: There is, and it cannot be a mask of these actions, or there is
            nothing beside it.

    Example:

    ```python
    has_mask(gymnasium.spaces.Box(0, 1, (4,)), gymnasium.spaces.Discrete(2))  # False
    ```
    """
    if not isinstance(observation_space, spaces.Dict):
        return False
    if KEY not in observation_space.spaces:
        return False
    counts = counts_of_options(action_space)
    if counts is None:
        raise ValueError(
            f"Observations have an entry {KEY!r}, and the action space is "
            f"{action_space}. There are masks for Discrete and MultiDiscrete actions "
            "only. Rename the entry if it is something else."
        )
    leaf = observation_space[KEY]
    if leaf.shape != (sum(counts),) or not _holds_flags(leaf):
        raise ValueError(
            f"Observations have an entry {KEY!r} of the space {leaf}. Expected: "
            f"MultiBinary({sum(counts)}), or a Box of that shape from 0 to 1, one "
            f"entry for each option of {action_space}: 1 where it may be chosen. "
            "Rename the entry if it is something else."
        )
    if len(observation_space.spaces) == 1:
        raise ValueError(
            f"Observations consist of {KEY!r} alone, which says what may be done and "
            "not what is the case. Add another entry, even if it is a constant."
        )
    return True


def without_mask(tree):
    """Returns observations, or their space, as networks get them: without the mask.

    Args:
        tree: A `Dict` space with a mask, or a dict of observations from it.

    Returns:
        The same without the mask; what stands under `"observation"` if that is all.

    Example:

    ```python
    without_mask({"observation": 1, "action_mask": 2})  # 1
    without_mask({"hand": 0, "table": 1, "action_mask": 2})  # {"hand": 0, "table": 1}
    ```
    """
    is_space = isinstance(tree, spaces.Dict)
    items = tree.spaces.items() if is_space else tree.items()
    rest = [(key, value) for key, value in items if key != KEY]
    if len(rest) == 1 and rest[0][0] == OBSERVATION:
        return rest[0][1]
    return spaces.Dict(rest) if is_space else dict(rest)


def with_mask_space(observation_space, action_space):
    """Returns the space of observations that have got a mask.

    Args:
        observation_space: That of the observations without one.
        action_space: `Discrete` or `MultiDiscrete`.

    Returns:
        A `Dict`: the same with another entry, or, if it was no `Dict`, with the
        observation under `"observation"`.
    """
    mask = spaces.MultiBinary(sum(counts_of_options(action_space)))
    if isinstance(observation_space, spaces.Dict):
        return spaces.Dict([*observation_space.spaces.items(), (KEY, mask)])
    return spaces.Dict([(OBSERVATION, observation_space), (KEY, mask)])


def has_legal(mask, counts):
    """Where each choice has an option that may be chosen.

    Args:
        mask: Array `[..., sum(counts)]`.
        counts: List of integers, from `counts_of_options`.

    Returns:
        Bool array `[...]`.

    Example:

    ```python
    has_legal(np.array([[0, 1, 1, 0], [0, 1, 0, 0]]), counts=[2, 2])  # [True, False]
    ```
    """
    legal = mask > 0
    if len(counts) == 1:
        return legal.any(-1)
    starts = np.cumsum([0, *counts[:-1]])
    return np.logical_or.reduceat(legal, starts, axis=-1).all(-1)


def are_legal(mask, actions, counts):
    """Where actions consist of options that may be chosen.

    Args:
        mask: Array `[..., sum(counts)]`.
        actions: Int array `[..., *shape]`, choices counted from zero.
        counts: List of integers, from `counts_of_options`.

    Returns:
        Bool array `[...]`.

    Example:

    ```python
    are_legal(np.array([[0, 1], [0, 1]]), np.array([1, 0]), counts=[2])  # [True, False]
    ```
    """
    lead = mask.shape[:-1]
    offsets = np.cumsum([0, *counts[:-1]])
    chosen = np.asarray(actions).reshape(*lead, len(counts)) + offsets
    return (np.take_along_axis(mask, chosen, axis=-1) > 0).all(-1)


def _holds_flags(leaf):
    if isinstance(leaf, spaces.MultiBinary):
        return True
    if isinstance(leaf, spaces.MultiDiscrete):
        return bool((leaf.nvec <= 2).all() and (np.asarray(leaf.start) == 0).all())
    if not isinstance(leaf, spaces.Box) or not math.prod(leaf.shape):
        return False
    return bool((leaf.low >= 0).all() and (leaf.high <= 1).all())
