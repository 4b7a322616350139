"""Where data sets come from."""

import warnings
from pathlib import Path

import numpy as np
from gymnasium import spaces as gym_spaces

from kerasrl import checks, spaces
from kerasrl.offline import json_lines, minari_files, shards, writer
from kerasrl.offline.dataset import Dataset
from kerasrl.offline.episodes import Episode, EpisodeCheck, denormalized, tree_of
from kerasrl.offline.table import Table, concatenate


def load(
    path,
    damaged="refuse",
    verify=True,
    observation_space=None,
    action_space=None,
    actions_normalized=False,
):
    """Opens a data set.

    Args:
        path: Path of a directory that `Writer`, `fit(output=...)` or `evaluate` wrote;
            of a data set of Minari in HDF5, or its id; or of RLlib's lines of JSON, one
            file or a directory of them, zipped or not.
        damaged: `"refuse"` to raise on a file, episode or line that is damaged,
            `"skip"` to leave it out and warn, with the number of them in
            `dataset.num_damaged`.
        verify: Whether checksums are compared, which reads every file once.
        observation_space, action_space: `gymnasium.spaces.Space` of one environment,
            for lines of JSON, which do not say them. `None` for all others.
        actions_normalized: Whether `Box` actions of other libraries are kept as numbers
            from -1 to 1, which stand for the bounds of the space, as RLlib keeps them
            unless it was told otherwise. It is never guessed.

    Returns:
        A `kerasrl.offline.Dataset`. It has what is there now: load it again to see what
        was written since.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is no data set, or a file is damaged; actions are beyond their
            bounds.

    Example:

    ```python
    dataset = kerasrl.offline.load("data/cartpole")
    ```
    """
    checks.choice("damaged", damaged, ("refuse", "skip"))
    verify = checks.flag("verify", verify)
    normalized = checks.flag("actions_normalized", actions_normalized)
    own_spaces = observation_space, action_space
    folder, path = minari_files.find(path), Path(path).expanduser()
    index, lines = path / shards.INDEX, json_lines.find(path)
    knows_spaces = index.exists() or folder is not None
    if knows_spaces and own_spaces != (None, None):
        raise ValueError(
            f"Received spaces for {path}, which says its own. Leave them out."
        )
    if index.exists() and normalized:
        raise ValueError(
            f"Received actions_normalized=True for {path}, whose actions are those "
            "that the environment took. Leave it out."
        )
    if index.exists():
        return _load_shards(path, index, damaged, verify)
    if folder is not None:
        *own_spaces, parts, metadata, errors = minari_files.read(folder, normalized)
        report_damaged(errors, damaged)
        return Dataset(*own_spaces, parts, metadata, len(errors))
    if not path.exists():
        raise FileNotFoundError(f"There is no data set at {path}.")
    if not lines:
        raise ValueError(
            f"{path} is no data set. Expected a directory with {shards.INDEX}, "
            "main_data.hdf5 of Minari, or RLlib's lines in *.json or *.zip."
        )
    if None in own_spaces:
        raise ValueError(
            f"Received {path}, lines of JSON, which do not say their spaces. Pass "
            "observation_space and action_space, as an environment has them."
        )
    return _load_lines(lines, own_spaces, damaged, normalized)


def _load_lines(paths, own_spaces, damaged, normalized):
    episodes, errors = json_lines.read(paths, *own_spaces)
    check = EpisodeCheck(*own_spaces)
    parts: list = []
    for episode in episodes:
        try:
            if normalized:
                episode = denormalized(episode, own_spaces[1])
            table = Table.of([check(episode)], *own_spaces)
        except ValueError as error:
            errors.append(shards.DamagedFile(f"An episode does not fit: {error}"))
            continue
        parts.append(table)
    report_damaged(errors, damaged)
    same = [part.structures == parts[0].structures for part in parts]
    if parts and all(same):
        parts = [concatenate(parts, sorted(parts[0].structures))]
    return Dataset(*own_spaces, parts, None, len(errors))


