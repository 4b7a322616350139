"""Arrays of which the learner and workers on other machines have copies."""

import contextlib
import itertools
import threading
import weakref

import numpy as np
import optree

from kerasrl.rollouts.rollout import take
from kerasrl.workers.shared_arrays import copy_into, lay_out

_keys = itertools.count()


class MirroredArrays:
    """A tree of arrays with a copy on each side; what `SharedArrays` is elsewhere.

    Each side says what it has written, and the connection between them takes that along
    with the next request or answer. Who asks and who answers take turns, so neither
    reads what has not arrived.

    Args:
        layout: What `MirroredArrays.layout` of the other side is.

    Attributes:
        tree: The arrays, of this side.
        layout: Plain data to send along.
        key: Integer, the same on all sides, by which the learner tells it from others.
        channels: Set of what connects this side to others.

    Example:

    ```python
    mirrored = MirroredArrays.like({"rewards": np.zeros((128, 4), np.float32)})
    mirrored.tree["rewards"][0] = 1.0
    mirrored.wrote(("rewards", range(1)))
    ```
    """

    def __init__(self, layout):
        self.layout = layout
        self.key, places = layout
        self.tree = optree.tree_map(
            lambda place: np.zeros(place.shape, place.dtype), places
        )
        self.channels = weakref.WeakSet()
        self._lock = threading.Lock()
        #: How often each part was written here, and the latest that came from there.
        self._written = {}
        self._seen = {}
        self._kept = {}

    @classmethod
    def like(cls, tree):
        """Makes zeros with the shapes and dtypes of a tree of arrays."""
        return cls((next(_keys), lay_out(tree)[0]))

    def wrote(self, *paths, within=None):
        """Says what this side has written, and the other one is to see.

        Args:
            *paths: Tuples that lead to parts of the tree: keys, indices and, for rows
                of all arrays below, a `range`. All of it if there are none.
            within: Float, seconds after which the other side should see it even in the
                middle of what it does; `None` with what it is asked next.
        """
        for path in paths or ((),):
            self._written[path] = self._written.get(path, 0) + 1
        if within is not None:
            for channel in list(self.channels):
                channel.push(self, within)

    def changes(self, told):
        """Yields what the other side does not know, and notes that it does.

        Args:
            told: Dict, changed in place; a new one for a side that knows nothing.

        Yields:
            Tuples of a path and how often that part was written.
        """
        for path, count in self._written.items():
            if told.get(path) != count:
                told[path] = count
                yield path, count

    def drain(self):
        """Returns a list of the paths written since the last call."""
        paths, self._written = list(self._written), {}
        return paths

    def part(self, path):
        """Returns a part of the tree, whose arrays are those of the tree."""
        tree = self.tree
        for key in path:
            if isinstance(key, range):
                tree = take(tree, slice(key.start, key.stop))
            else:
                tree = tree[key]
        return tree

    def keep(self, path, count, make):
        """Returns what stands for a part, made once for all that it is sent to.

        Args:
            path: Tuple, which part.
            count: Integer, how often it was written.
            make: Function of its arrays.
        """
        kept = self._kept.get(path)
        if kept is None or kept[0] != count:
            self._kept[path] = kept = count, make(self.part(path))
        return kept[1]

    def take_over(self, path, arrays, count=None):
        """Writes here what the other side wrote, unless something later came before.

        Args:
            path: Tuple, which part.
            arrays: Tree of arrays like that part.
            count: Integer, how often it had been written there, or `None` if things
                arrive in their order.
        """
        with self._lock:
            if count is not None:
                if count <= self._seen.get(path, 0):
                    return
                self._seen[path] = count
            copy_into(self.part(path), arrays)

    @contextlib.contextmanager
    def locked(self, exclusive):
        """A context in which nothing is taken over.

        Args:
            exclusive: As for `SharedArrays.locked`.
        """
        with self._lock:
            yield

    def close(self):
        """Forgets who else has a copy."""
        self.channels.clear()
