"""Weights that the learner publishes, and that workers take over whole."""

import numpy as np

from kerasrl.workers.shared_arrays import SharedArrays, copy_into

#: Seconds after which a worker that has a copy of what is published gets a newer one
#: while it acts. Each costs a call for each worker.
_FRESH_SECONDS = 0.1


class Published:
    """What a policy acts by, in memory that workers read when it suits them.

    A lock on that memory makes sure that nobody reads a half of one version and a half
    of the next.

    Args:
        shared: `SharedArrays` of a tree like that of `like`, or `MirroredArrays`. It
            keeps its descriptor, which the lock needs.

    Attributes:
        shared: That.

    Example:

    ```python
    published = Published.like(program.weights, exploration)
    published.write(program.weights, exploration, version=0)
    ```
    """

    def __init__(self, shared):
        self.shared = shared
        self._tree = shared.tree

    @classmethod
    def like(cls, weights, exploration, share=SharedArrays.like):
        """Makes the memory.

        Args:
            weights: List of arrays, those of the acting program.
            exploration: Dict of arrays `[B, ...]`, further inputs of acting.
            share: Function that makes it; `WorkerPool.share` suits the workers.
        """
        tree = {
            "weights": list(weights),
            "exploration": exploration,
            "version": np.zeros(1, np.int64),
        }
        return cls(share(tree))

    def write(self, weights, exploration, version):
        """Publishes a version; waits while somebody reads.

        Args:
            weights, exploration: As for `like`.
            version: Integer, counted by whoever publishes.
        """
        with self.shared.locked(exclusive=True):
            copy_into(self._tree["weights"], list(weights))
            copy_into(self._tree["exploration"], exploration)
            self._tree["version"][0] = version
        self.shared.wrote(within=_FRESH_SECONDS)

    def read_into(self, weights, exploration, envs):
        """Takes over the latest version; waits while it is written.

        Args:
            weights: List of arrays to write into.
            exploration: Dict of arrays `[b, ...]` to write into.
            envs: Slice, the environments they are of.

        Returns:
            Integer, the version.
        """
        with self.shared.locked(exclusive=False):
            copy_into(weights, self._tree["weights"])
            for name, array in exploration.items():
                np.copyto(array, self._tree["exploration"][name][envs])
            return int(self._tree["version"][0])

    def private(self, envs):
        """Returns new arrays for `read_into`: weights, and the exploration of some."""
        exploration = self._tree["exploration"]
        return (
            [np.empty_like(array) for array in self._tree["weights"]],
            {name: np.empty_like(array[envs]) for name, array in exploration.items()},
        )
