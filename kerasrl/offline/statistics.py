"""What the numbers of a data set are like."""

import numpy as np

from kerasrl import spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.offline.episodes import tree_of


def compute(dataset):
    """Computes the dict that `Dataset.statistics` describes."""
    spaces_of = {
        "observation": dataset.observation_space,
        "action": dataset.action_space,
    }
    moments = {
        role: [_Moments(leaf.shape) for _, leaf in spaces.named_leaves(space, role)]
        for role, space in spaces_of.items()
    }
    converter = ActionConverter(dataset.action_space)
    rewards, returns, lengths = _Moments(()), [], []
    for part in dataset.parts:
        table = part.table()
        columns = table.columns
        found = converter.inverse(tree_of(dataset.action_space, columns["actions"]))
        columns = {
            "observation": columns["observations"],
            "action": spaces.leaf_lister(dataset.action_space)(found),
        }
        for role, leaves in columns.items():
            for each, leaf in zip(moments[role], leaves, strict=True):
                each.add(leaf)
        reward = table.columns["rewards"][0]
        rewards.add(reward)
        stops = np.cumsum(table.lengths)
        sums = np.add.reduceat(reward, stops - table.lengths)
        ended = table.terminated | table.truncated
        returns.append(sums[ended])
        lengths.append(table.lengths[ended])
    terminated = sum(int(part.terminated.sum()) for part in dataset.parts)
    ended = sum(int((part.terminated | part.truncated).sum()) for part in dataset.parts)
    result = {
        "num_episodes": dataset.num_episodes,
        "num_steps": dataset.num_steps,
        "num_terminated": terminated,
        "num_truncated": ended - terminated,
        "num_unfinished": dataset.num_episodes - ended,
        **_summary("return", np.concatenate([np.zeros(0), *returns])),
        "length_mean": float(np.mean(np.concatenate(lengths))) if ended else np.nan,
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "reward_min": float(rewards.least),
        "reward_max": float(rewards.most),
    }
    for role, space in spaces_of.items():
        result[f"{role}_mean"] = tree_of(space, [x.mean() for x in moments[role]])
        result[f"{role}_std"] = tree_of(space, [x.std() for x in moments[role]])
    return result


def _summary(name, values):
    found = {}
    for kind in ("mean", "std", "min", "max"):
        value = getattr(np, kind)(values) if len(values) else np.nan
        found[f"{name}_{kind}"] = float(value)
    return found


class _Moments:
    """Mean and variance over the first axis of arrays that come one after the other."""

    def __init__(self, shape):
        self._count, self._mean = 0, np.zeros(shape)
        self._squares = np.zeros(shape)  # Sums of squared distances from the mean.
        self.least, self.most = np.inf, -np.inf

    def add(self, array):
        count = len(array)
        mean = np.mean(array, axis=0, dtype=np.float64)
        squares = np.var(array, axis=0, dtype=np.float64) * count
        total = self._count + count
        distance = mean - self._mean
        self._mean = self._mean + distance * count / total
        self._squares += squares + distance**2 * self._count * count / total
        self._count = total
        self.least = min(self.least, float(np.min(array)))
        self.most = max(self.most, float(np.max(array)))

    def mean(self):
        return self._mean if self._count else np.full(np.shape(self._mean), np.nan)

    def std(self):
        return np.sqrt(self._squares / self._count) if self._count else self.mean()
