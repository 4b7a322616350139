"""Data sets from one kind of file into another, and several into one."""

from pathlib import Path

from kerasrl import checks
from kerasrl.offline import json_lines, minari_files
from kerasrl.offline.writer import Writer

FORMATS = ("kerasrl", "json", "minari")


def convert(dataset, path, kind="kerasrl", **arguments):
    """Writes a data set into files, of this library or of others.

    Args:
        dataset: `kerasrl.offline.Dataset`.
        path: Path of the directory.
        kind: `"kerasrl"` for shards, which keep all there is; `"json"` for lines of
            JSON in the columns of RLlib; `"minari"` for HDF5 as `minari` reads it.
        **arguments: `shard_bytes` of `Writer`; `dataset_id` for `minari`.

    Raises:
        ValueError: There is a data set of that kind already.

    Example:

    ```python
    convert(dataset, "~/.minari/datasets/mine/cartpole-v0", "minari")
    ```
    """
    checks.choice("kind", kind, FORMATS)
    merge([dataset], path, kind, **arguments)


def merge(datasets, path, kind="kerasrl", **arguments):
    """Writes several data sets of the same spaces into one.

    Args:
        datasets: List of `kerasrl.offline.Dataset`.
        path, kind, **arguments: As for `convert`.

    Raises:
        ValueError: There are none, their spaces differ, or there is one there already.
    """
    from kerasrl.offline.dataset import Dataset

    checks.choice("kind", kind, FORMATS)
    if not datasets:
        raise ValueError("Received no data sets. Expected at least one.")
    first = datasets[0]
    own_spaces = first.observation_space, first.action_space
    for other in datasets:
        if (other.observation_space, other.action_space) != own_spaces:
            raise ValueError(
                f"Received a data set of the spaces {other.observation_space} and "
                f"{other.action_space} with one of {own_spaces[0]} and "
                f"{own_spaces[1]}. Expected the same of all."
            )
    path = Path(path).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"Received {path}, which is there already. Give a new directory."
        )
    parts = [part for each in datasets for part in each.parts]
    whole = Dataset(*own_spaces, parts, first.metadata)
    if kind == "json":
        json_lines.write(whole, path, **arguments)
    elif kind == "minari":
        minari_files.write(whole, path, **arguments)
    else:
        with Writer(path, *own_spaces, metadata=whole.metadata, **arguments) as writer:
            for episode in whole.episodes:
                writer.add(episode)
