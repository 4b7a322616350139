"""Episodes of many policies, each by weights of its own.

An episode is a task with a number. From that number alone follow the weights that act
in it and the seed of its environment, so it is the same episode wherever it is played:
in this process or in another, beside others or alone, and again where it was lost.
"""

import dataclasses
import types

import gymnasium
import numpy as np
import optree

from kerasrl import spaces
from kerasrl.envs.serial import SerialEnvironments
from kerasrl.rollouts.checking import RolloutCheck
from kerasrl.rollouts.episodes import EpisodeTracker, RunningEpisodes
from kerasrl.rollouts.rollout import take

#: Steps after which what environments returned is looked at.
_BLOCK = 32


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


class PopulationPlayer:
    """Plays episodes of a population in environments of this process.

    Whichever environment is free takes the next episode, so they all have to be alike.
    Where `reset(seed=...)` settles all that is random in an environment, results do not
    depend on how many there are.

    Args:
        envs: `kerasrl.envs.SerialEnvironments`, B of them.
        actor: `kerasrl.actors.population.PopulationProgram` of size B.
        initial_state: As for `kerasrl.rollouts.Collector`.
        max_episode_steps: Integer, after which an episode is cut off, or `None`.
        counts: Whether to compute means and squares of observations.
        listener: As for `kerasrl.rollouts.Collector`.

    Raises:
        TypeError: Environments cannot be reset one by one.
    """

    def __init__(
        self,
        envs,
        actor,
        initial_state,
        max_episode_steps=None,
        counts=False,
        listener=None,
    ):
        if not isinstance(envs, SerialEnvironments):
            raise TypeError(
                "Episodes of different policies end at different times, so each needs "
                "an environment that is reset by itself. Received: "
                f"{envs.name}, environments that are stepped together. Give the id of "
                "an environment, a function that makes one, or a gymnasium.Env; of "
                'Atari games, a function that calls gymnasium.make("ALE/...").'
            )
        self.envs = envs
        envs.envs[:] = [
            _Seat(env, self, seat, max_episode_steps)
            for seat, env in enumerate(envs.envs)
        ]
        self._actor = actor
        self._initial_state = () if initial_state is None else initial_state
        self._counts = counts
        self._listener = listener
        self._check = RolloutCheck(envs)
        count = envs.num_envs
        self._actions = _block(spaces.zeros(spaces.emitted(envs.action_space), count))
        self._observations = _block(spaces.zeros(envs.observation_space, count))
        self._rewards = np.zeros((_BLOCK + 1, count), np.float32)
        self._population = None

    @property
    def is_playing(self):
        """Whether episodes of a population are played just now."""
        return self._population is not None

    def play(self, population, tasks):
        """Plays episodes to their ends.

        Args:
            population: `Population`.
            tasks: List of integers, numbers of episodes.

        Returns:
            Dict of arrays with a row for each task: `"returns"` float64, `"lengths"`
            int64, `"terminated"` bool, whether the end was one of the task, and lists
            `"means"` and `"squares"` of arrays, one for each part of an observation:
            the mean of those acted on, and the sum of squares around it, float64
            `[n, ...]`; empty unless counted. `"custom_metrics"` is a list of dicts.
        """
        self._population, self._tasks = population, list(tasks)
        try:
            return self._play()
        finally:
            self._population = None

    def _play(self):
        count = self.envs.num_envs
        self._next = iter(range(len(self._tasks)))
        self._coming = [None] * count
        results = self._results = {
            "returns": np.zeros(len(self._tasks)),
            "lengths": np.zeros(len(self._tasks), np.int64),
            "terminated": np.zeros(len(self._tasks), bool),
            "custom_metrics": [{} for _ in self._tasks],
        }
        first = self.envs.reset()
        optree.tree_map(_write_first, self._observations, first)
        self._moments = _Moments(first, len(self._tasks)) if self._counts else None
        tracker = None
        if self._listener is not None:
            running = RunningEpisodes(count)
            listener = _Listener(self._listener, self._coming)
            tracker = EpisodeTracker(listener, self.envs, first, running)
        rows = _Rows(self._actor, count, self._initial_state, self._actions)
        totals, lengths = np.zeros(count), np.zeros(count, np.int64)
        playing = [None] * count
        for seat in range(count):
            self._seat(rows, seat, playing, first)
        time, elapsed = 0, 0
        while rows.seats.size:
            seen = take(self._observations, time)
            if self._moments is not None:
                self._moments.add(seen)
            taken = rows.act(seen, self._rewards[time])
            seats = rows.seats
            actions = take(self._actions, time)
            optree.tree_map(lambda a, b, s=seats: a.__setitem__(s, b), actions, taken)
            step = self.envs.step(actions, take(self._observations, time + 1))
            time, elapsed = time + 1, elapsed + 1
            self._rewards[time] = step.rewards
            totals += step.rewards
            lengths[seats] += 1
            if tracker is not None:
                self._tell(tracker, elapsed, step, actions, playing)
            if step.any_ended:
                for seat in np.flatnonzero(step.terminated | step.truncated).tolist():
                    task = playing[seat]
                    results["returns"][task] = totals[seat]
                    results["lengths"][task] = lengths[seat]
                    results["terminated"][task] = step.terminated[seat]
                    if tracker is not None:
                        custom = tracker.custom_metrics(elapsed, seat)
                        results["custom_metrics"][task] = custom
                    if self._moments is not None:
                        self._moments.finish(seat, task)
                    totals[seat] = lengths[seat] = 0
                    self._seat(rows, seat, playing, step.observations)
            if time == _BLOCK or not rows.seats.size:
                self._look(time)
                time = 0
        if self._moments is not None:
            results.update(self._moments.results())
        else:
            results.update(means=[], squares=[])
        return results

    def begin(self, seat):
        """Called by a seat that is reset: returns the seed of its next episode.

        Returns:
            Integer, or `None` if no episode is left.
        """
        place = self._coming[seat] = next(self._next, None)
        return None if place is None else self._population.seed(self._tasks[place])

    def _seat(self, rows, seat, playing, observations):
        """Takes in that an environment has begun another episode, or has none."""
        playing[seat] = place = self._coming[seat]
        if place is None:
            rows.remove(seat)
            return
        rows.put(seat, self._population.weights(self._tasks[place]))
        if self._moments is not None:
            self._moments.begin(seat, observations)

    def _look(self, steps):
        """Checks a block of steps, and starts the next where it ended."""
        rollout = types.SimpleNamespace(
            actions=optree.tree_map(lambda leaf: leaf[:steps], self._actions),
            rewards=self._rewards[1 : steps + 1],
            final=None,
        )
        seen = optree.tree_map(lambda leaf: leaf[: steps + 1], self._observations)
        self._check(rollout, seen)
        for leaf in optree.tree_leaves(self._observations):
            leaf[0] = leaf[steps]
        self._rewards[0] = self._rewards[steps]

    def _tell(self, tracker, elapsed, step, actions, playing):
        """Tells a listener of a step; environments without an episode took none."""
        step.infos[:] = [
            info if place is not None else None
            for info, place in zip(step.infos, playing, strict=True)
        ]
        tracker.step(elapsed, step, actions)


