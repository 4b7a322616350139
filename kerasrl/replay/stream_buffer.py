"""What the replay buffers share: rollouts in, samples drawn, state saved."""

import numpy as np

from kerasrl.replay import memory, saving
from kerasrl.replay.chunk import read_rollout
from kerasrl.replay.samplers import PrioritizedSampler, UniformSampler
from kerasrl.replay.starts import Starts
from kerasrl.replay.sum_tree import SumTree


class StreamBuffer:
    """Base class of the replay buffers, which puts three parts together.

    A `RowStore` keeps rows (whole observations or single frames, in memory or in
    files), `Starts` know where a sample may start, a sampler draws among them. A
    subclass says with `_note_starts` which rows are starts, and what a sample is.

    Args:
        store: `RowStore`.
        num_starts: Integer, how many starts an environment has at most.
        start_layout: Dict from names to shapes and dtypes, what is kept of a start.
        directory: Path or `None`; see `ReplayBuffer`.
        priorities: `None`, or a dict of the arguments `exponent`, `uniform_fraction`
            and `epsilon` of `PrioritizedSampler`.
    """

    #: Whether every sample begins with a step, not with a row in between.
    starts_are_steps = False

    def __init__(
        self, store, num_starts, start_layout=None, directory=None, priorities=None
    ):
        self.num_envs = store.streams.num_envs
        self._store, self._directory = store, directory
        num_slots = self.num_envs * num_starts
        start_layout = {"positions": ((), np.int64), **(start_layout or {})}
        start_layout = {
            f"starts.{name}": ((num_slots, *shape), dtype)
            for name, (shape, dtype) in start_layout.items()
        }
        tree_bytes = 0 if priorities is None else SumTree.count_bytes(num_slots)
        arrays = memory.allocate(store.layout(), directory, start_layout, tree_bytes)
        store.attach(arrays, directory)
        self._start_arrays = {name: arrays[name] for name in start_layout}
        self._starts = Starts(self.num_envs, num_starts, arrays["starts.positions"])
        if priorities is None:
            self._sampler = UniformSampler(self._starts)
        else:
            self._sampler = PrioritizedSampler(self._starts, num_slots, **priorities)

    def __len__(self):
        return len(self._starts)

    @property
    def capacity(self):
        """Number of rows over all environments."""
        return self.num_envs * self._store.streams.length

    @property
    def nbytes(self):
        """Bytes of all arrays, those in files included."""
        arrays = [*self._store.arrays.values(), *self._start_arrays.values()]
        return sum(array.nbytes for array in arrays) + self._sampler.nbytes

    def storage_bytes(self):
        """Returns bytes in main memory and in files, and the directory of these."""
        in_files = 0
        if self._directory is not None:
            in_files = sum(array.nbytes for array in self._store.arrays.values())
        return self.nbytes - in_files, in_files, self._directory

    def keeps(self, name):
        """Whether samples have more than always: what a policy, acting or infos say.

        Args:
            name: `"previous_actions"`, `"previous_rewards"`, `"extras"` or `"infos"`.
        """
        store = self._store
        if name == "infos":
            return store.infos is not None
        return name in store.inputs or name in store.outputs

    def add(self, rollout, errors=None):
        """Stores a rollout, which continues the one before without a seam.

        Args:
            rollout: `kerasrl.rollouts.Rollout` `[T, B, ...]` of a collector made with
                `all_finals=True`. Fillers (`valid` False) are not learnt from.
            errors: `None`; or float `[T, B]`, absolute errors that become the first
                priorities of single steps, NaN where they are not known: see
                `kerasrl.replay.first_errors`.

        Raises:
            ValueError: It does not fit the buffer, final observations are missing,
                it does not begin where the one before stopped, or there are errors for
                a buffer that has no priorities of single steps.
        """
        store = self._store
        chunk = read_rollout(
            rollout, self.num_envs, store.inputs, store.outputs, store.infos
        )
        if errors is not None:
            chunk.errors = self._check_first(errors, chunk.rewards.shape)
        if len(chunk) <= store.longest_chunk:
            self._add(chunk)
            return
        for part in chunk.split(store.longest_chunk):
            self._add(part)

    def cut(self):
        """Says that environments were reset: nothing joins across this point."""
        self._cut(np.ones(self.num_envs, bool))

    def update_priorities(self, indices, absolute_td_errors):
        """Sets priorities after an update.

        What was sampled and has been overwritten since is left out: its place may
        belong to something else by now. Where an index occurs several times, its last
        error counts.

        Args:
            indices: int64 array, `indices` of samples.
            absolute_td_errors: Float array of that shape, finite and not negative.

        Returns:
            Integer, how many were left out.

        Raises:
            ValueError: Shapes differ, an error is NaN, infinite or negative, an index
                is not from this buffer, or the buffer draws uniformly.
        """
        return self._sampler.update(indices, absolute_td_errors)

    def get_state(self):
        """Counters of the buffer.

        Returns:
            JSON-compatible dict, for `set_state` together with `get_arrays`.
        """
        return {
            **saving.describe(self),
            "streams": self._store.streams.get_state(),
            "starts": self._starts.get_state(),
            "sampler": self._sampler.get_state(),
        }

    def get_arrays(self):
        """Contents of the buffer.

        Returns:
            Dict from names to arrays, cut to the filled part. They are views: copy
            them, or write them to a file, before the buffer changes.
        """
        return saving.filled_arrays(self)

    def set_state(self, state, arrays):
        """Restores a buffer, which goes on exactly where the saved one was.

        Args:
            state: Dict from `get_state`.
            arrays: Dict from `get_arrays`.

        Raises:
            ValueError: They come from a buffer made with other arguments, or were
                damaged.
        """
        saving.restore(self, state, arrays)

    def _add(self, chunk):
        streams = self._store.streams
        reset = streams.open & chunk.episode_starts[0]
        if np.count_nonzero(reset):
            self._cut(reset)
        placement = self._store.append(chunk)
        if self._store.is_full():
            gone = self._starts.evict(
                self._store.oldest(), self._store.most_rows(placement)
            )
            self._sampler.remove(gone)
        self._note_starts(chunk, placement)

    def _check_first(self, errors, shape):
        if not (self.starts_are_steps and self._sampler.has_priorities):
            raise ValueError(
                f"Received errors of new steps. {type(self).__name__} has no "
                "priorities of single steps: use a PrioritizedReplayBuffer, or leave "
                "them out."
            )
        errors = np.asarray(errors, np.float64)
        if errors.shape != shape or (errors < 0.0).any():
            raise ValueError(
                f"Received errors of shape {errors.shape}, the least of them "
                f"{np.nanmin(errors, initial=np.inf)}. Expected absolute ones of shape "
                f"{shape}, as the rewards of the rollout; NaN where one is not known."
            )
        return errors

    def _cut(self, envs):
        self._store.streams.close(envs)

    def _note_starts(self, chunk, placement):
        """Pushes the starts in a chunk that was stored."""
        raise NotImplementedError(
            f"{type(self).__name__} must define _note_starts(chunk, placement)."
        )

    def _draw(self, batch_size, num_batches, rng, importance_exponent):
        """Ids, weights and probabilities, `[N]` or `[K, N]`."""
        check_positive("batch_size", batch_size)
        shape = (int(batch_size),)
        if num_batches is not None:
            check_positive("num_batches", num_batches)
            shape = (int(num_batches), *shape)
        if importance_exponent < 0.0:
            raise ValueError(
                "`importance_exponent` must be at least 0. Received: "
                f"{importance_exponent}."
            )
        if not len(self):
            raise ValueError(
                "The buffer has nothing to sample yet. Add rollouts before the first "
                "sample; len(buffer) says how much there is."
            )
        if rng is None:
            rng = np.random.default_rng()
        return self._sampler.draw(shape, rng, importance_exponent)


def check_positive(name, value):
    """Raises unless an argument is a positive integer."""
    if isinstance(value, bool) or not (
        isinstance(value, int | np.integer) and value >= 1
    ):
        raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}.")
