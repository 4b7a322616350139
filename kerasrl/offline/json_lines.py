"""Episodes as lines of JSON, in the columns of RLlib: to look at, and old data.

A line is a batch of steps. RLlib packs some columns as text, which only unpickling
opens: such lines are refused.
"""

import io
import itertools
import json
import math
import secrets
import zipfile
from pathlib import Path

import numpy as np

from kerasrl import spaces
from kerasrl.offline.episodes import PLAIN, Episode, tree_of
from kerasrl.offline.shards import DamagedFile, replacing
from kerasrl.offline.table import leaves_of

#: Names of columns, of which RLlib has used several.
_OBSERVATIONS = ("obs", "observations")
_NEXT = ("new_obs", "next_obs", "next_observations")
_TERMINATED = ("terminateds", "dones", "terminated", "done")
_TRUNCATED = ("truncateds", "truncated")
_LOG_PROBS = ("action_logp", "log_probs")
#: A column that only kerasrl has: probabilities are of what was emitted.
_EMITTED = "extras.emitted_actions"


def write(dataset, directory):
    """Writes a data set as lines of JSON, an episode each.

    Args:
        dataset: `kerasrl.offline.Dataset`.
        directory: Path, made if it is not there.

    Returns:
        Path of the file.
    """
    directory = Path(directory).expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"output-{secrets.token_hex(4)}_worker-0_0.json"
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, episode in enumerate(dataset.episodes):
            file.write(json.dumps(_line(episode, number), allow_nan=False) + "\n")
    return path


def _line(episode, number):
    ends = np.zeros((2, episode.length), bool)
    ends[:, -1] = episode.terminated, episode.truncated
    line = {
        "type": "SampleBatch",
        "obs": _rows(episode.observations, slice(None, -1)),
        "new_obs": _rows(episode.observations, slice(1, None)),
        "actions": _rows(episode.actions, slice(None)),
        "rewards": episode.rewards.tolist(),
        "terminateds": ends[0].tolist(),
        "truncateds": ends[1].tolist(),
        "eps_id": [number] * episode.length,
        "t": list(range(episode.length)),
    }
    for name, tree in episode.extras.items():
        if name == "log_probs":
            line["action_logp"] = tree.tolist()
            line["action_prob"] = np.exp(tree.astype(np.float64)).tolist()
        elif name == "emitted_actions":
            line[_EMITTED] = _rows(tree, slice(None))
        elif all(np.isfinite(leaf).all() for leaf in leaves_of(tree)):
            line[f"extras.{name}"] = _columns(tree)
    return line


def _rows(tree, rows):
    """A tree as a list of values of single steps, as RLlib has it."""
    count = len(range(*rows.indices(len(_first(tree)))))
    columns = _columns(tree, rows)
    return [_pick(columns, index) for index in range(count)]


def _first(tree):
    while isinstance(tree, (dict, tuple)):
        tree = next(iter(tree.values())) if isinstance(tree, dict) else tree[0]
    return tree


def _columns(tree, rows=slice(None)):
    if isinstance(tree, dict):
        return {str(key): _columns(part, rows) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_columns(part, rows) for part in tree)
    return tree[rows].tolist()


def _pick(columns, index):
    if isinstance(columns, dict):
        return {key: _pick(part, index) for key, part in columns.items()}
    if isinstance(columns, tuple):
        return [_pick(part, index) for part in columns]
    return columns[index]


def find(path):
    """Returns the files of lines that a path stands for, or an empty list.

    Args:
        path: Path of a file, or of a directory.
    """
    if path.is_dir():
        found = [*path.glob("*.json"), *path.glob("*.zip"), *path.glob("*.jsonl")]
        return sorted(x for x in found if x.name != "metadata.json")
    return [path] if path.suffix in (".json", ".jsonl", ".zip") else []


