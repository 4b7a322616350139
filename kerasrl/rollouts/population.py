"""Weights moved at random, and the episodes that they play.

An episode is a task with a number. From that number alone follow the weights that act
in it and the seed of its environment, so it is the same episode wherever it is played:
in this process or in another, beside others or alone, and again where it was lost.
"""

import dataclasses

import numpy as np
import optree


@dataclasses.dataclass(frozen=True)
class Population:
    """Weights moved along random directions, and against them.

    Directions are made from their index when they are needed: indices and returns are
    all that processes have to tell each other.

    Args:
        key: Integer from 0, below 2**63, from which all is drawn.
        center: Float32 `[D]`, the weights in the middle.
        scale: Float, standard deviation of what is added to them.
        num_pairs: Integer n, how many directions.
        episodes: Integer, episodes of each of the `2 n` policies.
        center_episodes: Integer, episodes of the weights in the middle.

    Example:

    ```python
    population = Population(7, np.zeros(10, np.float32), 0.1, 4, 1, 2)
    population.num_tasks  # 10
    population.weights(0) + population.weights(1)  # zeros: the two of a pair
    ```
    """

    key: int
    center: np.ndarray
    scale: float
    num_pairs: int
    episodes: int = 1
    center_episodes: int = 1

    @property
    def num_tasks(self):
        """Number of episodes in all; those of the middle come last."""
        return self.num_perturbed + self.center_episodes

    @property
    def num_perturbed(self):
        """Number of episodes of weights that were moved."""
        return 2 * self.num_pairs * self.episodes

    def direction(self, pair):
        """Returns the direction of a pair, float32 `[D]` of the standard normal."""
        return self._generator(pair).standard_normal(len(self.center), np.float32)

    def weights(self, task):
        """Returns the weights that act in an episode, float32 `[D]`."""
        pair, side, _ = self._place(task)
        if side is None:
            return self.center
        step = np.float32(self.scale if side == 0 else -self.scale)
        return self.center + step * self.direction(pair)

    def seed(self, task):
        """Returns the seed of the environment of an episode.

        The two policies of a pair are compared on the same: much of the chance in a
        difference of returns is gone.
        """
        pair, _, episode = self._place(task)
        # Not the numbers of which the direction is made.
        generator = self._generator(pair, 1)
        return int(generator.integers(2**31, size=episode + 1)[-1])

    def _place(self, task):
        """The pair of a task, its side of the pair, and which of its episodes it is."""
        if task >= self.num_perturbed:
            return self.num_pairs, None, task - self.num_perturbed
        policy, episode = divmod(task, self.episodes)
        return policy // 2, policy % 2, episode

    def _generator(self, pair, stream=0):
        key = np.array([self.key, 2 * pair + stream], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))


def dealt(tasks, index, count):
    """Returns the tasks of one of several who share them.

    Args:
        tasks: List.
        index: Integer, whose.
        count: Integer, how many share them.
    """
    return tasks[index::count]


def put_together(parts):
    """Returns what all played, in the order of the tasks that `dealt` shared out.

    Args:
        parts: List of dicts as of `PopulationPlayer.play`, one of each who shared them.
    """

    def join(rows):
        count, first = sum(map(len, rows)), rows[0]
        if isinstance(first, list):
            whole = [None] * count
        else:
            whole = np.zeros((count, *first.shape[1:]), first.dtype)
        for index, part in enumerate(rows):
            whole[index :: len(rows)] = part
        return whole

    result = {}
    for name in parts[0]:
        columns = [part[name] for part in parts]
        if name in ("means", "squares"):  # For each part of an observation.
            result[name] = [join(rows) for rows in zip(*columns, strict=True)]
        else:
            result[name] = join(columns)
    return result


class Moments:
    """Mean and squares of the observations of each episode, summed as it goes.

    Around the first of each episode, because sums of squares far from zero have no
    digits left for what varies.

    Args:
        observations: Tree `[B, ...]`, like those to come.
        num_tasks: Integer, how many episodes there will be.
    """

    def __init__(self, observations, num_tasks):
        leaves = [np.asarray(leaf) for leaf in optree.tree_leaves(observations)]
        self._origin, self._sum, self._square = (
            [np.zeros(leaf.shape) for leaf in leaves] for _ in range(3)
        )
        self._count = np.zeros(len(leaves[0]), np.int64)
        self._means, self._squares = (
            [np.zeros((num_tasks, *leaf.shape[1:])) for leaf in leaves]
            for _ in range(2)
        )

    def begin(self, seat, observations):
        """Called where an environment has begun an episode."""
        leaves = optree.tree_leaves(observations)
        for origin, total, square, leaf in zip(
            self._origin, self._sum, self._square, leaves, strict=True
        ):
            origin[seat] = leaf[seat]
            total[seat] = square[seat] = 0.0
        self._count[seat] = 0

    def add(self, observations):
        """Called with what is acted on next."""
        leaves = optree.tree_leaves(observations)
        self._count += 1
        for origin, total, square, leaf in zip(
            self._origin, self._sum, self._square, leaves, strict=True
        ):
            # Where nobody plays there may be anything; elsewhere it is looked at later.
            with np.errstate(over="ignore", invalid="ignore"):
                difference = leaf - origin
                total += difference
                square += np.square(difference, out=difference)

    def finish(self, seat, task):
        """Called where the episode of an environment has ended."""
        count = self._count[seat]
        for k, (total, square) in enumerate(zip(self._sum, self._square, strict=True)):
            mean = total[seat] / count
            self._means[k][task] = self._origin[k][seat] + mean
            self._squares[k][task] = np.maximum(square[seat] - mean * total[seat], 0.0)

    def results(self):
        """Returns the dict of `"means"` and `"squares"`, see `PopulationPlayer`."""
        return {"means": self._means, "squares": self._squares}


def merge_moments(counts, means, squares):
    """Mean and variance of all samples, from those of parts, in their order.

    Args:
        counts: Integers `[n]`, samples of each part.
        means: Float64 `[n, ...]`.
        squares: Float64 `[n, ...]`, sums of squares around those means.

    Returns:
        Tuple of the number of samples, their mean and their variance (divided by that
        number), float64 `[...]`.
    """
    total = counts.sum()
    shares = (counts / total).reshape((-1,) + (1,) * (means.ndim - 1))
    mean = (shares * means).sum(axis=0)
    spread = (shares * np.square(means - mean)).sum(axis=0)
    return int(total), mean, squares.sum(axis=0) / total + spread
