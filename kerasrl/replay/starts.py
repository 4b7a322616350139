"""Which rows of the streams may be sampled."""

import numpy as np


class Starts:
    """One queue of rows per environment: where a sample may start.

    Starts come in at the end, in the order of time, and leave at the front when rows
    that they need are overwritten. So those that may be sampled are a range of
    consecutive numbers, and drawing one uniformly costs the same however many there
    are and however they lie among other rows.

    A start has an `id`, its number in the queue times the number of environments plus
    the environment: ids are never used twice, and one that is gone is told from its
    number. It has a `slot` in arrays of `num_slots` entries for as long as it stays.

    Args:
        num_envs: Integer, B.
        length: Integer, how many starts an environment has at most at one time.
    """

    def __init__(self, num_envs, length, positions):
        self.num_envs = num_envs
        self.length = length
        self._positions = positions
        self._envs = np.arange(num_envs)
        self._offset = self._envs * length
        # Numbers of the first start, and behind the last one that may be sampled
        # (`ready`) and the last of all.
        self.first = np.zeros(num_envs, np.int64)
        self.ready = np.zeros(num_envs, np.int64)
        self.last = np.zeros(num_envs, np.int64)
        self._oldest = np.zeros(num_envs, np.int64)
        self._size = 0

    def __len__(self):
        return self._size

    def push(self, env, rank, position, counts):
        """Appends starts that are not ready yet.

        Args:
            env: Integer array, or one that broadcasts to `position`.
            rank: Integer array likewise, which of the new starts of its environment
                it is, from zero.
            position: Integer array, the row in the stream.
            counts: Integer `[B]` or one integer, how many are new in each environment.

        Returns:
            Slots of the new starts, shaped like `position`.
        """
        slots = self._offset[env] + (self.last[env] + rank) % self.length
        self._positions[slots] = position
        self.last += counts
        return slots

    def ready_all(self):
        """Makes all starts ready."""
        self.ready[:] = self.last
        self._size = int((self.ready - self.first).sum())

    def ready_until(self, position):
        """Makes the starts up to a position ready.

        Args:
            position: Integer `[B]`, the last row that is ready.

        Returns:
            Slots of those that became ready.
        """
        numbers = self.ready + np.arange((self.last - self.ready).max())[:, None]
        slots = self._offset + numbers % self.length
        complete = (numbers < self.last) & (self._positions[slots] <= position)
        self.ready += complete.sum(axis=0)
        self._size = int((self.ready - self.first).sum())
        return slots[complete]

    def drop_waiting(self, envs=slice(None)):
        """Forgets the starts that are not ready; their rows will never be complete."""
        self.last[envs] = self.ready[envs]

    def evict(self, oldest):
        """Removes the starts before a row.

        Args:
            oldest: Integer `[B]`, the first row of each stream that is still whole.

        Returns:
            Slots of the starts that were removed.
        """
        newly_gone = int((oldest - self._oldest).max())
        if newly_gone <= 0:
            return _NO_SLOTS
        self._oldest = oldest
        # Starts lie in different rows, so there are not more of them than rows.
        numbers = self.first + np.arange(newly_gone)[:, None]
        slots = self._offset + numbers % self.length
        gone = (self._positions[slots] < oldest) & (numbers < self.last)
        self.first += gone.sum(axis=0)
        np.maximum(self.ready, self.first, out=self.ready)
        self._size = int((self.ready - self.first).sum())
        return slots[gone]

    def draw(self, shape, rng):
        """Draws uniformly, with replacement, among the starts that are ready.

        Args:
            shape: Tuple, how many.
            rng: `numpy.random.Generator`.

        Returns:
            Ids, int64 of that shape.
        """
        chosen = rng.integers(self._size, size=shape)
        if self.num_envs == 1:
            return chosen + self.first[0]
        sizes = self.ready - self.first
        ends = np.cumsum(sizes)
        env = np.searchsorted(ends, chosen, side="right")
        number = chosen - (ends - sizes)[env] + self.first[env]
        return number * self.num_envs + env

    def locate(self, ids):
        """Environment and row of starts that are still there.

        Args:
            ids: int64 array.

        Returns:
            Pair of integer arrays.
        """
        number, env = np.divmod(ids, self.num_envs)
        return env, self._positions.take(env * self.length + number % self.length)

    def slots_of(self, ids):
        """Slots of starts, and which of them are still there.

        Args:
            ids: int64 array.

        Returns:
            Pair of an integer and a bool array.

        Raises:
            ValueError: An id was never handed out.
        """
        number, env = np.divmod(ids, self.num_envs)
        if (ids < 0).any() or (number >= self.ready[env]).any():
            raise ValueError(
                "`indices` are not from this buffer's `sample`. Received: "
                f"{np.unique(ids)[[0, -1]].tolist()} as the smallest and the largest. "
                "Pass the array sample()['indices'] on as it is."
            )
        return env * self.length + number % self.length, number >= self.first[env]

    def ids_of(self, slots):
        """Ids of the starts that are in some slots now.

        Args:
            slots: Integer array.

        Returns:
            int64 array.
        """
        env, place = np.divmod(slots, self.length)
        first = self.first[env]
        number = first + (place - first) % self.length
        return number * self.num_envs + env

    def get_state(self):
        """JSON-compatible counters."""
        return {
            "first": self.first.tolist(),
            "ready": self.ready.tolist(),
            "last": self.last.tolist(),
            "oldest": self._oldest.tolist(),
        }

    def set_state(self, state):
        """Restores counters from `get_state`."""
        self.first[:] = state["first"]
        self.ready[:] = state["ready"]
        self.last[:] = state["last"]
        self._oldest = np.array(state["oldest"], np.int64)
        self._size = int((self.ready - self.first).sum())


_NO_SLOTS = np.zeros(0, np.int64)
