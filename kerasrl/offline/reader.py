"""Batches of a data set, in a shuffled order that can be gone on with."""

import numpy as np
import optree

from kerasrl import checks, spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.offline.episodes import tree_of
from kerasrl.offline.table import build_tree


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
        seed, epoch, group, position = (
            state[name] for name in ("seed", "epoch", "group", "position")
        )
        # All of it is checked before any of it is taken.
        groups = self._groups(seed, epoch)
        if group >= len(groups) or position >= self._count(groups[group]):
            raise ValueError(
                f"Received {state!r:.200} as the state of a reader. Expected that of a "
                "reader of this data set with the same arguments."
            )
        self._seed, self._epoch = seed, epoch
        self._group, self._position, self._order = group, position, None

    def _advance(self):
        self._position, self._order = 0, None
        self._group += 1
        if self._group == len(self._groups(self._seed, self._epoch)):
            self._group, self._epoch = 0, self._epoch + 1

    def _groups(self, seed, epoch):
        """Tuples of the numbers of the parts that are held together, in an epoch."""
        parts = self.dataset.parts
        order = _generator(seed, epoch, 0).permutation(len(parts))
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
        group = self._groups(self._seed, self._epoch)[self._group]
        if group != self._parts:
            # Before the next is made: two would take twice the memory.
            self._loaded = self._parts = None
            parts = [self.dataset.parts[number] for number in group]
            kind = _Steps if self.sequence_length is None else _Sequences
            self._loaded = kind(self.dataset, parts, self.gamma, self.sequence_length)
            self._parts = group
        generator = _generator(self._seed, self._epoch, 1 + self._group)
        self._order = generator.permutation(len(self._loaded))

    def _count(self, group):
        """How many steps or pieces some parts have."""
        size = self.sequence_length or 1
        lengths = (self.dataset.parts[number].lengths for number in group)
        return sum(int((-(-each // size)).sum()) for each in lengths)


def _generator(*seeds):
    return np.random.default_rng(seeds)


class _Steps:
    """Single steps of some parts, in memory, in the dtypes that policies take."""

    def __init__(self, dataset, parts, gamma, _):
        self._spaces = dataset.observation_space, dataset.action_space
        self._gamma = gamma
        self.lengths, self._has_terminated, truncated = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("lengths", "terminated", "truncated")
        )
        self._episodes = np.repeat(np.arange(len(self.lengths)), self.lengths)
        self._stops = np.cumsum(self.lengths)
        self._structures = {x: parts[0].structures[x] for x in dataset.extras}
        self._columns = _load(parts, self._spaces[1], dataset.extras, gamma)
        flags = np.zeros((2, self._stops[-1]), bool)
        flags[:, self._stops - 1] = self._has_terminated, truncated
        self._terminated, self._truncated = flags

    def __len__(self):
        return len(self._episodes)

    def gather(self, indices):
        """Returns a batch of steps by their numbers, an integer array."""
        columns = self._columns
        episodes = self._episodes[indices]
        rows = indices + episodes  # Each episode before has a row more.

        def observed(rows):
            leaves = [x.take(rows, axis=0) for x in columns["observations"]]
            return tree_of(self._spaces[0], leaves)

        def taken(name):
            return [x.take(indices, axis=0) for x in columns[name]]

        batch = {
            "observations": observed(rows),
            "next_observations": observed(rows + 1),
            "actions": tree_of(self._spaces[1], taken("actions")),
            "rewards": taken("rewards")[0],
            "terminated": self._terminated[indices],
            "truncated": self._truncated[indices],
            "extras": {
                name: build_tree(structure, taken(f"extras.{name}"))
                for name, structure in self._structures.items()
            },
        }
        if self._gamma is not None:
            left = self._stops[episodes] - indices
            discounts = np.power(float(self._gamma), left)
            discounts = np.where(self._has_terminated[episodes], 0.0, discounts)
            batch["returns_to_go"] = taken("returns_to_go")[0]
            batch["final_discounts"] = discounts.astype(np.float32)
            batch["final_observations"] = observed(self._stops[episodes] + episodes)
        return batch


class _Sequences:
    """Pieces of episodes, of one length, the last of each filled up with zeros."""

    def __init__(self, dataset, parts, gamma, length):
        self._steps = _Steps(dataset, parts, gamma, None)
        self._length = length
        lengths = self._steps.lengths
        counts = -(-lengths // length)
        episodes = np.repeat(np.arange(len(counts)), counts)
        numbers = np.arange(len(episodes)) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        begins = np.cumsum(lengths) - lengths
        self._starts = begins[episodes] + numbers * length
        self._sizes = np.minimum(lengths[episodes] - numbers * length, length)
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


def _load(parts, action_space, extras, gamma):
    """The columns of some parts together, each read once and converted as it comes."""
    whole: dict = {}
    totals = _rows(parts)
    starts = dict.fromkeys(totals, 0)
    for part in parts:
        columns = _converted(part.table(), action_space, extras, gamma)
        if len(parts) == 1:
            return columns
        for name, leaves in columns.items():
            rows = "observations" if name == "observations" else "steps"
            if name not in whole:
                whole[name] = [
                    np.empty((totals[rows], *x.shape[1:]), x.dtype) for x in leaves
                ]
            here = slice(starts[rows], starts[rows] + len(leaves[0]))
            for number, leaf in enumerate(leaves):
                target = whole[name][number]
                if target.dtype != leaf.dtype:
                    dtype = np.promote_types(target.dtype, leaf.dtype)
                    target = whole[name][number] = target.astype(dtype)
                target[here] = leaf
        for rows, count in _rows([part]).items():
            starts[rows] += count
    return whole


def _rows(parts):
    """How many rows the columns of some parts have."""
    steps = sum(int(part.lengths.sum()) for part in parts)
    # What followed the last action of each episode is a row more.
    episodes = sum(len(part.lengths) for part in parts)
    return {"observations": steps + episodes, "steps": steps}


def _converted(table, action_space, extras, gamma):
    """The columns of a table as policies take them, in memory."""
    found = table.columns
    actions = ActionConverter(action_space).inverse(
        tree_of(action_space, found["actions"])
    )
    columns = {
        "observations": [_floats(x) for x in found["observations"]],
        "actions": spaces.leaf_lister(action_space)(actions),
        "rewards": [_floats(found["rewards"][0])],
    }
    for name in extras:
        columns[f"extras.{name}"] = [_floats(x) for x in found[f"extras.{name}"]]
    if gamma is not None:
        returns = returns_to_go(found["rewards"][0], table.lengths, gamma)
        columns["returns_to_go"] = [returns.astype(np.float32)]
    return columns


def _floats(array):
    """An array in memory, not copied if it is there; floats as policies take them."""
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype
    is_mapped = isinstance(array, np.memmap)
    return np.array(array, dtype) if is_mapped else array.astype(dtype, copy=False)
