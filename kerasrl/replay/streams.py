"""Ring streams of rows, one per environment."""

import numpy as np

# What a row is, as bits. A row without STEP holds an observation only: the last of an
# episode, the one after the newest step, or an older frame of the stack behind it.
STEP = 1
TERMINATED = 2
TRUNCATED = 4
EPISODE_START = 8
ZERO_PADDED = 16


class Streams:
    """Endless streams of rows, of which the newest `length` are kept.

    A position counts the rows of a stream from its beginning. Row `position` of
    environment `env` lies at `env * length + position % length` of the arrays.

    Args:
        num_envs: Integer, B.
        length: Integer, rows kept of each stream.
    """

    def __init__(self, num_envs, length):
        self.num_envs = num_envs
        self.length = length
        self._offset = np.arange(num_envs) * length
        # The next row; if the stream is open, its observation is there already.
        self.head = np.zeros(num_envs, np.int64)
        self.open = np.zeros(num_envs, bool)

    def rows(self, env, position):
        """Indices of rows in the arrays."""
        return env * self.length + position % self.length

    def rows_of_all(self, position):
        """Indices of rows, for positions `[..., B]` of all environments."""
        return self._offset + position % self.length

    def next_rows(self, count):
        """Indices `[count, B]` of the next rows of all environments."""
        return (self.head + np.arange(count)[:, None]) % self.length + self._offset

    def close(self, envs):
        """Cuts streams: what comes next does not continue what is there.

        Args:
            envs: bool `[B]`.
        """
        self.head = self.head + (self.open & envs)
        self.open = self.open & ~envs

    def get_state(self):
        """JSON-compatible counters."""
        return {"head": self.head.tolist(), "open": self.open.tolist()}

    def set_state(self, state):
        """Restores counters from `get_state`."""
        self.head = np.array(state["head"], np.int64)
        self.open = np.array(state["open"], bool)
