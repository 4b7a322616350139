"""Data sets as rollouts, for agents that learn from those or replay them."""

import collections

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.rollouts import Rollout


def rollouts(dataset, num_steps, num_envs):
    """Yields `Rollout`s `[T, B, ...]` as `Dataset.rollouts` describes."""
    maker = _Maker(dataset, num_steps, num_envs)
    while not maker.is_over():
        yield maker.make()


def fill(dataset, agent, num_envs):
    """Fills the replay buffer of an agent as `Dataset.to_replay` describes."""
    if not hasattr(agent, "remember"):
        raise TypeError(
            f"Received agent={agent!r:.200}. Expected one with a replay buffer, a "
            "kerasrl.OffPolicyAgent."
        )
    if getattr(agent, "hindsight", None) is not None:
        raise ValueError(
            f"Received an agent with hindsight={agent.hindsight!r}, which asks the "
            "environments of fit for rewards. Leave it out to learn from a data set."
        )
    if agent.buffer is not None and len(agent.buffer):
        raise ValueError(
            f"Received an agent with {len(agent.buffer)} samples in its replay buffer. "
            "Set agent.buffer = None to start with an empty one."
        )
    agent.build(dataset.observation_space, dataset.action_space)
    agent.start_learning(num_envs)
    try:
        queues = _Queues(num_envs)
        for part in dataset.parts:
            for length in part.lengths.tolist():
                queues.choose(length)
        needed = max(queues.rows) * num_envs
        if needed > agent.buffer.capacity:
            raise ValueError(
                f"Received {dataset.num_steps} steps of {dataset.num_episodes} "
                f"episodes, for which {num_envs} environments need {needed} rows. The "
                f"replay buffer has {agent.buffer.capacity}: pass a larger buffer_size "
                "to the agent, or fewer episodes."
            )
        for rollout in rollouts(dataset, 64, num_envs):
            agent.remember(rollout)
        agent.buffer.cut()
    finally:
        agent.stop_learning()


class _Queues:
    """Which environment plays an episode: the one that has the fewest rows so far.

    An episode has a row more than steps, of what followed its last action.
    """

    def __init__(self, num_envs):
        self.rows = [0] * num_envs

    def choose(self, length):
        """Returns the number of the environment of the next episode."""
        number = self.rows.index(min(self.rows))
        self.rows[number] += length + 1
        return number


