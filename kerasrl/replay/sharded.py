"""Several replay buffers that are drawn from as if they were one."""

import contextlib

import numpy as np
import optree

from kerasrl.replay import memory
from kerasrl.replay.samplers import check_errors, importance_weights, share_largest
from kerasrl.replay.stream_buffer import check_positive


class ShardedReplay:
    """One replay buffer for each part of the environments, drawn from together.

    Workers that act by themselves hand in what they acted one at a time, each of its
    own environments: so each has a buffer of its own. A sample of all of them is drawn
    with the probabilities that it would have in one buffer: by priorities, with one
    draw of each batch from each N-th of the sum of all of them. Importance weights are
    over all of them, and what has no priority of its own yet has the largest one that
    any of them has seen.

    Args:
        shards: List of empty buffers, alike, of as many environments each.

    Raises:
        MemoryError: Together they do not fit in memory or on the disk.
        ValueError: There are none, or they are of different numbers of environments.

    Example:

    ```python
    shards = [PrioritizedReplayBuffer(50_000, *spaces, num_envs=4) for _ in range(2)]
    buffer = ShardedReplay(shards)
    buffer.add(collector.collect())  # `first_env` says to which of them.
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    ```
    """

    def __init__(self, shards):
        self.shards = list(shards)
        widths = {shard.num_envs for shard in self.shards}
        if len(widths) != 1:
            raise ValueError(
                f"Received {len(self.shards)} buffers of {sorted(widths)} "
                "environments. Expected at least one, and the same number in each."
            )
        self._width = widths.pop()
        # Each found room for itself, before any of it was written to.
        memory.check_together([shard.storage_bytes() for shard in self.shards])
        self._share_largest()

    def __len__(self):
        return sum(len(shard) for shard in self.shards)

    @property
    def num_envs(self):
        """Number of environments of all of them."""
        return self._width * len(self.shards)

    @property
    def capacity(self):
        """Number of rows of all of them."""
        return sum(shard.capacity for shard in self.shards)

    @property
    def nbytes(self):
        """Bytes of all arrays, those in files included."""
        return sum(shard.nbytes for shard in self.shards)

    def keeps(self, name):
        """Whether samples have more than always, as of one buffer."""
        return all(shard.keeps(name) for shard in self.shards)

    def add(self, rollout, errors=None):
        """Stores a rollout of the environments of one of the buffers.

        Args:
            rollout: `kerasrl.rollouts.Rollout` `[T, b, ...]`, whose `first_env` says of
                which environments.
            errors: As for `ReplayBuffer.add`.

        Raises:
            ValueError: It is not of exactly the environments of one buffer, or as of
                one buffer.
        """
        firsts = [first for first, _ in rollout.parts()]
        index, rest = divmod(firsts[0], self._width)
        width = np.shape(rollout.rewards)[-1]
        if len(firsts) > 1 or rest or index >= len(self.shards) or width != self._width:
            raise ValueError(
                f"Received a rollout of {width} environments from number "
                f"{rollout.first_env}. Expected {self._width} environments from a "
                f"multiple of that below {self.num_envs}: this buffer has a part for "
                "each worker."
            )
        self.shards[index].add(rollout, errors)
        self._share_largest()

    def cut(self):
        """Says that environments were reset: nothing joins across this point."""
        for shard in self.shards:
            shard.cut()

    def set_returns(self, n_step, gamma):
        """Changes how rewards are summed, as `ReplayBuffer.set_returns`."""
        for shard in self.shards:
            shard.set_returns(n_step, gamma)

    def sample(
        self,
        batch_size,
        num_batches=None,
        rng=None,
        importance_exponent=1.0,
        scale_rewards=None,
    ):
        """Draws from all buffers, with replacement.

        Args:
            batch_size, num_batches, rng, importance_exponent, scale_rewards: As of one
                buffer.

        Returns:
            Dict of new arrays, as from one buffer. `indices` are for the
            `update_priorities` of this object.

        Raises:
            ValueError: There is nothing to sample, or an argument is out of range.
        """
        arguments = {
            "importance_exponent": importance_exponent,
            "scale_rewards": scale_rewards,
        }
        if len(self.shards) == 1 or not len(self):
            # Which says what is wrong with nothing.
            return self.shards[0].sample(batch_size, num_batches, rng, **arguments)
        check_positive("batch_size", batch_size)
        shape = (int(batch_size),)
        if num_batches is not None:
            check_positive("num_batches", num_batches)
            shape = (int(num_batches), *shape)
        rng = np.random.default_rng() if rng is None else rng
        shares, uniform_fractions = self._shares()
        numbers, places = _draw_places(shares, shape, rng)
        parts, rows = [], []
        for number, shard in enumerate(self.shards):
            own = np.flatnonzero(numbers == number)
            if not own.size:
                continue
            with _drawing(shard, uniform_fractions[number], places[own]):
                part = shard.sample(own.size, rng=rng, **arguments)
            part["indices"] = part["indices"] * len(self.shards) + number
            part["probabilities"] = part["probabilities"] * shares[number]
            parts.append(part)
            rows.append(own)
        batch = _merge(parts, rows, shape)
        if self.shards[0]._sampler.has_priorities:
            batch["weights"] = importance_weights(
                batch["probabilities"], importance_exponent
            )
        return batch

    def update_priorities(self, indices, absolute_td_errors):
        """Sets priorities after an update, as of one buffer.

        Args:
            indices: int64 array, `indices` of samples.
            absolute_td_errors: Float array of that shape, finite and not negative.

        Returns:
            Integer, how many had been overwritten and were left out.

        Raises:
            ValueError: As of one buffer.
        """
        indices, errors = check_errors(indices, absolute_td_errors)
        ids, numbers = np.divmod(indices, len(self.shards))
        gone = sum(
            shard.update_priorities(ids[numbers == number], errors[numbers == number])
            for number, shard in enumerate(self.shards)
        )
        self._share_largest()
        return gone

    # State ----------------------------------------------------------------------

    def get_state(self):
        """Returns JSON-compatible counters, for `set_state` with `get_arrays`."""
        return {"shards": [shard.get_state() for shard in self.shards]}

    def get_arrays(self):
        """Returns the contents, a dict from names to arrays, views."""
        return {
            f"shards.{number}.{name}": array
            for number, shard in enumerate(self.shards)
            for name, array in shard.get_arrays().items()
        }

    def set_state(self, state, arrays):
        """Restores what was saved, which goes on exactly where it was.

        Args:
            state: Dict from `get_state`.
            arrays: Dict from `get_arrays`.

        Raises:
            ValueError: They come from buffers made with other arguments, or of another
                number, or were damaged.
        """
        states = state.get("shards")
        if not isinstance(states, list) or len(states) != len(self.shards):
            received = len(states) if isinstance(states, list) else states
            raise ValueError(
                f"The saved state does not fit this buffer. Received: {received!r:.80} "
                f"parts. Expected: {len(self.shards)}, one for each worker."
            )
        own = [{} for _ in self.shards]
        for name, array in arrays.items():
            first, number, *rest = [*name.split(".", 2), "", ""][:3]
            known = first == "shards" and number.isdecimal() and rest[0]
            if not known or int(number) >= len(own):
                raise ValueError(
                    f"The saved arrays do not fit this buffer. Received: {name!r}. "
                    f"Expected: shards.0 to shards.{len(own) - 1}, and a name."
                )
            own[int(number)][rest[0]] = array
        for shard, shard_state, shard_arrays in zip(
            self.shards, states, own, strict=True
        ):
            if not isinstance(shard_state, dict):
                raise ValueError(
                    "The saved state is damaged. Received: shards = "
                    f"{states!r:.80}. Expected: a list of objects."
                )
            shard.set_state(shard_state, shard_arrays)
        self._share_largest()

    # Drawing --------------------------------------------------------------------

    def _shares(self):
        """How much of a sample is of which buffer, and how much of that is uniform.

        One buffer would draw `i` of `M` with `(1 - u) p_i / p + u / M`. Drawn from
        buffer `s`, which has the share `q_s`, with `(1 - u_s) p_i / p_s + u_s / M_s`,
        this is the same if `q_s = (1 - u) p_s / p + u M_s / M` and
        `q_s u_s = u M_s / M`.
        """
        uniform = self.shards[0]._sampler.uniform_fraction
        masses = np.array([shard._sampler.mass for shard in self.shards])
        sizes = np.array([len(shard) for shard in self.shards], np.float64)
        of_sizes = uniform * sizes / sizes.sum()
        shares = (1.0 - uniform) * masses / masses.sum() + of_sizes
        fractions = np.zeros(len(shares))
        np.divide(of_sizes, shares, out=fractions, where=shares > 0.0)
        return shares, fractions

    def _share_largest(self):
        share_largest([shard._sampler for shard in self.shards])