class _Seat(gymnasium.Wrapper):
    """An environment that is seeded at each reset, and idle where nothing is left."""

    def __init__(self, env, player, seat, max_episode_steps):
        super().__init__(env)
        self._player = player
        self._number = seat
        self._limit = max_episode_steps
        self._idle = None

    def reset(self, *, seed=None, options=None):
        if not self._player.is_playing:
            return self.env.reset(seed=seed)
        seed = self._player.begin(self._number)
        self._steps = 0
        if seed is not None:
            self._idle = None
            return self.env.reset(seed=seed)
        # Not the last observation: nothing need be possible after an end.
        self._idle, info = self.env.reset()
        return self._idle, info

    def step(self, action):
        if self._idle is not None:
            return self._idle, 0.0, False, False, {}
        result = self.env.step(action)
        if self._limit is not None:
            self._steps += 1
            if self._steps >= self._limit and len(result) == 5:
                observation, reward, terminated, truncated, info = result
                truncated = truncated or not terminated
                return observation, reward, terminated, truncated, info
        return result


class _Listener:
    """Passes on what is told of episodes, but for those that do not take place."""

    def __init__(self, listener, coming):
        self._listener = listener
        self._coming = coming
        self.on_episode_step = listener.on_episode_step
        self.on_episode_end = listener.on_episode_end

    def on_episode_begin(self, episode):
        if self._coming[episode.env_index] is not None:
            self._listener.on_episode_begin(episode)


