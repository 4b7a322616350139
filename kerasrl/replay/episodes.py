"""Which rows of the streams are of the same episode."""

import numpy as np

from kerasrl.replay.streams import STEP


class Episodes:
    """Finds the episode that a step is part of, as far as it is stored.

    A row without a step follows the last step of an episode, of what was cut, and the
    newest step. So the kinds of rows tell all, and nothing else need be kept or saved:
    each row is looked at once, when somebody first asks after it was stored.

    Args:
        store: `RowStore`, empty or full.
    """

    def __init__(self, store):
        self._store = store
        # Of each environment, the rows without a step, and what was looked at.
        self._gaps = [np.zeros(0, np.int64)] * store.streams.num_envs
        self._seen = np.zeros(store.streams.num_envs, np.int64)

    def locate(self, env, position):
        """First and last row of the episodes of some steps.

        Of an episode whose oldest steps were overwritten, it is the rest; of one that
        still runs, what has happened so far.

        Args:
            env: Integer array.
            position: Integer array of that shape, rows with a step that are there.

        Returns:
            Pair of integer arrays of that shape: the row of the first step, and that of
            the observation that followed the last one.
        """
        streams = self._store.streams
        oldest = np.maximum(self._store.oldest(), 0)
        # The numbers of environments must not overlap.
        stride = int(streams.head.max()) + 2
        edges = []
        for number, start in enumerate(oldest.tolist()):
            gaps = self._look(number, start)
            # The row at the head of an open stream is the newest observation.
            ends = np.concatenate([[start - 1], gaps, [streams.head[number]]])
            edges.append(ends + number * stride)
        self._seen = streams.head.copy()
        edges, offset = np.concatenate(edges), env * stride
        index = np.searchsorted(edges, offset + position)
        return edges[index - 1] + 1 - offset, edges[index] - offset

    def _look(self, number, oldest):
        """The rows without a step of one environment, those at its head left out."""
        streams = self._store.streams
        new = np.arange(max(oldest, self._seen[number]), streams.head[number])
        kinds = self._store.kinds.take(streams.rows(number, new))
        gaps = self._gaps[number]
        gaps = gaps[np.searchsorted(gaps, oldest) :]
        self._gaps[number] = np.concatenate([gaps, new[(kinds & STEP) == 0]])
        return self._gaps[number]
