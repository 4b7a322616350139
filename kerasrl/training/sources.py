"""Where the rollouts of a training come from; who learns from them does not know.

A source has `num_envs`, `start()`, `refresh()`, which settles by what its next rollout
is acted, `collect()`, which returns that rollout or `None` when there are no more, and
`drain_episodes()`, the records of the episodes that ended in it. `drain_logs()` returns
what it has to say itself since the last call. `collects` says whether `collect` takes
time that an update could use, and `is_dataset` whether it is batches of a dataset that
`collect` returns.
"""

import collections.abc
import dataclasses
import itertools

import gymnasium
import keras
import numpy as np
import optree

from kerasrl import workers
from kerasrl.rollouts import Rollout
from kerasrl.rollouts.checking import RecordedCheck
from kerasrl.rollouts.episodes import RunningEpisodes
from kerasrl.training import asynchrony, datasets, origins
from kerasrl.training.epochs import plan_epochs

#: Arguments of `fit` that are about environments.
_OF_ENVIRONMENTS = (
    *("num_envs", "env_config", "num_workers", "worker_mode", "env_timeout"),
    *("cluster", "info_keys", "output"),
)


class ActingSource:
    """Rollouts of an agent's policy, acting in environments.

    Args:
        agent: The `Agent`, built for them.
        envs: `kerasrl.envs.Environments`.
        info_keys: Names of entries of the environments' infos to record.
        listener: As for `kerasrl.rollouts.Collector`.
    """

    collects = True
    is_dataset = False

    def __init__(self, agent, envs, info_keys=(), listener=None):
        self.agent = agent
        self.envs = envs
        self.num_envs = envs.num_envs
        seeds = agent.rng.integers(2**31, size=(2, self.num_envs)).tolist()
        self._seeds = seeds[1]
        self.collector = workers.make_collector(
            envs,
            agent.actor(),
            agent.iteration_length(self.num_envs),
            [np.random.default_rng(seed) for seed in seeds[0]],
            info_keys=info_keys,
            listener=listener,
        )
        self.collector.all_finals = agent.needs_all_finals
        self._is_asynchronous = isinstance(
            self.collector, workers.AsynchronousCollector
        )
        if agent.keeps_published and self._is_asynchronous:
            # A worker goes on when its gradient has been applied.
            self.collector.in_flight = 1
        if self._is_asynchronous:
            count = asynchrony.fragments_per_update(agent, envs)
            self.collector.num_fragments = count
        self._version = None
        self.recorder = None

    def record(self, recorder):
        """Has what is collected from here on written, by what takes a rollout."""
        self.recorder = recorder
        self.collector.all_finals = True

    def start(self):
        """Resets the environments."""
        if self._is_asynchronous:
            self.refresh()
        origins.reset(self.agent, self.envs, self.collector, self._seeds)

    def refresh(self):
        """Makes the actor and its exploration those of the present weights."""
        # Always: anybody may have set a variable, and to read a few costs little.
        self.agent.actor().refresh()
        self.collector.exploration = self.agent.exploration_inputs(self.num_envs)
        self._version = asynchrony.settle(self.agent, self.collector)

    def collect(self):
        """Acts for one iteration in every environment, or takes what one worker acted.

        Returns:
            A `kerasrl.rollouts.Rollout`, `[T, B, ...]`. Its `extras` have
            `"policy_version"` if it may be acted by older weights than the present.
        """
        rollout = self.collector.collect()
        if self.recorder is not None:
            rollout = self.recorder(rollout)
        if self.agent.lag and not self._is_asynchronous:
            versions = np.full(rollout.rewards.shape, self._version)
            rollout.extras["policy_version"] = versions
        return rollout

    def drain_logs(self):
        """Returns what there is to log of workers that act by themselves."""
        return self.collector.drain_counts() if self._is_asynchronous else {}

    def drain_episodes(self):
        """Returns the records of the episodes that ended, and forgets them."""
        return self.collector.drain_episodes()


