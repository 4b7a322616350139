"""Observations with goals, and what environments are asked about other goals."""

import numpy as np
import optree
from gymnasium import spaces as gym_spaces

from kerasrl import spaces

#: The keys of observations with goals, as gymnasium-robotics has them.
KEYS = ("observation", "achieved_goal", "desired_goal")
#: What environments may be asked: the kinds of dtypes of the answers, in words too.
QUESTIONS = {
    "compute_reward": ("fiub", "numbers"),
    "compute_terminated": ("b", "bools"),
}


def ask(name, function, achieved, desired, infos):
    """Asks about many steps at once, or one by one if the function takes only one.

    Args:
        name: `"compute_reward"` or `"compute_terminated"`.
        function: Takes achieved goals, desired goals and a dict of infos, either of
            many steps, `[M, ...]`, or of one.
        achieved: Tree of arrays `[M, ...]`, goals that were achieved with M steps.
        desired: Tree of arrays `[M, ...]`, goals that might have been desired.
        infos: Dict of arrays `[M, ...]`.

    Returns:
        Array `[M]`: float rewards, or bools.

    Raises:
        ValueError: The function returned something else than one finite number, or
            bool, for each step.

    Example:

    ```python
    rewards = ask("compute_reward", env.compute_reward, achieved, desired, {})
    ```
    """
    count = len(optree.tree_leaves(achieved)[0])
    steps = (achieved, desired, infos)
    try:
        answer = np.asarray(function(*steps))
    except (TypeError, ValueError):  # It may branch by what it takes to be one number.
        answer = np.array(None)
    if answer.shape == ():
        # Many say `return False`, or take the norm over all axes.
        answer = np.array([function(*_step(steps, index)) for index in range(count)])
    kinds, expected = QUESTIONS[name]
    if answer.shape != (count,) or answer.dtype.kind not in kinds:
        raise ValueError(
            f"{name} was asked about {count} steps at once. Received: an answer of "
            f"shape {answer.shape} and dtype {answer.dtype}. Expected: {expected} of "
            f"shape {(count,)}. Let it work along the last axis of goals, as in "
            "np.linalg.norm(achieved_goal - desired_goal, axis=-1)."
        )
    if not np.isfinite(answer).all():
        raise ValueError(
            f"{name} returned {answer[~np.isfinite(answer)][0]}. Expected finite "
            "numbers."
        )
    return answer


def check_space(space):
    """Raises a ValueError unless observations have goals that may be exchanged.

    Args:
        space: `gymnasium.Space`, the observation space of one environment.
    """
    keys = set(space.spaces) if isinstance(space, gym_spaces.Dict) else set()
    if not keys.issuperset(KEYS):
        raise ValueError(
            "Hindsight replay needs observations that are dicts with the keys "
            f"{list(KEYS)}, as those of gymnasium-robotics. Received: {space}."
        )
    achieved, desired = space["achieved_goal"], space["desired_goal"]
    structures = [
        optree.tree_structure(spaces.zeros(x, 1)) for x in (achieved, desired)
    ]
    if structures[0] != structures[1] or not all(
        map(_may_exchange, spaces.leaves(achieved), spaces.leaves(desired))
    ):
        raise ValueError(
            "What is achieved becomes what is desired, so both must have the same "
            f"space, but for the bounds of floats. Received: {achieved} and {desired}."
        )


def _step(steps, index):
    return optree.tree_map(lambda leaf: leaf[index], steps)


def _may_exchange(achieved, desired):
    if all(x.dtype.kind == "f" for x in (achieved, desired)):
        return achieved.shape == desired.shape
    return achieved == desired
