"""Statistics of episodes and of training, as logged."""

import collections
import dataclasses
import math
import types

import keras
import numpy as np

_WINDOW = 100


class EpisodeStatistics:
    """Returns and lengths of the last 100 episodes of training.

    Example:

    ```python
    agent.statistics.logs()["episode_return_mean"]
    ```
    """

    def __init__(self):
        self.episodes = 0
        self.returns = collections.deque(maxlen=_WINDOW)
        self.lengths = collections.deque(maxlen=_WINDOW)
        self._custom = collections.defaultdict(list)
        self._names, self._groups = None, {}

    def group(self, names):
        """Has returns also logged of groups of environments.

        Args:
            names: List of the name of the group of each environment, those of all
                ranks one behind the other; `None` for none.
        """
        self._names = names
        groups = dict.fromkeys(names or ())
        self._groups = {
            name: self._groups.get(name, collections.deque(maxlen=_WINDOW))
            for name in groups
        }

    def add(self, records):
        """Adds finished episodes.

        Args:
            records: Iterable of `kerasrl.rollouts.EpisodeRecord`.
        """
        for record in records:
            self.episodes += 1
            self.returns.append(float(record.episode_return))
            self.lengths.append(int(record.length))
            if self._names is not None:
                group = self._groups[self._names[record.env_index]]
                group.append(float(record.episode_return))
            for name, value in record.custom_metrics.items():
                self._custom[name].append(float(value))

    def logs(self):
        """Returns what is logged at the end of an epoch.

        Custom metrics cover the episodes that ended since `start_epoch`.
        """
        logs = {
            "episode_return_mean": _mean(self.returns),
            "episode_return_min": min(self.returns, default=math.nan),
            "episode_return_max": max(self.returns, default=math.nan),
            "episode_length_mean": _mean(self.lengths),
            "episodes": self.episodes,
        }
        for name, values in self._groups.items():
            logs[f"episode_return_mean_{name}"] = _mean(values)
        for name, values in self._custom.items():
            logs[f"{name}_mean"] = _mean(values)
            logs[f"{name}_min"] = min(values, default=math.nan)
            logs[f"{name}_max"] = max(values, default=math.nan)
        return logs

    def start_epoch(self):
        """Forgets the custom metrics of the last epoch, but not their names."""
        for values in self._custom.values():
            values.clear()

    def get_state(self):
        """Returns the statistics as JSON-compatible data."""
        state = {
            "episodes": self.episodes,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }
        if self._groups:
            groups = {name: list(values) for name, values in self._groups.items()}
            state["groups"] = groups
        return state

    def set_state(self, state):
        """Restores what `get_state` returned."""
        self.episodes = state["episodes"]
        self.returns = collections.deque(state["returns"], maxlen=_WINDOW)
        self.lengths = collections.deque(state["lengths"], maxlen=_WINDOW)
        self._groups = {
            name: collections.deque(values, maxlen=_WINDOW)
            for name, values in state.get("groups", {}).items()
        }


class Tally:
    """Counts steps and episodes, and puts together what ranks did in an epoch.

    Args:
        agent: The `Agent`.
    """

    def __init__(self, agent):
        self.agent = agent
        self.replicas = agent.replicas
        self.episodes = []
        self._steps = 0

    def add(self, rollout, records):
        """Counts a rollout, and keeps the episodes that ended in it.

        Until the end of the epoch, other ranks are taken to have made as many steps.
        """
        # Of what ranks did together each knows all.
        if self.replicas.num_ranks == 1 or not self.agent.learns_from_rollouts:
            self.agent.env_steps += rollout.num_steps
            self.agent.statistics.add(records)
            return
        self.agent.env_steps += rollout.num_steps * self.replicas.num_ranks
        self._steps += rollout.num_steps
        iteration, first = self.agent.iterations, 0
        if self.agent.envs is not None:
            first = self.replicas.rank * self.agent.envs.num_envs
        self.episodes += [
            [
                *(iteration, float(r.episode_return), int(r.length)),
                *(first + r.env_index, dict(r.custom_metrics)),
            ]
            for r in records
        ]

    def flush(self):
        """Makes steps and episodes so far those of all ranks, before a checkpoint."""
        self.finish_epoch({})

    def finish_epoch(self, metrics):
        """Makes steps and episodes those of all ranks.

        Args:
            metrics: Dict of floats.

        Returns:
            Dict of their means over ranks.
        """
        replicas, agent = self.replicas, self.agent
        if replicas.num_ranks == 1:
            return metrics
        ranks = replicas.gather_data([self._steps, self.episodes, metrics])
        agent.env_steps += sum(r[0] for r in ranks) - self._steps * replicas.num_ranks
        # As they came: iteration by iteration, not rank by rank.
        episodes = sorted((e for r in ranks for e in r[1]), key=lambda e: e[0])
        agent.statistics.add(
            types.SimpleNamespace(
                episode_return=value,
                length=length,
                env_index=env_index,
                custom_metrics=custom,
            )
            for _, value, length, env_index, custom in episodes
        )
        self._steps, self.episodes = 0, []
        return {
            name: float(np.mean([r[2][name] for r in ranks if name in r[2]]))
            for name in metrics
        }


@dataclasses.dataclass
class ReplayCounts:
    """What has been learnt from since it was last logged.

    Args:
        steps: Integer, environment steps for which updates were due: `T * B` of
            rollouts, fillers included.
        samples: Integer, steps in the batches of these updates.
        stale: Integer, samples that were overwritten before their new priority came.
    """

    steps: int = 0
    samples: int = 0
    stale: int = 0

    def logs(self, prioritized):
        """Returns a dict of floats; see `docs/metrics.md`."""
        logs = {"replay_ratio": self.samples / self.steps if self.steps else math.nan}
        if prioritized:
            logs["stale_priority_updates"] = float(self.stale)
        return logs


def count_samples(agent, indices):
    """Returns how many steps are learnt from: of sequences, all of their rows.

    Args:
        agent: An `OffPolicyAgent`.
        indices: Integer array, one for each sample.
    """
    return indices.size * (agent.sequence_length if agent.learns_sequences else 1)


class Mean:
    """Mean of dicts of floats, key by key."""

    def __init__(self):
        self._sums = collections.defaultdict(float)
        self._counts = collections.defaultdict(int)

    def add(self, logs):
        """Adds one dict."""
        for name, value in logs.items():
            self._sums[name] += value
            self._counts[name] += 1

    def result(self):
        """Returns the dict of means."""
        return {n: total / self._counts[n] for n, total in self._sums.items()}


def build_metrics(policy):
    """Creates the variables of metrics, which must not happen inside the graph."""
    if any(not metric.variables for metric in policy.metrics):
        zeros = keras.ops.zeros((1, 1))
        policy.compute_metrics(None, zeros, zeros, keras.ops.zeros(1))
        policy.reset_metrics()


def has_metrics(policy):
    """Whether a policy has other Keras metrics than Keras's own tracker of the loss."""
    return len(policy.metrics) > 1


def policy_metrics(policy):
    """Returns the results of the Keras metrics of a policy, as floats."""
    if not has_metrics(policy):
        return {}
    results = policy.get_metrics_result()
    results.pop("loss", None)
    return {name: float(value) for name, value in results.items()}


def _mean(values):
    return sum(values) / len(values) if values else math.nan
