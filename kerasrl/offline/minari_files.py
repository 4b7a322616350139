"""Minari's HDF5 files, by `h5py` alone."""

import json
import os
from pathlib import Path

import numpy as np
from gymnasium import spaces as gym_spaces

from kerasrl import spaces
from kerasrl.offline.episodes import (
    PLAIN,
    Episode,
    EpisodeCheck,
    denormalized,
    tree_of,
)
from kerasrl.offline.shards import DamagedFile, replacing
from kerasrl.offline.table import Table

_FILES = ("main_data.hdf5", "metadata.json")
#: Extras that Minari's infos keep: probabilities are of what was emitted.
_KEPT = ("log_probs", "emitted_actions")
_GROUP = 2**24  # Bytes of the episodes that are read together.


def _h5py():
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            'Minari\'s files are HDF5. Install h5py: pip install "kerasrl[minari]".'
        ) from error
    return h5py


def find(path):
    """Returns the folder of a Minari data set with its two files, or `None`.

    Args:
        path: Path of it, of the folder above, or the id of a data set among those that
            `minari` keeps, in `$MINARI_DATASETS_PATH` or `~/.minari/datasets`.
    """
    root = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
    for each in (Path(path).expanduser(), Path(root).expanduser() / path):
        for folder in (each, each / "data"):
            if all((folder / name).is_file() for name in _FILES):
                return folder
    return None


def write(dataset, directory, dataset_id="kerasrl/recorded-v0"):
    """Writes a data set as `minari` reads it, HDF5 without images as JPEG.

    Args:
        dataset: `kerasrl.offline.Dataset`.
        directory: Path of the folder of this data set. `minari` finds it where it is
            `$MINARI_DATASETS_PATH/<dataset_id>`.
        dataset_id: Str, `[namespace/]name-v<number>`.

    Returns:
        Path of the file.
    """
    h5py = _h5py()
    folder = Path(directory).expanduser() / "data"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _FILES[0]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for number, episode in enumerate(dataset.episodes):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = episode.length
            _write_tree(group, "observations", episode.observations)
            _write_tree(group, "actions", episode.actions)
            group["rewards"] = episode.rewards
            ends = np.zeros((2, episode.length), bool)
            # What goes on after its record was cut off by it, to Minari.
            is_cut = episode.truncated or not episode.terminated
            ends[:, -1] = episode.terminated, is_cut
            group["terminations"], group["truncations"] = ends
            # Its infos have a row for the reset as well.
            extras = {x: episode.extras[x] for x in _KEPT if x in episode.extras}
            if extras:
                _write_tree(group, "infos", _after_reset(extras))
    metadata = {
        "total_episodes": dataset.num_episodes,
        "total_steps": dataset.num_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_to_config(dataset.observation_space)),
        "action_space": json.dumps(_to_config(dataset.action_space)),
        "dataset_id": dataset_id,
        "minari_version": "0.5.3",
    }
    env = dataset.metadata.get("env")
    if env is not None:
        # What `gymnasium.make` takes; nobody makes it to read the episodes.
        metadata["algorithm_name"] = str(dataset.metadata.get("algorithm", "unknown"))
    with replacing(folder / _FILES[1]) as temporary:
        temporary.write_text(json.dumps(metadata), encoding="utf-8")
    return path


def _after_reset(tree):
    """A tree of extras with a row before the first, of what a reset says: nothing."""
    if isinstance(tree, dict):
        return {name: _after_reset(part) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_after_reset(part) for part in tree)
    nothing = np.full_like(tree[:1], np.nan if tree.dtype.kind == "f" else 0)
    return np.concatenate([nothing, tree])


def _write_tree(group, name, tree):
    if isinstance(tree, dict):
        child = group.create_group(str(name))
        for key, part in tree.items():
            _write_tree(child, key, part)
    elif isinstance(tree, tuple):
        child = group.create_group(str(name))
        for index, part in enumerate(tree):
            _write_tree(child, f"_index_{index}", part)
    else:
        group[str(name)] = tree


def read(folder, normalized=False):
    """Reads a data set of `minari`, episodes when they are asked for.

    Args:
        folder: Path, from `find`.
        normalized: Whether Box actions are kept as numbers from -1 to 1.

    Returns:
        Tuple of the two spaces, a list of parts, the metadata, and a list of
        `DamagedFile` errors, one for each episode that was left out.
    """
    h5py = _h5py()
    path = folder / _FILES[0]
    try:
        metadata = json.loads((folder / _FILES[1]).read_text(encoding="utf-8"))
        own_spaces = tuple(
            _from_config(json.loads(metadata[name]))
            for name in ("observation_space", "action_space")
        )
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise ValueError(f"its format is {metadata['data_format']!r}")
        with h5py.File(path, "r") as file:
            parts, errors = _parts(path, file, own_spaces, metadata, normalized)
    except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
        raise DamagedFile(
            f"{folder} is damaged, or no data set of Minari in HDF5: {error}"
        ) from error
    keys = ("dataset_id", "algorithm_name", "author", "minari_version", "env_spec")
    kept = {key: metadata[key] for key in keys if key in metadata}
    return *own_spaces, parts, kept, errors


