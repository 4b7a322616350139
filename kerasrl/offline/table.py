"""Many episodes, laid end to end in columns."""

import numpy as np

from kerasrl import spaces
from kerasrl.offline.episodes import Episode, tree_of


class Table:
    """Episodes as columns: S steps of E episodes, one after the other.

    Observations have a row more for each episode, what followed its last action.

    Args:
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        lengths: int64 `[E]`, steps of each episode.
        terminated, truncated: bool `[E]`, of the last step of each.
        columns: Dict of lists of arrays: `"observations"` `[S + E, ...]`, `"actions"`
            `[S, ...]`, `"rewards"` (one, `[S]`), and `"extras.<name>"` `[S, ...]`.
        structures: Dict from names of extras to their structure, see `structure_of`.
    """

    def __init__(
        self,
        observation_space,
        action_space,
        lengths,
        terminated,
        truncated,
        columns,
        structures,
    ):
        self.observation_space = observation_space
        self.action_space = action_space
        self.lengths = lengths
        self.terminated = terminated
        self.truncated = truncated
        self.columns = columns
        self.structures = structures
        self._stops = np.cumsum(lengths)

    @classmethod
    def of(cls, episodes, observation_space, action_space):
        """Makes a table of a list of checked `Episode`s, which have the same extras."""
        listers = {
            "observations": spaces.leaf_lister(observation_space),
            "actions": spaces.leaf_lister(action_space),
            "rewards": lambda tree: [tree],
        }
        rows = [
            {name: list_of(getattr(each, name)) for name, list_of in listers.items()}
            for each in episodes
        ]
        structures = {}
        for row, episode in zip(rows, episodes, strict=True):
            found = {name: structure_of(x) for name, x in episode.extras.items()}
            structures = structures or found
            if found != structures:
                raise ValueError(
                    f"Received an episode with the extras {sorted(found)} after one "
                    f"with {sorted(structures)}. Expected the same of all."
                )
            for name, tree in episode.extras.items():
                row[f"extras.{name}"] = leaves_of(tree)
        columns = {
            name: [np.concatenate(leaves) for leaves in zip(*parts, strict=True)]
            for name, parts in ((name, [row[name] for row in rows]) for name in rows[0])
        }
        return cls(
            observation_space,
            action_space,
            np.array([each.length for each in episodes], np.int64),
            np.array([each.terminated for each in episodes], bool),
            np.array([each.truncated for each in episodes], bool),
            columns,
            structures,
        )

    @property
    def num_steps(self):
        """Number of steps, S."""
        return int(self.lengths.sum())

    @property
    def nbytes(self):
        """Bytes of all columns."""
        return sum(x.nbytes for leaves in self.columns.values() for x in leaves)

    def table(self):
        """Returns itself: what is in memory needs no loading."""
        return self

    def episode(self, index):
        """Returns an `Episode`, of views."""
        stop = int(self._stops[index])
        start = stop - int(self.lengths[index])
        # Each episode before has a row more.
        seen = [x[start + index : stop + index + 1] for x in self._leaves()]
        steps = {
            name: [x[start:stop] for x in leaves]
            for name, leaves in self.columns.items()
            if name != "observations"
        }
        extras = {
            name: build_tree(structure, steps[f"extras.{name}"])
            for name, structure in self.structures.items()
        }
        return Episode(
            tree_of(self.observation_space, seen),
            tree_of(self.action_space, steps["actions"]),
            steps["rewards"][0],
            bool(self.terminated[index]),
            bool(self.truncated[index]),
            extras,
        )

    def _leaves(self):
        return self.columns["observations"]


def concatenate(tables, extras):
    """Puts tables together to one, in memory.

    Args:
        tables: List of `Table`s of the same spaces.
        extras: Names of the extras to keep, which all of them have.
    """
    first = tables[0]
    names = ["observations", "actions", "rewards", *(f"extras.{x}" for x in extras)]
    columns = {
        name: [
            np.concatenate(leaves)
            for leaves in zip(*(table.columns[name] for table in tables), strict=True)
        ]
        for name in names
    }
    flags = (
        np.concatenate([getattr(table, name) for table in tables])
        for name in ("lengths", "terminated", "truncated")
    )
    structures = {name: first.structures[name] for name in extras}
    return Table(
        first.observation_space, first.action_space, *flags, columns, structures
    )


def take(table, indices):
    """Returns a table of some of the episodes, in memory.

    Args:
        table: A `Table`.
        indices: Integer array `[E]`.
    """
    episodes = [table.episode(index) for index in indices]
    return Table.of(episodes, table.observation_space, table.action_space)


def structure_of(tree):
    """Describes a tree of dicts and tuples as JSON-compatible data."""
    if isinstance(tree, dict):
        return {"dict": [[key, structure_of(tree[key])] for key in sorted(tree)]}
    if isinstance(tree, tuple):
        return {"tuple": [structure_of(part) for part in tree]}
    return None


def leaves_of(tree):
    """Returns the list of the leaves of a tree, in the order of `structure_of`."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves_of(tree[key])]
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in leaves_of(part)]
    return [tree]


def build_tree(structure, leaves):
    """Puts leaves together to the tree that `structure_of` described."""
    return _build(structure, iter(leaves))


def _build(structure, leaves):
    if structure is None:
        return next(leaves)
    if "dict" in structure:
        return {key: _build(child, leaves) for key, child in structure["dict"]}
    return tuple(_build(child, leaves) for child in structure["tuple"])


def count_leaves(structure):
    """Returns how many leaves a tree has that `structure_of` described."""
    if structure is None:
        return 1
    if "dict" in structure:
        return sum(count_leaves(child) for _, child in structure["dict"])
    return sum(count_leaves(child) for child in structure["tuple"])
