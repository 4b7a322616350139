"""Batches of a data set, in a shuffled order that can be gone on with."""

import numpy as np
import optree

from kerasrl import checks, spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.offline.episodes import tree_of
from kerasrl.offline.table import build_tree, concatenate


class Reader:
    """Draws batches of steps or sequences, each of them once an epoch.

    What fits in `memory_bytes` is loaded once. Of a larger data set, as many parts as
    fit are loaded at a time, in an order that is drawn anew in each epoch, and are
    shuffled together: memory stays flat.

    Args:
        dataset: `kerasrl.offline.Dataset`.
        batch_size: Integer, steps in a batch, or sequences.
        seed: Integer or `None`, of the order.
        sequence_length: Integer, or `None` for single steps.
        gamma: Float, discount factor of `returns_to_go`; `None` leaves them out.
        memory_bytes: Integer, bytes of data to be held at a time.

    Example:

    ```python
    reader = dataset.reader(batch_size=256, seed=0)
    batch = reader.next()
    batch["observations"], batch["actions"], batch["rewards"]
    ```
    """

    def __init__(
        self,
        dataset,
        batch_size=256,
        seed=None,
        sequence_length=None,
        gamma=None,
        memory_bytes=2**30,
    ):
        self.dataset = dataset
        self.batch_size = checks.positive_integer("batch_size", batch_size)
        self.sequence_length = None
        if sequence_length is not None:
            self.sequence_length = checks.positive_integer(
                "sequence_length", sequence_length
            )
        if gamma is not None and not 0.0 <= gamma <= 1.0:
            raise ValueError(
                f"Received gamma={gamma!r}. Expected a number from 0 to 1, or None."
            )
        self.gamma = gamma
        self.memory_bytes = checks.positive_integer("memory_bytes", memory_bytes)
        if dataset.num_steps == 0:
            raise ValueError("Received a data set without steps. There is no batch.")
        seed = checks.seed(seed)
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        self._seed, self._epoch, self._group, self._position = seed, 0, 0, 0
        self._parts = None  # Those that are loaded, as a tuple of numbers.
        self._loaded = self._order = None

    @property
    def epoch(self):
        """How often the whole data set has been read."""
        return self._epoch

    def __iter__(self):
        return self

    def __next__(self):
        return self.next()

    def next(self):
        """Reads the next batch. There is always one: after an epoch begins another.

        Returns:
            Dict, `N` being `batch_size`. Floats are float32, and actions as policies
            emit them: choices count from zero.

            - `observations`, `next_observations`: trees `[N, ...]`.
            - `actions`: tree `[N, ...]`.
            - `rewards`: float32 `[N]`.
            - `terminated`, `truncated`: bool `[N]`. Where a record ends in the middle
              of an episode both are False.
            - `extras`: dict of trees `[N, ...]`, what all parts of the data set have.
            - With `gamma`: `returns_to_go`, float32 `[N]`, discounted sums of rewards
              to the end of the record; `final_discounts`, float32 `[N]`, by which the
              value of `final_observations`, tree `[N, ...]`, is to be discounted and
              added, 0 where the episode terminates.

            With `sequence_length` all are `[N, L, ...]`, pieces of episodes from their
            starts, and there are `mask`, bool `[N, L]`, False after the end of an
            episode (where rows are zeros), and `episode_starts`, bool `[N, L]`.
        """
        missing, found = self.batch_size, []
        while missing:
            self._load()
            chosen = self._order[self._position : self._position + missing]
            found.append(self._loaded.gather(chosen))
            missing -= len(chosen)
            self._position += len(chosen)
            if self._position == len(self._order):
                self._advance()
        if len(found) == 1:
            return found[0]
        return optree.tree_map(lambda *leaves: np.concatenate(leaves), *found)

    def state(self):
        """Returns where reading stopped, as JSON-compatible data."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "group": self._group,
            "position": self._position,
            "num_steps": self.dataset.num_steps,
        }

    def set_state(self, state):
        """Goes on where `state` was called, of the same data and arguments.

        Raises:
            ValueError: It is not what `state` returned, or of other data.
        """
        names = {"seed", "epoch", "group", "position", "num_steps"}
        if not isinstance(state, dict) or set(state) != names:
            raise ValueError(f"Received {state!r:.200} as the state of a reader.")
        if any(type(value) is not int or value < 0 for value in state.values()):
            raise ValueError(
                f"Received {state!r:.200} as the state of a reader. Expected whole "
                "numbers."
            )
        if state["num_steps"] != self.dataset.num_steps:
            raise ValueError(
                f"Received the state of a reader of {state['num_steps']} steps. This "
                f"data set has {self.dataset.num_steps}: go on with the same data."
            )
        before = (self._seed, self._epoch, self._group, self._position)
        names = ("seed", "epoch", "group", "position")
        self._seed, self._epoch, self._group, self._position = (
            state[name] for name in names
        )
        self._order = None
        if self._group >= len(self._groups()):
            self._seed, self._epoch, self._group, self._position = before
            raise ValueError(f"Received {state!r:.200} as the state of a reader.")
        self._load()
        if self._position >= len(self._order):
            raise ValueError(f"Received {state!r:.200} as the state of a reader.")

    def _advance(self):
        self._position, self._order = 0, None
        self._group += 1
        if self._group == len(self._groups()):
            self._group, self._epoch = 0, self._epoch + 1

    def _groups(self):
        """Tuples of the numbers of the parts that are held together, in this epoch."""
        parts = self.dataset.parts
        order = self._generator(0).permutation(len(parts))
        groups: list = [[]]
        size = 0
        for number in order.tolist():
            if groups[-1] and size + parts[number].nbytes > self.memory_bytes:
                groups.append([])
                size = 0
            groups[-1].append(number)
            size += parts[number].nbytes
        # Within one, the order is that of the data: what is loaded need not be again.
        return [tuple(sorted(group)) for group in groups]

    def _load(self):
        if self._order is not None:
            return
        group = self._groups()[self._group]
        if group != self._parts:
            # Before the next is made: two would take twice the memory.
            self._loaded = self._parts = None
            tables = [self.dataset.parts[number].table() for number in group]
            whole = concatenate(tables, self.dataset.extras)
            del tables
            kind = _Steps if self.sequence_length is None else _Sequences
            self._loaded = kind(whole, self.gamma, self.sequence_length)
            self._parts = group
        self._order = self._generator(1 + self._group).permutation(len(self._loaded))

    def _generator(self, number):
        return np.random.default_rng([self._seed, self._epoch, number])


class _Steps:
    """Single steps of a table, in the dtypes that policies take."""

    def __init__(self, table, gamma, _):
        self._table, self._gamma = table, gamma
        lengths = table.lengths
        self._episodes = np.repeat(np.arange(len(lengths)), lengths)
        self._stops = np.cumsum(lengths)
        self._columns = columns = dict(table.columns)
        columns["observations"] = [_floats(x) for x in columns["observations"]]
        converter = ActionConverter(table.action_space)
        actions = converter.inverse(tree_of(table.action_space, columns["actions"]))
        columns["actions"] = spaces.leaf_lister(table.action_space)(actions)
        columns["rewards"] = [columns["rewards"][0].astype(np.float32)]
        for name in table.structures:
            columns[f"extras.{name}"] = [_floats(x) for x in columns[f"extras.{name}"]]
        flags = np.zeros((2, table.num_steps), bool)
        flags[:, self._stops - 1] = table.terminated, table.truncated
        self._terminated, self._truncated = flags
        if gamma is not None:
            self._returns = returns_to_go(
                table.columns["rewards"][0], lengths, gamma
            ).astype(np.float32)

    def __len__(self):
        return self._table.num_steps

    def gather(self, indices):
        """Returns a batch of steps by their numbers, an integer array."""
        table, columns = self._table, self._columns
        episodes = self._episodes[indices]
        rows = indices + episodes  # Each episode before has a row more.

        def observed(rows):
            leaves = [x.take(rows, axis=0) for x in columns["observations"]]
            return tree_of(table.observation_space, leaves)

        def taken(name):
            return [x.take(indices, axis=0) for x in columns[name]]

        batch = {
            "observations": observed(rows),
            "next_observations": observed(rows + 1),
            "actions": tree_of(table.action_space, taken("actions")),
            "rewards": taken("rewards")[0],
            "terminated": self._terminated[indices],
            "truncated": self._truncated[indices],
            "extras": {
                name: build_tree(structure, taken(f"extras.{name}"))
                for name, structure in table.structures.items()
            },
        }
        if self._gamma is not None:
            left = self._stops[episodes] - indices
            discounts = np.power(float(self._gamma), left)
            discounts = np.where(table.terminated[episodes], 0.0, discounts)
            batch["returns_to_go"] = self._returns[indices]
            batch["final_discounts"] = discounts.astype(np.float32)
            batch["final_observations"] = observed(self._stops[episodes] + episodes)
        return batch


class _Sequences:
    """Pieces of episodes, of one length, the last of each filled up with zeros."""

    def __init__(self, table, gamma, length):
        self._steps = _Steps(table, gamma, None)
        self._length = length
        counts = -(-table.lengths // length)
        episodes = np.repeat(np.arange(len(counts)), counts)
        numbers = np.arange(len(episodes)) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        begins = np.cumsum(table.lengths) - table.lengths
        self._starts = begins[episodes] + numbers * length
        self._sizes = np.minimum(table.lengths[episodes] - numbers * length, length)
        self._are_first = numbers == 0

    def __len__(self):
        return len(self._starts)

    def gather(self, indices):
        """Returns a batch of pieces by their numbers, an integer array."""
        ages = np.arange(self._length)
        mask = ages < self._sizes[indices][:, None]
        steps = self._starts[indices][:, None] + np.where(mask, ages, 0)
        batch = self._steps.gather(steps.ravel())
        gone = ~mask.ravel()

        def shape(leaf):
            leaf[gone] = 0
            return leaf.reshape(*mask.shape, *leaf.shape[1:])

        batch = optree.tree_map(shape, batch)
        batch["mask"] = mask
        batch["episode_starts"] = self._are_first[indices][:, None] & (ages == 0)
        return batch


def returns_to_go(rewards, lengths, gamma):
    """Discounted sums of the rewards from each step to the end of its record.

    Args:
        rewards: float64 `[S]`, of episodes one after the other.
        lengths: int64 `[E]`, their steps.
        gamma: Float, discount factor.

    Returns:
        float64 `[S]`.

    Example:

    ```python
    returns_to_go(np.ones(3), np.array([1, 2]), 0.5)  # [1, 1.5, 1]
    ```
    """
    returns = np.array(rewards, np.float64)
    # All episodes at once, from their ends; the longest come first.
    order = np.argsort(-lengths, kind="stable")
    lasts = (np.cumsum(lengths) - 1)[order]
    counts = np.searchsorted(-lengths[order], -np.arange(1, lengths.max()), "left")
    for age, count in enumerate(counts.tolist(), start=1):
        rows = lasts[:count] - age
        returns[rows] += gamma * returns[rows + 1]
    return returns


def _floats(array):
    """An array in memory; floats as policies take them."""
    return array.astype(np.float32) if array.dtype.kind == "f" else np.asarray(array)
