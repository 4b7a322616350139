"""Statistics of episodes and of training, as logged."""

import collections
import itertools
import math

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

    def add(self, records):
        """Adds finished episodes.

        Args:
            records: Iterable of `kerasrl.rollouts.EpisodeRecord`.
        """
        for record in records:
            self.episodes += 1
            self.returns.append(float(record.episode_return))
            self.lengths.append(int(record.length))
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
        return {
            "episodes": self.episodes,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }

    def set_state(self, state):
        """Restores what `get_state` returned."""
        self.episodes = state["episodes"]
        self.returns = collections.deque(state["returns"], maxlen=_WINDOW)
        self.lengths = collections.deque(state["lengths"], maxlen=_WINDOW)


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


def spread(total, parts):
    """Shares an integer out as evenly as possible.

    Example:

    ```python
    spread(10, 4)  # [3, 3, 2, 2]
    ```
    """
    size, rest = divmod(total, parts)
    return list(
        itertools.chain([size + 1] * rest, itertools.repeat(size, parts - rest))
    )


def _mean(values):
    return sum(values) / len(values) if values else math.nan
