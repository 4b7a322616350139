"""Episodes into files, shard by shard."""

import json
import os
import secrets
from pathlib import Path

from kerasrl import __version__, checks, spaces
from kerasrl.offline import shards
from kerasrl.offline.episodes import EpisodeCheck
from kerasrl.offline.table import Table, concatenate


class Writer:
    """Writes episodes into a directory, which can be read at the same time.

    Episodes are gathered in memory until they fill a shard, which is then written under
    another name and renamed: whatever happens, a shard is whole or not there, and no
    more is lost than the one that is being filled. Several writers, of several
    processes, may share a directory.

    Args:
        directory: Path, made if it is not there.
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        shard_bytes: Integer, bytes of arrays after which a shard is written.
        metadata: Dict, JSON-compatible, what is known of the origin of the episodes.
            Of a directory that is there, the first writer's is kept.

    Raises:
        ValueError: The directory has episodes of other spaces.

    Example:

    ```python
    with kerasrl.offline.Writer("data", *spaces) as writer:
        for episode in episodes:
            writer.add(episode)
    ```
    """

    def __init__(
        self,
        directory,
        observation_space,
        action_space,
        shard_bytes=2**24,
        metadata=None,
    ):
        self.directory = Path(directory).expanduser()
        self.shard_bytes = checks.positive_integer("shard_bytes", shard_bytes)
        self.num_episodes = self.num_steps = 0
        self._spaces = observation_space, action_space
        self._check = EpisodeCheck(observation_space, action_space)
        self._tables: list = []
        self._bytes = 0
        self._token = secrets.token_hex(4)
        self.directory.mkdir(parents=True, exist_ok=True)
        _describe(self.directory, self._spaces, metadata or {})

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def add(self, episode):
        """Adds an `Episode`.

        Raises:
            TypeError: It is none.
            ValueError: It does not fit the spaces, or has no steps.
        """
        # Of arrays of its own: those of the caller may change.
        table = Table.of([self._check(episode)], *self._spaces)
        if self._tables and table.structures != self._tables[-1].structures:
            self.flush()  # All of a shard have the same columns.
        self._tables.append(table)
        self.num_episodes += 1
        self.num_steps += table.num_steps
        self._bytes += table.nbytes
        if self._bytes >= self.shard_bytes:
            self.flush()

    def flush(self):
        """Writes what has been gathered, however little, as a shard."""
        if not self._tables:
            return
        number = 1 + max(
            (int(found[1]) for found in _shard_names(self.directory)), default=-1
        )
        name = f"shard-{number:06d}-{self._token}.npz"
        names = list(self._tables[0].structures)
        shards.write(self.directory / name, concatenate(self._tables, names))
        self._tables, self._bytes = [], 0

    def close(self):
        """Writes the rest. More may be added afterwards."""
        self.flush()


def _shard_names(directory):
    found = (shards.NAME.fullmatch(name) for name in os.listdir(directory))
    return [match for match in found if match]


def _describe(directory, own_spaces, metadata):
    path = directory / shards.INDEX
    if path.exists():
        index = read_index(path)
        if index["spaces"] != own_spaces:
            raise ValueError(
                f"{directory} has episodes of the spaces {index['spaces'][0]} and "
                f"{index['spaces'][1]}. Received episodes of {own_spaces[0]} and "
                f"{own_spaces[1]}: write into another directory."
            )
        return
    content = {
        "format": shards.FORMAT,
        "version": shards.VERSION,
        "observation_space": spaces.space_to_config(own_spaces[0]),
        "action_space": spaces.space_to_config(own_spaces[1]),
        "metadata": {"kerasrl_version": __version__, **metadata},
    }
    with shards.replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_index(path):
    """Reads the index of a directory of shards.

    Args:
        path: Path of the index.

    Returns:
        Dict of `spaces`, a pair, and `metadata`.

    Raises:
        kerasrl.offline.DamagedFile: It is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != shards.FORMAT or content["version"] != shards.VERSION:
            raise ValueError(
                f"format {content['format']!r}, version {content['version']!r}"
            )
        found = tuple(
            spaces.space_from_config(content[name])
            for name in ("observation_space", "action_space")
        )
        return {"spaces": found, "metadata": dict(content["metadata"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise shards.DamagedFile(
            f"{path} does not describe episodes as kerasrl writes them: {error!r}"
        ) from error