def _load_shards(path, index, damaged, verify):
    index = writer.read_index(index)
    parts, errors = [], []
    names = sorted(each.name for each in path.iterdir())
    for name in filter(shards.NAME.fullmatch, names):
        try:
            parts.append(shards.Shard(path / name, *index["spaces"], verify))
        except shards.DamagedFile as error:
            errors.append(error)
    report_damaged(errors, damaged)
    return Dataset(*index["spaces"], parts, index["metadata"], len(errors))


def report_damaged(errors, damaged):
    """Raises the first of some errors, or warns of their number.

    Args:
        errors: List of exceptions.
        damaged: `"refuse"` or `"skip"`.
    """
    if errors and damaged == "refuse":
        raise errors[0]
    if errors:
        warnings.warn(
            f"{len(errors)} damaged files or lines were skipped. The first: "
            f"{errors[0]}",
            stacklevel=4,
        )


def from_episodes(episodes, observation_space, action_space, metadata=None):
    """Makes a data set in memory of episodes.

    Args:
        episodes: Iterable of `Episode`s, all with the same extras.
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        metadata: Dict, what is known of their origin.

    Returns:
        A `kerasrl.offline.Dataset`.

    Raises:
        TypeError, ValueError: An episode does not fit the spaces, or the others.
    """
    check = EpisodeCheck(observation_space, action_space)
    checked = [check(episode) for episode in episodes]
    parts = []
    if checked:
        parts.append(Table.of(checked, observation_space, action_space))
    return Dataset(observation_space, action_space, parts, metadata)


def from_arrays(
    observations,
    actions,
    rewards,
    terminated,
    truncated=None,
    *,
    next_observations=None,
    extras=None,
    observation_space=None,
    action_space=None,
    metadata=None,
):
    """Makes a data set in memory of steps in the order in which they were taken.

    Args:
        observations: Tree of arrays `[S, ...]`, what each action was chosen on.
        actions: Tree of arrays `[S, ...]`, as the environment took them.
        rewards: Float `[S]`.
        terminated: Bool `[S]`, whether the step reached an end of the task.
        truncated: Bool `[S]`, whether an episode was cut off after the step; `None` if
            none was. What comes after the last end is kept as an unfinished episode.
        next_observations: Tree of arrays `[S, ...]`, what followed each action. Where
            that is not the observation of the next row, an episode is cut: steps were
            put together that do not follow each other. Without it, the step that is
            last in an episode that was cut off or is unfinished is left out, because
            nobody knows what followed it; where it terminated, its own observation
            stands for that, which no value is asked of.
        extras: Dict of trees of arrays `[S, ...]`, such as `log_probs`.
        observation_space, action_space: `gymnasium.spaces.Space`. Guessed from arrays
            if `None`: Discrete for integer actions, unbounded Box for other arrays.
        metadata: Dict, what is known of their origin.

    Returns:
        A `kerasrl.offline.Dataset`.

    Raises:
        ValueError: Shapes do not fit, or a space is not given and cannot be guessed.

    Example:

    ```python
    dataset = kerasrl.offline.from_arrays(
        observations, actions, rewards, terminals, timeouts
    )
    ```
    """
    rewards = np.asarray(rewards)
    steps = len(rewards)
    ends = {"terminated": terminated, "truncated": truncated}
    for name, value in ends.items():
        array = np.zeros(steps, bool) if value is None else np.asarray(value)
        if array.shape != (steps,) or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"Received {name} of shape {array.shape} for {steps} rewards. Expected "
                "one True or False for each."
            )
        ends[name] = array.astype(bool)
    observation_space = observation_space or _guess(observations, "observation")
    action_space = action_space or _guess(actions, "action")
    columns = {
        "observations": (observations, observation_space),
        "actions": (actions, action_space),
        "next_observations": (next_observations, observation_space),
    }
    leaves = {}
    for name, (tree, space) in columns.items():
        if tree is not None:
            leaves[name] = [np.asarray(x) for x in spaces.leaf_lister(space)(tree)]
            if any(x.shape[:1] != (steps,) for x in leaves[name]):
                raise ValueError(
                    f"Received {name} with {[len(x) for x in leaves[name]]} rows for "
                    f"{steps} rewards. Expected as many."
                )
    extras = _checked_extras(extras or {}, steps)
    stops = ends["terminated"] | ends["truncated"]
    for now, following in zip(
        leaves["observations"], leaves.get("next_observations", ()), strict=False
    ):
        if steps > 1 and now.shape == following.shape:  # Others are refused below.
            if now.dtype.kind == following.dtype.kind == "f":
                # One of them may have been kept with fewer digits.
                coarser = min(now.dtype, following.dtype, key=lambda x: x.itemsize)
                now, following = now.astype(coarser), following.astype(coarser)
            differs = now[1:] != following[:-1]
            stops[:-1] |= differs.reshape(steps - 1, -1).any(axis=1)
    lasts = np.flatnonzero(stops)
    if steps and (not len(lasts) or lasts[-1] != steps - 1):
        lasts = np.append(lasts, steps - 1)
    begins = np.concatenate([[0], lasts[:-1] + 1]) if len(lasts) else []
    episodes = []
    for begin, last in zip(begins, lasts, strict=True):
        by_termination, cut = ends["terminated"][last], ends["truncated"][last]
        following = leaves.get("next_observations")
        stop = last + 1
        if following is None and not by_termination:
            stop, cut = last, False
        if stop == begin:
            continue
        if following is None:
            # The observation of the step left out is what followed the one before.
            final = [x[last : last + 1] for x in leaves["observations"]]
        else:
            final = [x[last : last + 1] for x in following]
        seen = [
            np.concatenate([x[begin:stop], y])
            for x, y in zip(leaves["observations"], final, strict=True)
        ]
        episodes.append(
            Episode(
                tree_of(observation_space, seen),
                tree_of(action_space, [x[begin:stop] for x in leaves["actions"]]),
                rewards[begin:stop],
                bool(by_termination),
                bool(cut),
                _rows(extras, slice(begin, stop)),
            )
        )
    return from_episodes(episodes, observation_space, action_space, metadata)