def _draw_places(shares, shape, rng):
    """Numbers of buffers, and where in each, in [0, 1): stratified in each batch."""
    size, ends = shape[-1], np.cumsum(shares)
    points = (np.arange(size) + rng.random(shape)) / size
    # Else the parts would lie one behind the other.
    points = rng.permuted(points, axis=-1).ravel()
    numbers = np.searchsorted(ends, points, side="right")
    # Rounding may leave a point behind the last of them, or of its own.
    numbers = np.minimum(numbers, np.flatnonzero(shares)[-1])
    places = 1.0 - (ends[numbers] - points) / shares[numbers]
    return numbers, np.clip(places, 0.0, np.nextafter(1.0, 0.0))


@contextlib.contextmanager
def _drawing(shard, uniform_fraction, places):
    """A context in which it is settled where draws of a buffer fall."""
    sampler = shard._sampler
    if not sampler.has_priorities:  # Its draws do not depend on each other.
        yield
        return
    before, sampler.uniform_fraction = sampler.uniform_fraction, float(uniform_fraction)
    sampler.places = places
    try:
        yield
    finally:
        sampler.uniform_fraction, sampler.places = before, None


def _merge(parts, rows, shape):
    """One sample of several.

    Args:
        parts: List of samples, dicts of trees of arrays.
        rows: List of integer arrays, where each of them belongs.
        shape: Tuple, leading axes of the result.
    """
    count = sum(map(len, rows))

    def merge(*leaves):
        example = next(leaf for leaf in leaves if leaf is not None)
        merged = np.empty((count, *example.shape[1:]), example.dtype)
        for leaf, own in zip(leaves, rows, strict=True):
            # Some have not seen an info, or another shape of it.
            fits = leaf is not None and leaf.shape[1:] == example.shape[1:]
            merged[own] = leaf if fits else np.nan
        return merged.reshape(*shape, *example.shape[1:])

    infos = [part.pop("infos") for part in parts]
    names = dict.fromkeys(name for each in infos for name in each)
    merged = optree.tree_map(merge, *parts)
    merged["infos"] = {
        name: merge(*(each.get(name) for each in infos)) for name in names
    }
    return merged
