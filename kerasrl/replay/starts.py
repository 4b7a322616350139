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
        positions: int64 array over slots, zeros.
    """

    def __init__(self, num_envs, length, positions):
        self.num_envs = num_envs
        self.length = length
        self._positions = positions
        self._offset = np.arange(num_envs) * length
        # Numbers of the first start, and behind the last one that may be sampled
        # (`ready`) and the last of all.
        self.first = np.zeros(num_envs, np.int64)
        self.ready = np.zeros(num_envs, np.int64)
        self.last = np.zeros(num_envs, np.int64)
        self._size = 0

    def __len__(self):
        return self._size

    def push(self, env, rank, position, counts):
        """Appends starts that are not ready yet.

        Args:
            env: Integer array; `...` stands for all environments, where the other
                arrays are `[..., B]`.
            rank: Integer array, which of the new starts of its environment each one
                is, from zero.
            position: Integer array, the row in the stream.
            counts: Integer `[B]` or one integer, how many are new in each environment.

        Returns:
            Slots of the new starts, shaped like `position`.
        """
        slots = (self.last[env] + rank) % self.length + self._offset[env]
        self._positions[slots] = position
        self.last += counts
        return slots

    def ready_all(self, count):
        """Makes all starts ready, of which `count` are not yet."""
        self.ready[:] = self.last
        self._size += count

    def ready_until(self, position):
        """Makes the starts up to a position ready.

        Args:
            position: Integer `[B]`, the last row that is ready.

        Returns:
            Slots of those that became ready.
        """
        waiting = int((self.last - self.ready).max())
        numbers = self.ready + np.arange(waiting)[:, None]
        slots = numbers % self.length + self._offset
        complete = (numbers < self.last) & (self._positions[slots] <= position)
        self.ready += complete.sum(axis=0)
        slots = slots[complete]
        self._size += slots.size
        return slots

    def drop_waiting(self, envs):
        """Forgets the starts that are not ready: their rows will never be complete.

        Args:
            envs: bool `[B]`, in these environments.
        """
        self.last[envs] = self.ready[envs]

    def evict(self, oldest, most):
        """Removes the starts before a row.

        Args:
            oldest: Integer `[B]`, the first row of each stream that is still whole.
            most: Integer, how many rows `oldest` has moved at most since the last call.

        Returns:
            Slots of the starts that were removed. All of them must have been ready.
        """
        # Starts lie in different rows, so there are not more of them than rows.
        numbers = self.first + np.arange(most)[:, None]
        slots = numbers % self.length + self._offset
        gone = (self._positions[slots] < oldest) & (numbers < self.ready)
        self.first += gone.sum(axis=0)
        slots = slots[gone]
        self._size -= slots.size
        return slots

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
        }

    def set_state(self, state):
        """Restores counters from `get_state`."""
        self.first[:] = state["first"]
        self.ready[:] = state["ready"]
        self.last[:] = state["last"]
        self._size = int((self.ready - self.first).sum())