def read(paths, observation_space, action_space):
    """Reads the episodes of some files of lines.

    Args:
        paths: List of paths of files, zipped or not.
        observation_space, action_space: `gymnasium.spaces.Space` of one environment;
            lines do not say them.

    Returns:
        Tuple of the list of `Episode`s, and a list of `DamagedFile` errors, one for
        each line that was skipped.
    """
    reader = _Reader(observation_space, action_space)
    for path in paths:
        try:
            for name, text in _texts(path):
                reader.read(name, text)
        except (OSError, zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
            reader.errors.append(DamagedFile(f"{path} cannot be read: {error}"))
        reader.finish()
    # In the order in which they began.
    found = sorted(reader.found, key=lambda pair: pair[0])
    return [episode for _, episode in found], reader.errors


def _texts(path):
    if path.suffix != ".zip":
        with open(path, encoding="utf-8") as file:
            yield path, file
        return
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith((".json", ".jsonl")):
                with archive.open(name) as member:
                    yield f"{path}/{name}", io.TextIOWrapper(member, "utf-8")


class _Reader:
    def __init__(self, observation_space, action_space):
        #: Pairs of a number in the order of beginning, and an `Episode`.
        self.found, self.errors = [], []
        self._began = itertools.count()
        self._observation_space = observation_space
        self._action_space = action_space
        self._emitted_space = spaces.emitted(action_space)
        #: Of episodes whose end did not come yet, by their ids: number and steps.
        self._running: dict = {}

    def read(self, name, lines):
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                for step in self._steps(json.loads(line)):
                    self._add(step)
            except (ValueError, LookupError, TypeError, AttributeError) as why:
                self.finish()  # What goes on there is not known.
                self.errors.append(
                    DamagedFile(f"{name}, line {number}, is not readable: {why}")
                )

    def finish(self):
        """Ends the episodes that run: nothing goes on in another file."""
        for name in list(self._running):
            self._end(name, terminated=False, truncated=False)

    def _steps(self, line):
        if not isinstance(line, dict):
            raise ValueError(f"it is {line!r:.50}, and no batch.")
        if line.get("type") == "MultiAgentBatch":
            if len(line["policy_batches"]) != 1:
                raise ValueError(
                    f"it has {len(line['policy_batches'])} policies. Expected one."
                )
            (line,) = line["policy_batches"].values()
        count = len(line["rewards"])
        seen = self._leaves(
            _column(line, _OBSERVATIONS), self._observation_space, count
        )
        actions = self._leaves(_column(line, ("actions",)), self._action_space, count)
        following = _column(line, _NEXT, None)
        if following is not None:
            following = self._leaves(following, self._observation_space, count)
        emitted = _column(line, (_EMITTED,), None)
        if emitted is not None:
            emitted = self._leaves(emitted, self._emitted_space, count)
        terminated = _flags(_column(line, _TERMINATED))
        truncated = _flags(_column(line, _TRUNCATED, [False] * count))
        ids = [_column(line, (x,), [None] * count) for x in ("eps_id", "agent_index")]
        log_probs = _column(line, _LOG_PROBS, None)
        if log_probs is None and "action_prob" in line:
            log_probs = np.log(np.asarray(_column(line, ("action_prob",)), float))
        # Arrays are made of all of a line before any of it is taken.
        rewards = np.asarray(line["rewards"], np.float64)
        columns = (rewards, terminated, truncated, *ids)
        if any(len(x) != count for x in columns):
            raise ValueError("its columns have different lengths.")
        if log_probs is not None:
            log_probs = np.asarray(log_probs, np.float32)
            if log_probs.shape != (count,):
                raise ValueError("its columns have different lengths.")
        return [
            {
                "seen": [x[i] for x in seen],
                "next": None if following is None else [x[i] for x in following],
                "actions": [x[i] for x in actions],
                "reward": rewards[i],
                "ends": (bool(terminated[i]), bool(truncated[i])),
                "id": tuple(each[i] for each in ids),
                "log_prob": None if log_probs is None else log_probs[i],
                "emitted": None if emitted is None else [x[i] for x in emitted],
            }
            for i in range(count)
        ]

    def _leaves(self, column, space, count):
        """Arrays `[count, ...]` of a column, a list of rows or a tree of columns."""
        lister = spaces.leaf_lister(space)
        if isinstance(column, dict):
            leaves = lister(column)
        else:
            rows = [lister(row) for row in column]
            leaves = [list(leaf) for leaf in zip(*rows, strict=True)]
        arrays = []
        for leaf, (_, part) in zip(leaves, spaces.named_leaves(space), strict=True):
            if isinstance(leaf, str):
                raise ValueError(_PACKED)
            array = np.asarray(leaf)
            if array.dtype.kind in "US":
                raise ValueError(_PACKED)
            if array.shape == (count, math.prod(part.shape)):
                # Rows that preprocessors have made flat.
                array = array.reshape(count, *part.shape)
            if array.shape != (count, *part.shape) or array.dtype.kind not in PLAIN:
                raise ValueError(
                    f"it has {array.dtype} of shape {array.shape} where {count} rows "
                    f"of {part} should be."
                )
            with np.errstate(invalid="ignore", over="ignore"):
                converted = array.astype(part.dtype)
            is_whole = part.dtype.kind in "iub"
            if is_whole and not np.array_equal(converted, array):
                raise ValueError(f"it has {array.ravel()[:3]}, ... for {part}.")
            arrays.append(converted)
        return arrays

    def _add(self, step):
        name = step["id"]
        if name in self._running and not _follows(self._running[name][1][-1], step):
            self._end(name, terminated=False, truncated=False)
        if name not in self._running:
            self._running[name] = (next(self._began), [])
        self._running[name][1].append(step)
        if any(step["ends"]):
            self._end(name, *step["ends"])

    def _end(self, name, terminated, truncated):
        number, steps = self._running.pop(name)
        last = steps[-1]["next"]
        if last is None:
            if terminated:
                last = steps[-1]["seen"]  # No value is asked of what follows an end.
            else:
                last, truncated = steps.pop()["seen"], False
        if not steps:
            return
        rows = [*(step["seen"] for step in steps), last]
        seen = [np.stack(leaf) for leaf in zip(*rows, strict=True)]
        actions = [
            np.stack(x) for x in zip(*(s["actions"] for s in steps), strict=True)
        ]
        extras = {}
        if all(step["log_prob"] is not None for step in steps):
            extras["log_probs"] = np.array([s["log_prob"] for s in steps], np.float32)
        if all(step["emitted"] is not None for step in steps):
            rows = zip(*(step["emitted"] for step in steps), strict=True)
            emitted = [np.stack(leaf) for leaf in rows]
            extras["emitted_actions"] = tree_of(self._emitted_space, emitted)
        episode = Episode(
            tree_of(self._observation_space, seen),
            tree_of(self._action_space, actions),
            np.array([step["reward"] for step in steps]),
            terminated,
            truncated,
            extras,
        )
        self.found.append((number, episode))


def _follows(before, step):
    """Whether a step goes on where another one, of the same episode, ended."""
    if before["next"] is None:
        return True
    pairs = zip(before["next"], step["seen"], strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def _flags(column):
    flags = np.asarray(column)
    if not np.isin(flags, (0, 1)).all():
        raise ValueError(f"it has {flags.ravel()[:3]}, ... for True or False.")
    return flags.astype(bool)


_PACKED = (
    "a column is packed as text, which would have to be unpickled and could run any "
    'code. Write it again with RLlib\'s "output_compress_columns": [].'
)
_REQUIRED = object()


def _column(line, names, default=_REQUIRED):
    for name in names:
        if name in line:
            if isinstance(line[name], str):
                raise ValueError(_PACKED)
            return line[name]
    if default is _REQUIRED:
        raise ValueError(f"it has no column {names[0]!r}.")
    return default
