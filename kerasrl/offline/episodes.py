"""One episode as arrays, as it was seen from outside a policy."""

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces as gym_spaces

from kerasrl import spaces
from kerasrl.envs.actions import ActionConverter

#: Kinds of NumPy dtypes that are kept: floats, integers and truth values. Anything else
#: would have to be pickled.
PLAIN = "fiub"
#: How far actions may be beyond their bounds, relative to their size.
_SLACK = 1e-3


@dataclasses.dataclass
class Episode:
    """T steps from the start of an episode, or from where its record begins.

    `terminated` and `truncated` are of the last step. Where both are False the episode
    did not end there: its record does.

    Args:
        observations: Tree of arrays `[T + 1, ...]`. Row `t` is what `actions[t]` was
            chosen on, and the last row what followed the last action.
        actions: Tree of arrays `[T, ...]`, as the environment took them: Box actions
            within their bounds, choices counted from the `start` of the space.
        rewards: float64 `[T]`.
        terminated: Bool, whether the last step reached an end of the task.
        truncated: Bool, whether the episode was cut off after the last step.
        extras: Dict of trees of arrays `[T, ...]`, whatever else is known of each step:
            `log_probs` `[T]`, how probable each action was to whoever chose it;
            `emitted_actions`, before they were fit into the bounds; `infos`.

    Example:

    ```python
    episode = dataset.episodes[0]
    episode.length, episode.episode_return
    ```
    """

    observations: Any
    actions: Any
    rewards: np.ndarray
    terminated: bool = False
    truncated: bool = False
    extras: dict = dataclasses.field(default_factory=dict)

    @property
    def length(self):
        """Number of steps, T."""
        return len(self.rewards)

    @property
    def episode_return(self):
        """Sum of the rewards, without discount."""
        return float(np.sum(self.rewards, dtype=np.float64))

    @property
    def has_ended(self):
        """Whether the episode ended, and not only its record."""
        return self.terminated or self.truncated


class EpisodeCheck:
    """Checks episodes against spaces, and makes plain arrays of them.

    Args:
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.

    Raises:
        ValueError: A space is of a kind that kerasrl does not support.
    """

    def __init__(self, observation_space, action_space):
        spaces.check_space(observation_space, "observation")
        spaces.check_space(action_space, "action")
        self.observation_space = observation_space
        self.action_space = action_space
        self._converter = ActionConverter(action_space)

    def __call__(self, episode):
        """Returns an `Episode` of plain arrays.

        Raises:
            TypeError: It is no `Episode`.
            ValueError: It has no steps, or does not fit the spaces.
        """
        if not isinstance(episode, Episode):
            raise TypeError(
                f"Received {episode!r:.200}. Expected a kerasrl.offline.Episode."
            )
        rewards = np.asarray(episode.rewards)
        if rewards.ndim != 1 or rewards.dtype.kind not in PLAIN or not len(rewards):
            raise ValueError(
                f"Received rewards of shape {rewards.shape} and dtype {rewards.dtype}. "
                "Expected one number for each of at least one step, [T]."
            )
        rewards = rewards.astype(np.float64)
        _check_finite("rewards", rewards)
        length = len(rewards)
        observations = conform(
            episode.observations, self.observation_space, length + 1, "observations"
        )
        actions = conform(episode.actions, self.action_space, length, "actions")
        check_bounds(spaces.leaf_lister(self.action_space)(actions), self.action_space)
        self._converter.inverse(actions)  # Raises for choices that are out of range.
        flags = [
            _flag(name, getattr(episode, name)) for name in ("terminated", "truncated")
        ]
        extras = {
            _name(name): _plain_tree(f"extras[{name!r}]", tree, length)
            for name, tree in sorted(episode.extras.items())
        }
        return Episode(observations, actions, rewards, *flags, extras)


def conform(tree, space, length, role):
    """Returns a tree of arrays `[length, ...]` of the structure of a space.

    Args:
        tree: Tree of arrays; any mapping stands for Dict, any sequence for Tuple.
        space: A `gymnasium.spaces.Space` of supported leaves.
        length: Integer, the expected size of the leading axis.
        role: `"observations"` or `"actions"`, for the message.

    Returns:
        Tree of arrays in the dtypes they came in, or in those of the space where they
        came in others of the same kind that it holds.

    Raises:
        ValueError: Structure, shapes or dtypes do not fit, or a number is not finite.
    """
    try:
        leaves = spaces.leaf_lister(space)(tree)
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"Received {role} of another structure than the space {space}: "
            f"{tree!r:.200}. Expected a tree of arrays like it."
        ) from None
    named = spaces.named_leaves(space, role.removesuffix("s"))
    fitted = [
        _fit(leaf, part, length, name.replace("_space", "s", 1))
        for leaf, (name, part) in zip(leaves, named, strict=True)
    ]
    return tree_of(space, fitted)


def check_bounds(leaves, action_space):
    """Raises a ValueError if Box actions are not within their bounds.

    Observations may be beyond theirs: many environments say some that do not hold.

    Args:
        leaves: List of arrays `[T, ...]`, in the order of `kerasrl.spaces.leaf_lister`.
        action_space: Their `gymnasium.spaces.Space`.
    """
    named = spaces.named_leaves(action_space, "action")
    for array, (name, space) in zip(leaves, named, strict=True):
        if not isinstance(space, gym_spaces.Box) or not len(array):
            continue
        least, most = (x.astype(np.float64) for x in (array.min(0), array.max(0)))
        # What was rounded on the way, to halves at worst, is within.
        slack = _SLACK * np.maximum(1.0, np.maximum(abs(least), abs(most)))
        if (least < space.low - slack).any() or (most > space.high + slack).any():
            name = name.replace("_space", "s", 1)
            raise ValueError(
                f"Received `{name}` from {least.min():.6g} to {most.max():.6g} for "
                f"{space}. Expected actions within their bounds, "
                "as the environment took them: clip them, or scale them if they were "
                "normalized to [-1, 1] (kerasrl.offline.load(path, "
                "actions_normalized=True))."
            )


