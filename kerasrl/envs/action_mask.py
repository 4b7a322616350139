"""Masks that environments tell by a method or in infos become observations."""

import gymnasium
import numpy as np

from kerasrl.action_masks import (
    KEY,
    OBSERVATION,
    counts_of_options,
    has_mask,
    with_mask_space,
)

_METHOD = "action_masks"


class ActionMaskObservation(gymnasium.Wrapper):
    """Adds a mask, which says what actions may be taken, to the observations.

    The mask comes from the environment's method `action_masks()`, as sb3-contrib has
    it, or else from `info["action_mask"]` of `reset` and `step`, as in gymnasium's
    Taxi. It becomes the entry `"action_mask"` of the observations, which every
    algorithm for discrete actions honours; what was no dict stands beside it under
    `"observation"`.

    Environments with the method are wrapped by `kerasrl.make_envs`, and so by `fit` and
    `evaluate`, without being asked, unless they, or a wrapper of theirs, have
    `action_masks = None`. For the others, whose mask nobody can know of
    before the first `reset`, there is a warning.

    Args:
        env: `gymnasium.Env` with `Discrete` or `MultiDiscrete` actions. The mask has
            one entry for each option, for `MultiDiscrete` those of the first choice
            first; or it is a sequence of one mask for each choice. Where an episode
            terminated it need not be told.

    Raises:
        ValueError: Actions are of another kind, or there is such a mask already. Later,
            from `reset` and `step`: there is no mask, or one of another shape.

    Example:

    ```python
    env = ActionMaskObservation(gymnasium.make("Taxi-v4"))
    env.reset(seed=0)[0]  # {"observation": 314, "action_mask": array([1, 0, ...])}
    ```
    """

    def __init__(self, env):
        super().__init__(env)
        self._counts = counts_of_options(env.action_space)
        if self._counts is None:
            raise ValueError(
                f"{env} has the action space {env.action_space}. There are masks for "
                "Discrete and MultiDiscrete actions only. To leave its masks out, wrap "
                "it in one with the attribute action_masks = None."
            )
        if has_mask(env.observation_space, env.action_space):
            raise ValueError(f"Observations of {env} have an entry {KEY!r} already.")
        self._is_dict = isinstance(env.observation_space, gymnasium.spaces.Dict)
        self._has_method = _has_method(env)
        self.observation_space = with_mask_space(
            env.observation_space, env.action_space
        )

    def reset(self, *, seed=None, options=None):
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, False), info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation = self._with_mask(observation, info, terminated)
        return observation, reward, terminated, truncated, info

    def _with_mask(self, observation, info, terminated):
        if self._has_method:
            # Nothing follows an end of the task; not all can say what might.
            mask = None if terminated else self.env.get_wrapper_attr(_METHOD)()
        else:
            mask = info.get(KEY)
        if mask is None and terminated:
            mask = np.ones(sum(self._counts), np.int8)
        mask = self._as_array(mask)
        if self._is_dict:
            return {**observation, KEY: mask}
        return {OBSERVATION: observation, KEY: mask}

    def _as_array(self, mask):
        if isinstance(mask, (list, tuple)) and len(mask) and np.ndim(mask[0]):
            mask = np.concatenate([np.asarray(part) for part in mask])
        array = np.asarray(mask)
        if array.ndim > 1 and len(set(self._counts)) == 1:
            array = array.ravel()
        if array.shape != (sum(self._counts),) or array.dtype.kind not in "biuf":
            source = f"{_METHOD}()" if self._has_method else f"info[{KEY!r}]"
            raise ValueError(
                f"{self.env} gave as {source}: {mask!r}. Expected: an array of "
                f"{sum(self._counts)} ones and zeros, one for each option of "
                f"{self.env.action_space}."
            )
        return (array > 0).astype(np.int8)


def with_told_masks(env):
    """Wraps an environment whose masks would not be seen otherwise.

    Args:
        env: `gymnasium.Env`.

    Returns:
        The environment, in an `ActionMaskObservation` if it has `action_masks()` and no
        mask in its observations.

    Raises:
        ValueError: It has, and actions are neither `Discrete` nor `MultiDiscrete`.
    """
    if not _has_method(env):
        return env
    if counts_of_options(env.action_space) and has_mask(
        env.observation_space, env.action_space
    ):
        return env
    return ActionMaskObservation(env)


def _has_method(env):
    return env.has_wrapper_attr(_METHOD) and callable(env.get_wrapper_attr(_METHOD))
