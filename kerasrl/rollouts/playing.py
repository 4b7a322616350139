"""Playing the episodes of a population in environments of this process."""

import types

import gymnasium
import numpy as np
import optree

from kerasrl import action_masks, spaces
from kerasrl.envs.serial import SerialEnvironments
from kerasrl.rollouts.checking import RolloutCheck
from kerasrl.rollouts.episodes import EpisodeTracker, RunningEpisodes
from kerasrl.rollouts.population import Moments
from kerasrl.rollouts.rollout import take

#: Steps after which what environments returned is looked at.
_BLOCK = 32


class PopulationPlayer:
    """Plays episodes of a population in environments of this process.

    Environments that can be reset by themselves take the next episode as soon as they
    are free, so they all have to be alike. So do the rows of a vector environment that
    takes their seeds (`kerasrl.envs.row_seeds`). Where `reset(seed=...)` settles all
    that is random in an environment, results do not depend on how many there are.

    Another vector environment is reset as a whole, when the last of its episodes has
    ended; what those that ended before go on to play is legal, and does not count,
    whatever it is.

    Args:
        envs: `kerasrl.envs.Environments`, B of them.
        actor: `kerasrl.actors.population.PopulationProgram` of size B.
        initial_state: As for `kerasrl.rollouts.Collector`.
        max_episode_steps: Integer, after which an episode is cut off, or `None`.
        counts: Whether to compute means and squares of observations.
        listener: As for `kerasrl.rollouts.Collector`.
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
        self.envs = envs
        self._takes_turns = isinstance(envs, SerialEnvironments)
        if self._takes_turns:
            # Those of an earlier player are taken off.
            plain = [e.env if isinstance(e, _Seat) else e for e in envs.envs]
            envs.envs[:] = [
                _Seat(env, self, seat, max_episode_steps)
                for seat, env in enumerate(plain)
            ]
        elif getattr(envs, "takes_row_seeds", False):
            self._takes_turns = True
            plain = envs.env.env if isinstance(envs.env, _Seats) else envs.env
            envs.env = _Seats(plain, self, max_episode_steps)
        self._actor = actor
        self._initial_state = () if initial_state is None else initial_state
        self._limit = max_episode_steps
        self._counts = counts
        self._listener = listener
        self._check = RolloutCheck(envs)
        self._masks_choices = None
        # Environments of a list are not stepped where they have no episode.
        if envs.has_action_mask and not isinstance(envs, SerialEnvironments):
            self._masks_choices = action_masks.counts_of_options(envs.action_space)
        count = envs.num_envs
        self._actions = _block(spaces.zeros(spaces.emitted(envs.action_space), count))
        self._observations = _block(spaces.zeros(envs.observation_space, count))
        self._rewards = np.zeros((_BLOCK + 1, count), np.float32)
        #: Which environments act on the observations of each row of the block.
        self._plays = np.zeros((_BLOCK + 1, count), bool)
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
        count, num_tasks = self.envs.num_envs, len(self._tasks)
        self._next = iter(range(num_tasks))
        self._coming = [None] * count
        self._results = {
            "returns": np.zeros(num_tasks),
            "lengths": np.zeros(num_tasks, np.int64),
            "terminated": np.zeros(num_tasks, bool),
            "custom_metrics": [{} for _ in range(num_tasks)],
        }
        self._moments = None
        if self._counts:
            self._moments = Moments(take(self._observations, 0), num_tasks)
        if self._takes_turns:
            self._play_from(self.envs.reset())
        else:
            for _ in range(0, num_tasks, count):
                # Seats that are left over take the seed of the first.
                seeds = [self.begin(seat) for seat in range(count)]
                seeds = [seeds[0] if seed is None else seed for seed in seeds]
                self._play_from(self.envs.reset(seeds))
        moments = {"means": [], "squares": []}
        if self._moments is not None:
            moments = self._moments.results()
        return {**self._results, **moments}

    def _play_from(self, first):
        """Plays from the first observations, until no episode is left or under way."""
        count = self.envs.num_envs
        optree.tree_map(_write_first, self._observations, first)
        tracker = None
        if self._listener is not None:
            listener = _Listener(self._listener, self._coming)
            running = RunningEpisodes(count)
            tracker = EpisodeTracker(listener, self.envs, first, running)
        rows = _Rows(self._actor, count, self._initial_state, self._actions)
        totals, lengths = np.zeros(count), np.zeros(count, np.int64)
        playing, plays = [None] * count, np.zeros(count, bool)
        for seat in range(count):
            self._seat(rows, seat, playing, first)
        plays[rows.seats] = True
        self._plays[0] = plays
        time, elapsed = 0, 0
        while rows.seats.size:
            seen = take(self._observations, time)
            if self._moments is not None:
                self._moments.add(seen)
            seats, actions = rows.seats, take(self._actions, time)
            _assign(actions, rows.act(seen, self._rewards[time]), seats)
            if self._masks_choices is not None and len(seats) < count:
                self._act_legally(actions, seen, ~plays)
            step = self.envs.step(actions, take(self._observations, time + 1))
            # Whole games and their scores, whatever learners of steps are told.
            step = step if step.as_played is None else step.as_played
            time, elapsed = time + 1, elapsed + 1
            self._rewards[time] = step.rewards
            if self._takes_turns:  # Those without an episode get nothing.
                totals += step.rewards
                lengths += 1
            else:
                totals[seats] += step.rewards[seats]
                lengths[seats] += 1
            if tracker is not None:
                self._tell(tracker, elapsed, step, actions, playing)
            for seat in self._ended(step, lengths):
                place = playing[seat]
                if place is None:
                    continue
                self._results["returns"][place] = totals[seat]
                self._results["lengths"][place] = lengths[seat]
                self._results["terminated"][place] = step.terminated[seat]
                if tracker is not None:
                    custom = tracker.custom_metrics(elapsed, seat)
                    self._results["custom_metrics"][place] = custom
                if self._moments is not None:
                    self._moments.finish(seat, place)
                totals[seat] = lengths[seat] = 0
                self._seat(rows, seat, playing, step.observations)
                plays[seat] = playing[seat] is not None
            self._plays[time] = plays
            if time == _BLOCK or not rows.seats.size:
                self._look(time)
                time = 0

    def _ended(self, step, lengths):
        """Indices of environments whose episode has ended with a step."""
        if self._limit is None or self._takes_turns:
            if not step.any_ended:
                return ()
            return np.flatnonzero(step.terminated | step.truncated).tolist()
        ended = step.terminated | step.truncated | (lengths >= self._limit)
        return np.flatnonzero(ended).tolist()

    def begin(self, seat):
        """Called for a seat that is reset: returns the seed of its next episode.

        Returns:
            Integer, or `None` if no episode is left.
        """
        place = self._coming[seat] = next(self._next, None)
        return None if place is None else self._population.seed(self._tasks[place])

    def _seat(self, rows, seat, playing, observations):
        """Takes in that an environment has begun another episode, or has none."""
        playing[seat] = place = self._coming[seat]
        # If it is not reset by itself, there is no next.
        self._coming[seat] = None
        if place is None:
            rows.remove(seat)
            return
        rows.put(seat, self._population.weights(self._tasks[place]))
        if self._moments is not None:
            self._moments.begin(seat, observations)

    def _act_legally(self, actions, seen, idle):
        """Gives environments without an episode the first choices that they allow."""
        mask, choices = seen[action_masks.KEY][idle] > 0, self._masks_choices
        parts = np.split(mask, np.cumsum(choices)[:-1], axis=-1)
        first = np.stack([part.argmax(axis=-1) for part in parts], axis=-1)
        actions[idle] = first.reshape(actions[idle].shape)

    def _look(self, steps):
        """Checks a block of steps, and starts the next where it ended."""
        rollout = types.SimpleNamespace(
            actions=optree.tree_map(lambda leaf: leaf[:steps], self._actions),
            rewards=self._rewards[1 : steps + 1],
            final=None,
        )
        seen = optree.tree_map(lambda leaf: leaf[: steps + 1], self._observations)
        self._check(rollout, seen, self._plays[: steps + 1])
        for leaf in optree.tree_leaves(self._observations):
            leaf[0] = leaf[steps]
        self._rewards[0] = self._rewards[steps]
        self._plays[0] = self._plays[steps]

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
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        if not self._player.is_playing:
            return self.env.reset(seed=seed, options=options)
        seed = self._player.begin(self._number)
        self._steps = 0
        if seed is not None:
            self._idle = None
            return self.env.reset(seed=seed)
        # Not the last observation: nothing need be possible after an end.
        self._idle, info = self.env.reset()
        return self._idle, info

    def step(self, action):
        if not self._player.is_playing:
            return self.env.step(action)
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


class _Seats(gymnasium.vector.VectorWrapper):
    """Rows that are seeded at each reset, and idle where nothing is left."""

    def __init__(self, env, player, max_episode_steps):
        super().__init__(env)
        self._player = player
        self._limit = max_episode_steps
        self._steps = np.zeros(env.num_envs, np.int64)
        self._is_idle = np.zeros(env.num_envs, bool)
        self._any_idle = False
        self._seen = None
        #: Counts of options, if observations say which may be taken.
        self._choices = None
        spaces = env.single_observation_space, env.single_action_space
        if action_masks.has_mask(*spaces):
            self._choices = action_masks.counts_of_options(spaces[1])

    def reset(self, *, seed=None, options=None):
        if not self._player.is_playing:
            return self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        rows = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        seeds = [None] * self.num_envs
        for row in rows:
            seeds[row] = self._player.begin(row)
            self._steps[row] = 0
            self._is_idle[row] = seeds[row] is None
        self._any_idle = bool(self._is_idle.any())
        observations, infos = self.env.reset(seed=seeds, options=options)
        if self._any_idle:
            self._keep(observations, rows)
        return observations, infos

    def step(self, actions):
        result = self.env.step(actions)
        if not self._player.is_playing or len(result) != 5:
            return result
        observations, rewards, terminated, truncated, infos = result
        if self._limit is not None:
            self._steps += 1
            truncated = truncated | (~terminated & (self._steps >= self._limit))
        if self._any_idle:
            # They are not reset any more, and go on to wherever that leads.
            plays = ~self._is_idle
            terminated, truncated = terminated & plays, truncated & plays
            rewards = np.where(plays, rewards, 0.0)
            if self._choices is not None:
                self._take_masks(observations[action_masks.KEY])
            observations = optree.tree_map(self._but_idle, observations, self._seen)
        return observations, rewards, terminated, truncated, infos

    def _keep(self, observations, rows):
        """Keeps what rows without an episode began with, to be seen from now on."""
        if self._seen is None:
            self._seen = optree.tree_map(np.array, observations)
            return
        idle = [row for row in rows if self._is_idle[row]]
        _assign(self._seen, take(observations, idle), idle)

    def _take_masks(self, masks):
        """Has rows without an episode show what they may do next.

        After their ends that may be nothing: then whatever they showed before.
        """
        parts = np.split(np.asarray(masks) > 0, np.cumsum(self._choices)[:-1], axis=-1)
        rows = self._is_idle & np.all([part.any(axis=-1) for part in parts], axis=0)
        self._seen[action_masks.KEY][rows] = masks[rows]

    def _but_idle(self, leaf, seen):
        idle = self._is_idle.reshape(-1, *[1] * (leaf.ndim - 1))
        return np.where(idle, seen, leaf)


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
        self._has_started = True
        self._order = []
        self.seats = np.zeros(0, np.int64)

    def put(self, seat, weights):
        """Lets an environment begin an episode with these weights."""
        if seat not in self._order:
            self._order.append(seat)
            self.seats = np.array(self._order)
        row = self._order.index(seat)
        self._actor.write(row, weights)
        self._started[row] = self._has_started = True

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
        if self._has_started:
            self._has_started = False
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
            },
            count,
        )
        actions = outputs["actions"]
        _assign(self._previous, actions, slice(count))
        _assign(self._state, outputs["state"], slice(count))
        return actions


def _assign(tree, values, index):
    """Writes a tree into some rows of another."""
    if isinstance(tree, np.ndarray):  # By far the most frequent.
        tree[index] = values
    elif tree != ():
        optree.tree_map(lambda a, b: a.__setitem__(index, b), tree, values)


def _block(tree):
    return optree.tree_map(lambda leaf: np.repeat(leaf[None], _BLOCK + 1, axis=0), tree)


def _write_first(block, rows):
    block[0] = rows