def _parts(path, file, own_spaces, metadata, normalized):
    if metadata.get("jpeg_encoding"):
        images = [
            name for name, leaf in spaces.named_leaves(own_spaces[0])
            if leaf.dtype == np.uint8 and len(leaf.shape) == 3
        ]  # fmt: skip
        if images:
            raise ValueError(
                f"{images} are kept as JPEG, which is not what was seen. Convert it "
                "with minari, jpeg_encoding=False"
            )
    names = sorted(
        (name for name in file if name.startswith("episode_")),
        key=lambda name: int(name.removeprefix("episode_")),
    )
    expected = metadata.get("total_episodes")
    errors = []
    if expected is not None and expected != len(names):
        errors.append(DamagedFile(f"{path} has {len(names)} episodes of {expected}."))
    groups: list = [[]]
    size = 0
    check = EpisodeCheck(*own_spaces)
    for name in names:
        try:
            # All of it is read once: what is damaged is found here.
            episode = check(_read(file[name], own_spaces, normalized))
        except (ValueError, KeyError, TypeError, OSError, IndexError) as error:
            errors.append(DamagedFile(f"{path}, {name}, is not readable: {error}"))
            continue
        table = Table.of([episode], *own_spaces)
        found = (name, episode.length, episode.terminated, episode.truncated)
        is_other = groups[-1] and groups[-1][-1][-1] != table.structures
        if groups[-1] and (size + table.nbytes > _GROUP or is_other):
            groups.append([])
            size = 0
        groups[-1].append((found, table.nbytes, table.structures))
        size += table.nbytes
    parts = [_Part(path, own_spaces, each, normalized) for each in groups if each]
    return parts, errors


def _read(group, own_spaces, normalized):
    terminations, truncations = (
        np.asarray(group[name]).astype(bool) for name in ("terminations", "truncations")
    )
    if terminations[:-1].any() or truncations[:-1].any():
        raise ValueError("it ends before its last step")
    rewards = np.asarray(group["rewards"], np.float64)
    extras = {}
    infos = group.get("infos")
    if infos is not None and "log_probs" in infos:
        extras["log_probs"] = np.asarray(infos["log_probs"])[1:].astype(np.float32)
    if infos is not None and "emitted_actions" in infos:
        emitted = spaces.emitted(own_spaces[1])
        rows = _read_tree(infos["emitted_actions"], emitted)
        leaves = spaces.leaf_lister(emitted)(rows)
        extras["emitted_actions"] = tree_of(emitted, [x[1:] for x in leaves])
    episode = Episode(
        _read_tree(group["observations"], own_spaces[0]),
        _read_tree(group["actions"], own_spaces[1]),
        rewards,
        bool(terminations[-1]),
        bool(truncations[-1]),
        extras,
    )
    return denormalized(episode, own_spaces[1]) if normalized else episode


def _read_tree(node, space):
    leaves = []

    def visit(node, part):
        if isinstance(part, gym_spaces.Dict):
            for key, child in part.spaces.items():
                visit(node[str(key)], child)
        elif isinstance(part, gym_spaces.Tuple):
            for index, child in enumerate(part.spaces):
                visit(node[f"_index_{index}"], child)
        else:
            if node.dtype.kind not in PLAIN:
                raise ValueError(f"it has {node.dtype}, which is no number")
            leaves.append(np.asarray(node))

    visit(node, space)
    return tree_of(space, leaves)


class _Part:
    """Some episodes of a file, read when they are asked for."""

    def __init__(self, path, own_spaces, group, normalized):
        self._path, self._spaces, self._normalized = path, own_spaces, normalized
        found = [each[0] for each in group]
        self._names = [name for name, *_ in found]
        self.lengths = np.array([x[1] for x in found], np.int64)
        self.terminated = np.array([x[2] for x in found], bool)
        self.truncated = np.array([x[3] for x in found], bool)
        self.nbytes = sum(size for _, size, _ in group)
        self.structures = group[0][2]

    def table(self):
        return Table.of(self._read(self._names), *self._spaces)

    def episode(self, index):
        return self._read([self._names[index]])[0]

    def _read(self, names):
        check = EpisodeCheck(*self._spaces)
        with _h5py().File(self._path, "r") as file:
            groups = (file[name] for name in names)
            return [check(_read(x, self._spaces, self._normalized)) for x in groups]


def _to_config(space):
    """A space as Minari describes it."""
    if isinstance(space, gym_spaces.Dict):
        children = {str(key): _to_config(x) for key, x in space.spaces.items()}
        return {"type": "Dict", "subspaces": children}
    if isinstance(space, gym_spaces.Tuple):
        return {"type": "Tuple", "subspaces": [_to_config(x) for x in space.spaces]}
    kind = type(space).__name__
    if kind == "Box":
        return {
            "type": "Box",
            "dtype": str(space.dtype),
            "shape": list(space.shape),
            "low": space.low.tolist(),
            "high": space.high.tolist(),
        }
    if kind == "Discrete":
        return {
            "type": "Discrete",
            "dtype": "int64",
            "start": int(space.start),
            "n": int(space.n),
        }
    if kind == "MultiDiscrete":
        return {
            "type": "MultiDiscrete",
            "dtype": "int64",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    return {"type": "MultiBinary", "n": np.asarray(space.n).tolist()}


def _from_config(config):
    kind = config["type"]
    if kind == "Dict":
        items = config["subspaces"].items()
        return gym_spaces.Dict({key: _from_config(x) for key, x in items})
    if kind == "Tuple":
        return gym_spaces.Tuple([_from_config(x) for x in config["subspaces"]])
    if kind == "Box":
        dtype = np.dtype(config["dtype"])
        low, high = (np.array(config[name], dtype) for name in ("low", "high"))
        return gym_spaces.Box(low, high, tuple(config["shape"]), dtype.type)
    if kind == "Discrete":
        return gym_spaces.Discrete(config["n"], start=config["start"])
    if kind == "MultiDiscrete":
        start = config.get("start")
        return gym_spaces.MultiDiscrete(
            config["nvec"], dtype=np.dtype(config["dtype"]).type, start=start
        )
    if kind == "MultiBinary":
        return gym_spaces.MultiBinary(config["n"])
    raise ValueError(f"it has a space of type {kind!r}")