class _Rows:
    """Which environments act, each by a row of the program; those are the first rows.

    Attributes:
        seats: int64 `[N]`, the environment of each row.
    """

    def __init__(self, actor, count, initial_state, actions):
        self._actor = actor
        self._initial = initial_state
        self._state = optree.tree_map(
            lambda leaf: np.repeat(np.asarray(leaf)[None], count, axis=0), initial_state
        )
        self._previous = optree.tree_map(lambda leaf: np.zeros_like(leaf[0]), actions)
        self._started = np.ones(count, bool)
        self._order = []
        self.seats = np.zeros(0, np.int64)

    def put(self, seat, weights):
        """Lets an environment begin an episode with these weights."""
        if seat not in self._order:
            self._order.append(seat)
            self.seats = np.array(self._order)
        row = self._order.index(seat)
        self._actor.write(row, weights)
        self._started[row] = True

    def remove(self, seat):
        """Takes away the row of an environment; the last row gets its place."""
        if seat not in self._order:
            return
        row, last = self._order.index(seat), len(self._order) - 1
        if row != last:
            self._actor.move(last, row)
            for leaf in optree.tree_leaves((self._state, self._previous)):
                leaf[row] = leaf[last]
            self._started[row] = self._started[last]
            self._order[row] = self._order[last]
        del self._order[last]
        self.seats = np.array(self._order, np.int64)

    def act(self, observations, rewards):
        """Returns the actions of all rows, a tree `[N, ...]`."""
        count, seats = len(self._order), self.seats
        rewards = rewards[seats]
        if self._started[:count].any():
            for row in np.flatnonzero(self._started[:count]):
                for leaf, initial in zip(
                    optree.tree_leaves(self._state),
                    optree.tree_leaves(self._initial),
                    strict=True,
                ):
                    leaf[row] = initial
                for leaf in optree.tree_leaves(self._previous):
                    leaf[row] = 0
                rewards[row] = 0.0
            self._started[:count] = False
        outputs = self._actor.run(
            {
                "observations": take(observations, seats),
                "previous_actions": take(self._previous, slice(count)),
                "previous_rewards": rewards,
                "state": take(self._state, slice(count)),
            }
        )
        actions = outputs["actions"]
        for own, new in ((self._previous, actions), (self._state, outputs["state"])):
            optree.tree_map(lambda a, b: a.__setitem__(slice(count), b), own, new)
        return actions


class _Moments:
    """Mean and squares of the observations of each episode, summed as it goes.

    Around the first of each episode, because sums of squares far from zero have no
    digits left for what varies.
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
        leaves = optree.tree_leaves(observations)
        for origin, total, square, leaf in zip(
            self._origin, self._sum, self._square, leaves, strict=True
        ):
            origin[seat] = leaf[seat]
            total[seat] = square[seat] = 0.0
        self._count[seat] = 0

    def add(self, observations):
        leaves = optree.tree_leaves(observations)
        self._count += 1
        for origin, total, square, leaf in zip(
            self._origin, self._sum, self._square, leaves, strict=True
        ):
            difference = leaf - origin
            total += difference
            square += np.square(difference, out=difference)

    def finish(self, seat, task):
        count = self._count[seat]
        for k, (total, square) in enumerate(zip(self._sum, self._square, strict=True)):
            mean = total[seat] / count
            self._means[k][task] = self._origin[k][seat] + mean
            self._squares[k][task] = np.maximum(square[seat] - mean * total[seat], 0.0)

    def results(self):
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


def _block(tree):
    return optree.tree_map(lambda leaf: np.repeat(leaf[None], _BLOCK + 1, axis=0), tree)


def _write_first(block, rows):
    block[0] = rows