def denormalized(episode, action_space):
    """Returns an episode with Box actions from -1 to 1 laid over their bounds.

    Log-probabilities of them become those of the actions as they are then: densities of
    numbers that are spread over other bounds are as much smaller.

    Args:
        episode: `Episode`.
        action_space: `gymnasium.spaces.Space` of bounded `Box`es, or others that stay.

    Raises:
        ValueError: A `Box` is not bounded, or an action beyond -1 and 1; or there are
            `"emitted_actions"`, which only policies that act by bounds have.
    """
    if "emitted_actions" in episode.extras:
        raise ValueError(
            "Received actions_normalized=True for data with emitted_actions, whose "
            "actions are within their bounds already. Leave it out."
        )
    leaves = spaces.leaf_lister(action_space)(episode.actions)
    scaled, stretch, is_rounded = [], 0.0, False
    for array, (name, space) in zip(
        leaves, spaces.named_leaves(action_space, "action"), strict=True
    ):
        if isinstance(space, gym_spaces.Box):
            if not space.is_bounded():
                raise ValueError(
                    f"Received actions_normalized=True for `{name}`, {space}, which "
                    "has no bounds. Leave it out."
                )
            array = np.asarray(array)
            if (abs(array) > 1.0 + _SLACK).any():
                raise ValueError(
                    f"Received actions_normalized=True, and actions up to "
                    f"{abs(array).max():.6g} for `{name}`. Expected numbers from -1 to "
                    "1: leave it out."
                )
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            array = low + (np.clip(array, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
            stretch += np.log((high - low) / 2.0).sum()
            is_rounded |= space.dtype.kind != "f"
            array = array if space.dtype.kind == "f" else np.rint(array)
            array = array.astype(space.dtype)
        scaled.append(array)
    extras = dict(episode.extras)
    if "log_probs" in extras:
        if is_rounded:
            del extras["log_probs"]  # Densities of what was rounded since.
        else:
            extras["log_probs"] = extras["log_probs"] - np.float32(stretch)
    return dataclasses.replace(
        episode, actions=tree_of(action_space, scaled), extras=extras
    )


def tree_of(space, leaves):
    """Puts arrays together to a tree of the structure of a space.

    Args:
        space: A `gymnasium.spaces.Space` of supported leaves.
        leaves: List, in the order of `kerasrl.spaces.leaf_lister`.
    """
    return _build(space, iter(leaves))


def _build(space, leaves):
    # No function of its own scope: such a one is a cycle, which would keep arrays.
    if isinstance(space, gym_spaces.Dict):
        return {key: _build(child, leaves) for key, child in space.spaces.items()}
    if isinstance(space, gym_spaces.Tuple):
        return tuple(_build(child, leaves) for child in space.spaces)
    return next(leaves)


def _fit(leaf, space, length, name):
    array = np.asarray(leaf)
    expected = (length, *space.shape)
    if array.shape != expected or array.dtype.kind not in PLAIN:
        raise ValueError(
            f"Received `{name}` of shape {array.shape} and dtype {array.dtype}. "
            f"Expected: shape {expected} for {length} rows of {space}."
        )
    _check_finite(name, array)
    is_float, of_floats = array.dtype.kind == "f", space.dtype.kind == "f"
    if is_float and not of_floats:
        raise ValueError(
            f"Received `{name}` of dtype {array.dtype}. Expected whole numbers for "
            f"{space}."
        )
    if is_float and array.dtype.itemsize <= space.dtype.itemsize:
        return array  # Halves stay so: data sets are kept small with them.
    converted = array.astype(space.dtype)
    if array.dtype.kind in "iub" and not np.array_equal(converted, array):
        raise ValueError(
            f"Received `{name}` with numbers that {space.dtype} does not hold. "
            f"Expected those of {space}."
        )
    return converted


def _plain_tree(name, tree, length):
    if isinstance(tree, dict):
        return {_name(k): _plain_tree(f"{name}[{k!r}]", v, length)
                for k, v in sorted(tree.items())}  # fmt: skip
    if isinstance(tree, (tuple, list)):
        parts = enumerate(tree)
        return tuple(_plain_tree(f"{name}[{i}]", v, length) for i, v in parts)
    array = np.asarray(tree)
    if array.dtype.kind not in PLAIN or array.shape[:1] != (length,):
        raise ValueError(
            f"Received `{name}` of shape {array.shape} and dtype {array.dtype}. "
            f"Expected numbers, one row for each of {length} steps."
        )
    return array


def _name(name):
    if not isinstance(name, str) or not name:
        raise ValueError(f"Received {name!r} as the name of an extra. Expected a text.")
    return name


def _flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"Received {name}={value!r:.80} of an episode. Expected True or False, of "
            "its last step."
        )
    return bool(value)


def _check_finite(name, array):
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"Received `{name}` with NaN or infinity. Expected finite numbers."
        )