def _checked_extras(tree, steps, name="extras"):
    if isinstance(tree, dict):
        parts = (
            (k, _checked_extras(x, steps, f"{name}[{k!r}]")) for k, x in tree.items()
        )
        return dict(parts)
    if isinstance(tree, (tuple, list)):
        parts = enumerate(tree)
        return tuple(_checked_extras(x, steps, f"{name}[{i}]") for i, x in parts)
    array = np.asarray(tree)
    if array.shape[:1] != (steps,):
        raise ValueError(
            f"Received {name} of shape {array.shape} for {steps} rewards. Expected a "
            "row for each."
        )
    return array


def _rows(tree, index):
    if isinstance(tree, dict):
        return {name: _rows(part, index) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_rows(part, index) for part in tree)
    return tree[index]


def _guess(tree, role):
    if isinstance(tree, (dict, tuple, list)) and not np.asarray(tree, object).ndim > 1:
        raise ValueError(
            f"Received {role}s in several parts without {role}_space. Give the space: "
            "arrays do not tell all of it."
        )
    array = np.asarray(tree)
    if array.dtype.kind == "f":
        return gym_spaces.Box(-np.inf, np.inf, array.shape[1:], array.dtype.type)
    if role == "action" and array.ndim == 1 and array.dtype.kind in "iu":
        if len(array) and array.min() >= 0:
            return gym_spaces.Discrete(int(array.max()) + 1)
    if role == "observation" and array.dtype == np.uint8:
        return gym_spaces.Box(0, 255, array.shape[1:], np.uint8)
    raise ValueError(
        f"Received {role}s of shape {array.shape} and dtype {array.dtype} without "
        f"{role}_space. Give the space: arrays do not tell it."
    )