class _Maker:
    """Plays episodes in several environments beside each other, one after the other."""

    def __init__(self, dataset, num_steps, num_envs):
        self._shape = (num_steps, num_envs)
        self._observation_space = dataset.observation_space
        self._emitted = spaces.emitted(dataset.action_space)
        self._converter = ActionConverter(dataset.action_space)
        self._episodes = iter(dataset.episodes)
        self._queues = _Queues(num_envs)
        self._waiting = [collections.deque() for _ in range(num_envs)]
        first = dataset.episodes[0].observations if len(dataset) else None
        self._envs = [_Env(first) for _ in range(num_envs)]
        for number, env in enumerate(self._envs):
            env.begin(self._next(number))

    def is_over(self):
        """Whether all steps were handed out."""
        return all(env.episode is None for env in self._envs)

    def make(self):
        """Returns the next rollout."""
        num_steps, num_envs = self._shape
        rows = spaces.zeros(self._observation_space, num_envs * (num_steps + 1))
        observations = optree.tree_map(
            lambda x: x.reshape(num_steps + 1, num_envs, *x.shape[1:]), rows
        )
        # Row 0 is the action before the first.
        actions = optree.tree_map(
            lambda x: x.reshape(num_steps + 1, num_envs, *x.shape[1:]),
            spaces.zeros(self._emitted, num_envs * (num_steps + 1)),
        )
        rewards = np.zeros((num_steps + 1, num_envs), np.float32)
        terminated, truncated, starts = np.zeros((3, *self._shape), bool)
        valid = np.zeros(self._shape, bool)
        final, next_starts = [], np.zeros(num_envs, bool)
        for number, env in enumerate(self._envs):
            time = 0
            before = env.before()
            if before is not None:
                _write(actions, (0, number), before[0])
                rewards[0, number] = before[1]
            while time < num_steps and env.episode is not None:
                size = min(env.episode.length - env.age, num_steps - time)
                here = slice(time, time + size)
                there = slice(env.age, env.age + size)
                seen = optree.tree_map(lambda x: x[there], env.episode.observations)  # noqa: B023
                _write(observations, (here, number), seen)
                taken = optree.tree_map(lambda x: x[there], env.actions)  # noqa: B023
                after = slice(time + 1, time + size + 1)
                _write(actions, (after, number), taken)
                rewards[after, number] = env.episode.rewards[there]
                valid[here, number] = True
                starts[time, number] = env.age == 0
                time += size
                env.age += size
                if env.age == env.episode.length:
                    episode = env.episode
                    terminated[time - 1, number] = episode.terminated
                    # What goes on after the record ends was cut off, to a learner.
                    truncated[time - 1, number] = (
                        episode.truncated or not episode.terminated
                    )
                    env.seen = env.last()
                    final.append((time - 1, number, env.seen))
                    env.begin(self._next(number))
            if time < num_steps:
                # Fillers see something of the space, and nothing is learnt from them.
                _write(observations, (slice(time, None), number), env.seen)
                truncated[time:, number] = True
                starts[time, number] = True
                starts[time + 1 :, number] = True
            if env.episode is not None:
                row = optree.tree_map(lambda x: x[env.age], env.episode.observations)  # noqa: B023
                _write(observations, (num_steps, number), row)
                next_starts[number] = env.age == 0
            else:
                _write(observations, (num_steps, number), env.seen)
                next_starts[number] = True
        return self._rollout(
            observations,
            actions,
            rewards,
            (terminated, truncated, valid, starts),
            final,
            next_starts,
        )

    def _rollout(self, observations, actions, rewards, flags, final, next_starts):
        terminated, truncated, valid, starts = flags

        def before(tree, mask):
            return optree.tree_map(lambda x: _zeroed(x, mask), tree)

        earlier = optree.tree_map(lambda x: x[:-1], actions)
        latest = optree.tree_map(lambda x: x[-1], actions)
        return Rollout(
            observations=optree.tree_map(lambda x: x[:-1], observations),
            actions=optree.tree_map(lambda x: x[1:], actions),
            rewards=rewards[1:],
            terminated=terminated,
            truncated=truncated,
            valid=valid,
            episode_starts=starts,
            previous_actions=before(earlier, starts),
            previous_rewards=_zeroed(rewards[:-1], starts),
            next_inputs={
                "observations": optree.tree_map(lambda x: x[-1], observations),
                "previous_actions": before(latest, next_starts),
                "previous_rewards": _zeroed(rewards[-1], next_starts),
                "episode_starts": next_starts,
            },
            final=_gather(final, actions, rewards),
        )

    def _next(self, number):
        waiting = self._waiting
        while not waiting[number]:
            episode = next(self._episodes, None)
            if episode is None:
                return None, None
            waiting[self._queues.choose(episode.length)].append(episode)
        episode = waiting[number].popleft()
        return episode, self._converter.inverse(episode.actions)


class _Env:
    """One of the environments that episodes are played in."""

    def __init__(self, observations):
        self.episode = self.actions = None
        self.age = 0
        #: What it is in where it has nothing to play: where the last episode ended.
        self.seen = optree.tree_map(lambda x: x[0], observations)

    def begin(self, found):
        """Begins the next episode, a pair of it and of its actions."""
        self.episode, self.actions = found
        self.age = 0

    def before(self):
        """The action and the reward before this step, `None` at the start."""
        if self.episode is None or self.age == 0:
            return None
        row = self.age - 1
        action = optree.tree_map(lambda x: x[row], self.actions)
        return action, self.episode.rewards[row]

    def last(self):
        """What followed the last action."""
        return optree.tree_map(lambda x: x[-1], self.episode.observations)


def _gather(final, actions, rewards):
    if not final:
        return None
    times, envs, observations = zip(*final, strict=True)
    times, envs = np.array(times), np.array(envs)
    return {
        "time": times,
        "env": envs,
        "observations": optree.tree_map(
            lambda like, *leaves: np.stack(leaves).astype(_dtype(like)),
            observations[0],
            *observations,
        ),
        "previous_actions": optree.tree_map(lambda x: x[times + 1, envs], actions),
        "previous_rewards": rewards[times + 1, envs],
        "state": (),
    }


def _dtype(array):
    return np.float32 if np.asarray(array).dtype.kind == "f" else array.dtype


def _write(tree, index, values):
    optree.tree_map_(lambda x, value: x.__setitem__(index, value), tree, values)


def _zeroed(array, mask):
    array = array.copy()
    array[mask] = 0
    return array
