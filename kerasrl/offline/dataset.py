"""Episodes that were recorded, and what can be done with them."""

import collections.abc
import hashlib

import numpy as np
import optree

from kerasrl import checks, spaces
from kerasrl.offline import replaying, statistics
from kerasrl.offline.episodes import EpisodeCheck
from kerasrl.offline.reader import Reader
from kerasrl.offline.table import Table, take


class Dataset:
    """Episodes of one environment, in memory or in files.

    It consists of parts, such as files, which are read when they are needed and
    forgotten when others are. `kerasrl.offline.load` and `kerasrl.offline.from_arrays`
    make one.

    Args:
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        parts: List of `Table`s, or of what stands for one in a file: with `lengths`,
            `terminated`, `truncated`, `structures`, `nbytes`, `episode(index)` and
            `table()`.
        metadata: Dict, JSON-compatible, what is known of its origin.
        num_damaged: Integer, files and lines that were skipped because they are
            damaged.

    Example:

    ```python
    dataset = kerasrl.offline.load("runs/cartpole")
    dataset.num_episodes, dataset.statistics()["return_mean"]
    train, test = dataset.split([0.9, 0.1], seed=0)
    ```
    """

    def __init__(
        self, observation_space, action_space, parts, metadata=None, num_damaged=0
    ):
        spaces.check_space(observation_space, "observation")
        spaces.check_space(action_space, "action")
        self.observation_space = observation_space
        self.action_space = action_space
        self.parts = [part for part in parts if len(part.lengths)]
        self.metadata = dict(metadata or {})
        self.num_damaged = num_damaged

    def __len__(self):
        return self.num_episodes

    def __repr__(self):
        return (
            f"<{type(self).__name__} of {self.num_episodes} episodes, "
            f"{self.num_steps} steps>"
        )

    @property
    def num_episodes(self):
        """Number of episodes."""
        return sum(len(part.lengths) for part in self.parts)

    @property
    def num_steps(self):
        """Number of steps of all episodes."""
        return sum(int(part.lengths.sum()) for part in self.parts)

    @property
    def nbytes(self):
        """Bytes of all arrays, wherever they are."""
        return sum(part.nbytes for part in self.parts)

    @property
    def extras(self):
        """Names of the extras that all parts have, such as `"log_probs"`, sorted."""
        if not self.parts:
            return []
        first, *others = (part.structures for part in self.parts)
        return sorted(
            name
            for name, structure in first.items()
            if all(other.get(name, ...) == structure for other in others)
        )

    @property
    def episodes(self):
        """The episodes, a sequence that reads them when they are asked for."""
        return _Episodes(self.parts)

    def fingerprint(self):
        """Tells this data set from others, also of as many episodes and steps.

        Returns:
            Integer, of the lengths and the ends of all episodes, and of what happened
            in the first, the middle and the last: others are not read for it.
        """
        found = hashlib.sha256()
        for part in self.parts:
            for name in ("lengths", "terminated", "truncated"):
                found.update(np.ascontiguousarray(getattr(part, name)).tobytes())
        count = self.num_episodes
        for number in sorted({0, count // 2, count - 1}) if count else ():
            episode = self.episodes[number]
            tree = (episode.observations, episode.actions, episode.rewards)
            for leaf in optree.tree_leaves(tree):
                found.update(np.ascontiguousarray(leaf).tobytes())
        return int.from_bytes(found.digest()[:6])

    def reader(
        self,
        batch_size=256,
        seed=None,
        sequence_length=None,
        gamma=None,
        memory_bytes=2**30,
    ):
        """Returns a `kerasrl.offline.Reader` of batches; see there."""
        return Reader(self, batch_size, seed, sequence_length, gamma, memory_bytes)

    def filter(self, function):
        """Returns the episodes for which a function says True.

        Args:
            function: Takes an `Episode`, returns a bool. It is called here, once for
                each episode.

        Returns:
            A `Dataset` that shares the files of this one.

        Example:

        ```python
        best = dataset.filter(lambda episode: episode.episode_return > 400)
        ```
        """
        chosen = []
        for part in self.parts:
            table = part.table()
            numbers = range(len(part.lengths))
            chosen.append([i for i in numbers if function(table.episode(i))])
        return self._some(chosen)

    def map(self, function):
        """Returns a data set of what a function makes of each episode, in memory.

        Such as rewards that are known only when an episode is over.

        Args:
            function: Takes an `Episode` and returns one of the same spaces. It must not
                write into the arrays of its own.

        Returns:
            A `Dataset`.

        Raises:
            TypeError, ValueError: What it returned is no episode of these spaces.

        Example:

        ```python
        def praised_for_the_end(episode):
            rewards = np.full(episode.length, episode.episode_return / episode.length)
            return dataclasses.replace(episode, rewards=rewards)

        dataset = dataset.map(praised_for_the_end)
        ```
        """
        check = EpisodeCheck(self.observation_space, self.action_space)
        parts = []
        for part in self.parts:
            table = part.table()
            numbers = range(len(part.lengths))
            episodes = [check(function(table.episode(number))) for number in numbers]
            parts.append(Table.of(episodes, self.observation_space, self.action_space))
        return Dataset(
            self.observation_space,
            self.action_space,
            parts,
            self.metadata,
            self.num_damaged,
        )

    def split(self, shares, seed=None):
        """Deals the episodes out at random.

        Args:
            shares: List of positive numbers, in proportion to the episodes of each.
            seed: Integer or `None`.

        Returns:
            List of `Dataset`s, none of which has an episode of another.

        Raises:
            ValueError: There are no shares, or one of them is not positive.

        Example:

        ```python
        train, test = dataset.split([0.8, 0.2], seed=0)
        ```
        """
        shares = np.asarray(shares, np.float64)
        if shares.ndim != 1 or not len(shares) or not (shares > 0).all():
            raise ValueError(
                f"Received shares={shares.tolist()!r}. Expected positive numbers, such "
                "as [0.9, 0.1]."
            )
        total = self.num_episodes
        order = np.random.default_rng(checks.seed(seed)).permutation(total)
        cuts = np.rint(np.cumsum(shares)[:-1] / shares.sum() * total).astype(int)
        begins = np.cumsum([0, *(len(part.lengths) for part in self.parts)])
        found = []
        for numbers in np.split(order, cuts):
            numbers = np.sort(numbers)
            parts = np.searchsorted(begins, numbers, "right") - 1
            found.append(
                self._some(
                    [
                        (numbers[parts == part] - begins[part]).tolist()
                        for part in range(len(self.parts))
                    ]
                )
            )
        return found

    def statistics(self):
        """Computes what the data are like, part by part.

        Returns:
            Dict of `num_episodes`, `num_steps`, `num_terminated`, `num_truncated`,
            `num_unfinished`; `return_mean`, `return_std`, `return_min`, `return_max`
            and `length_mean` of the episodes that ended; `reward_mean`, `reward_std`,
            `reward_min`, `reward_max`; `observation_mean` and `observation_std`, trees
            like an observation; `action_mean` and `action_std`, trees like an action as
            a policy emits it.
        """
        return statistics.compute(self)

    def rollouts(self, num_steps=64, num_envs=1):
        """Yields the episodes as rollouts, which any agent with replay learns from.

        Args:
            num_steps: Integer, T.
            num_envs: Integer B, episodes beside each other.

        Yields:
            `kerasrl.rollouts.Rollout`s `[T, B, ...]`, each of which goes on where the
            one before stopped. The last is filled up with steps that are not valid.
            Where a record ends in the middle of an episode it is `truncated`.

        Example:

        ```python
        agent = kerasrl.DQN(learning_starts=0)
        agent.build(dataset.observation_space, dataset.action_space)
        agent.fit(list(dataset.rollouts(num_steps=8)))
        ```
        """
        num_steps = checks.positive_integer("num_steps", num_steps)
        num_envs = checks.positive_integer("num_envs", num_envs)
        return replaying.rollouts(self, num_steps, num_envs)

    def to_replay(self, agent, num_envs=8):
        """Fills the replay buffer of an agent with the whole data set.

        The agent then trains in an environment from both, with as many environments.

        Args:
            agent: A `kerasrl.OffPolicyAgent`.
            num_envs: Integer, the environments that `fit` will be given.

        Raises:
            TypeError: The agent has no replay buffer.
            ValueError: The buffer is too small, or there is something in it.

        Example:

        ```python
        agent = kerasrl.SAC(learning_starts=0)
        dataset.to_replay(agent)
        agent.fit("Pendulum-v1", steps=10_000)
        ```
        """
        num_envs = checks.positive_integer("num_envs", num_envs)
        replaying.fill(self, agent, num_envs)

    def as_tf_dataset(self, batch_size=256, **arguments):
        """Returns the endless batches of a reader as a `tf.data.Dataset`.

        Args:
            batch_size: Integer.
            **arguments: As for `reader`.

        Returns:
            `tf.data.Dataset` of the dicts that `reader` describes, without `extras` if
            there are none. Each iteration over it starts anew.

        Example:

        ```python
        batches = dataset.as_tf_dataset(64, seed=0)
        pairs = batches.map(lambda x: (x["observations"], x["actions"]))
        model.fit(pairs, steps_per_epoch=100, shuffle=False)
        ```
        """
        import tensorflow as tf

        def batches():
            for batch in self.reader(batch_size, **arguments):
                if not batch["extras"]:
                    del batch["extras"]
                yield batch

        signature = tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), next(batches())
        )
        found = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return found.prefetch(tf.data.AUTOTUNE)

    def _some(self, chosen):
        parts = [
            part if len(indices) == len(part.lengths) else _Some(part, indices)
            for part, indices in zip(self.parts, chosen, strict=True)
        ]
        return Dataset(
            self.observation_space,
            self.action_space,
            parts,
            self.metadata,
            self.num_damaged,
        )


class _Some:
    """Some episodes of a part."""

    def __init__(self, part, indices):
        self._part, self._indices = part, np.array(indices, np.int64)
        self.structures = part.structures
        self.lengths, self.terminated, self.truncated = (
            getattr(part, name)[self._indices]
            for name in ("lengths", "terminated", "truncated")
        )
        share = self.lengths.sum() / max(1, part.lengths.sum())
        self.nbytes = int(part.nbytes * share)

    def episode(self, index):
        return self._part.episode(int(self._indices[index]))

    def table(self):
        return take(self._part.table(), self._indices.tolist())


class _Episodes(collections.abc.Sequence):
    """The episodes of all parts, one after the other."""

    def __init__(self, parts):
        self._parts = parts
        self._begins = np.cumsum([0, *(len(part.lengths) for part in parts)]).tolist()

    def __len__(self):
        return self._begins[-1]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} episodes. Received: {index}.")
        index %= len(self)
        part = int(np.searchsorted(self._begins, index, "right")) - 1
        return self._parts[part].episode(index - self._begins[part])

    def __iter__(self):
        for part in self._parts:
            table = part.table()
            for index in range(len(part.lengths)):
                yield table.episode(index)