class RecordedSource:
    """Rollouts that somebody else made, one after the other.

    Args:
        agent: The `Agent` that learns from them, built.
        rollouts: Iterable of `kerasrl.rollouts.Rollout`, all of as many environments.
            One whose first steps are `episode_starts` need not go on where the one
            before stopped.
    """

    collects = False
    is_dataset = False

    def __init__(self, agent, rollouts):
        policy = agent.policy
        self._replicas = agent.replicas
        self._is_recurrent = policy.is_recurrent
        self._state = optree.tree_map(keras.ops.convert_to_numpy, agent.acting_state())
        self._check = RecordedCheck(policy.observation_space, policy.action_space)
        self._total = _count(rollouts)
        self._rollouts = iter(rollouts)
        first = self._next()
        if first is None:
            raise ValueError(
                "Received no rollout at all. Expected an iterable of "
                "kerasrl.rollouts.Rollout."
            )
        self.iteration_length, self.num_envs = first.rewards.shape
        self._rollouts = itertools.chain([first], self._rollouts)
        #: By the first of their environments: fragments of workers come in turn.
        self._statistics = {}
        self._steps, self._records = 0, []

    @property
    def steps(self):
        """Environment steps in all, or `None` if that is not known before the end."""
        if self._total is None:
            return None
        return self._total * self.iteration_length * self.num_envs

    def start(self):
        """There is nothing to reset."""

    def refresh(self):
        """What it was acted by is settled."""

    def drain_logs(self):
        """There is nothing to say."""
        return {}

    def collect(self):
        """Returns the next rollout, or `None` after the last."""
        rollout = self._next()
        shape = None if rollout is None else list(rollout.rewards.shape)
        # Ranks exchange as often as their rollouts are long, and end together.
        shapes = self._replicas.gather_data(shape)
        if None in shapes:
            return None
        if shape[1] != self.num_envs:
            raise ValueError(
                f"Received a rollout of {shape[1]} environments after one of "
                f"{self.num_envs}. Expected the same number in all of them."
            )
        if any(other != shape for other in shapes):
            raise ValueError(
                f"Ranks received rollouts of different shapes [T, B]: {shapes}. Give "
                "all of them rollouts of the same shapes, in the same order."
            )
        self._check(rollout)
        rollout = self._with_own_state(rollout)
        for first_env, columns in rollout.parts():
            part = rollout[:, columns]
            if first_env not in self._statistics:
                width = part.rewards.shape[1]
                self._statistics[first_env] = RunningEpisodes(width)
            running = self._statistics[first_env]
            running.begin(part.episode_starts[0])
            records = running.update(
                *(part.rewards, part.terminated, part.truncated, part.valid),
                self._steps,
            )
            self._steps += part.num_steps
            for _, record in records:
                record.env_index += first_env
                self._records.append(record)
        return rollout

    def drain_episodes(self):
        """Returns the records of the episodes that ended, and forgets them."""
        records, self._records = self._records, []
        return records

    def _with_own_state(self, rollout):
        """A rollout of whoever acted, with a state as the agent carries it along."""
        found, own = map(optree.tree_structure, (rollout.state, self._state))
        if found == own:
            return rollout
        if self._is_recurrent:
            raise ValueError(
                f"Received a rollout with the recurrent state {found}, for a policy "
                f"with {own}. A recurrent policy learns from what it, or one like it, "
                "acted: leave out its cell, or act with it."
            )

        def rows(count):
            return optree.tree_map(lambda x: np.repeat(x, count, axis=0), self._state)

        final = rollout.final
        if final is not None:
            final = {**final, "state": rows(len(final["time"]))}
        return dataclasses.replace(rollout, state=rows(self.num_envs), final=final)

    def _next(self):
        rollout = next(self._rollouts, None)
        if rollout is not None and not isinstance(rollout, Rollout):
            raise TypeError(
                f"Received {rollout!r:.200} to learn from. Expected a "
                "kerasrl.rollouts.Rollout, or, to act in, one environment and no list."
            )
        return rollout


def are_rollouts(env):
    """Whether what `fit` received to learn from is rollouts and no environment."""
    if isinstance(env, Rollout):
        raise TypeError(
            "Received one kerasrl.rollouts.Rollout. Expected a list of them, or "
            "another iterable."
        )
    is_env = isinstance(env, (str, gymnasium.Env, gymnasium.vector.VectorEnv))
    return isinstance(env, collections.abc.Iterable) and not is_env


def are_recorded(env):
    """Whether what `fit` received is there already, and no environment."""
    return datasets.is_dataset(env) or are_rollouts(env)


def of_recorded(agent, recorded, lengths):
    """Makes the source of what `fit` received instead of an environment.

    Args:
        agent: The `Agent`.
        recorded: A dataset, or an iterable of rollouts.
        lengths: Tuple of the steps, epochs and steps per epoch of `fit`.

    Returns:
        A `RecordedSource` or a `kerasrl.training.datasets.DatasetSource`.

    Raises:
        TypeError: The agent does not learn from such.
        ValueError: It has no weights yet, and rollouts do not say of what spaces.
    """
    if datasets.is_dataset(recorded):
        datasets.check_learns(agent)
        agent.build(recorded.observation_space, recorded.action_space)
        return datasets.DatasetSource(agent, recorded)
    check_learns(agent)
    if agent.policy.observation_space is None:
        raise ValueError(
            "Received rollouts to learn from, but the agent has no weights yet, "
            "and rollouts do not tell the spaces they are of. Call "
            "build(observation_space, action_space) first."
        )
    if not hasattr(recorded, "__len__"):
        plan_epochs(1, *lengths)  # Refuses before one is taken.
    return RecordedSource(agent, recorded)


def check_learns(agent):
    """Raises a TypeError if an agent cannot learn from rollouts of others."""
    if not agent.learns_from_rollouts:
        if hasattr(agent, "learn_batches"):
            raise TypeError(
                f"{type(agent).__name__} learns from a kerasrl.offline.Dataset, and "
                "not from rollouts. Received rollouts: give fit a dataset."
            )
        raise TypeError(
            f"{type(agent).__name__} learns from the returns of weights that it chose "
            "itself, and not from rollouts. Received rollouts: give fit an environment."
        )


def refuse_arguments(**received):
    """Raises a ValueError if arguments about environments come with rollouts."""
    given = [name for name in _OF_ENVIRONMENTS if received[name]]
    if given:
        raise ValueError(
            f"Received {', '.join(given)} with rollouts or a dataset to learn from. "
            "They are about environments, and nothing acts here: leave them out."
        )


def refuse_two_datasets(recorded, mixing):
    """Raises a ValueError if there is a dataset beside one that is learnt from."""
    if datasets.is_dataset(recorded) and mixing != (None, None, None):
        raise ValueError(
            "Received a dataset to learn from and offline arguments. They are about a "
            "dataset beside what an agent collects: put both into one with "
            "kerasrl.offline.merge, or fit an environment."
        )


def _count(rollouts):
    return len(rollouts) if isinstance(rollouts, collections.abc.Sized) else None
