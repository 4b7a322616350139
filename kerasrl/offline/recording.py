"""Episodes out of rollouts, as they are collected."""

import dataclasses

import numpy as np
import optree
from gymnasium import spaces as gym_spaces

from kerasrl import spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.offline.episodes import PLAIN, Episode
from kerasrl.rollouts.rollout import BEHAVIOR_LOG_PROBS, take


class RolloutEpisodes:
    """Puts consecutive rollouts together to whole episodes.

    Args:
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        is_certain: Whether actions were not drawn: of choices the log-probability is
            then 0.

    Example:

    ```python
    episodes = RolloutEpisodes(envs.observation_space, envs.action_space)
    for episode in episodes.add(collector.collect()):
        writer.add(episode)
    ```
    """

    def __init__(self, observation_space, action_space, is_certain=False):
        self._converter = ActionConverter(action_space)
        leaves = spaces.leaves(action_space)
        boxes = [leaf for leaf in leaves if isinstance(leaf, gym_spaces.Box)]
        self._is_certain = is_certain and not boxes
        #: Whether environments may take other actions than the policy emits.
        self._changes = any(
            leaf.dtype != np.float32
            or np.isfinite(leaf.low).any()
            or np.isfinite(leaf.high).any()
            for leaf in boxes
        )
        self._running: dict = {}

    def add(self, rollout):
        """Takes in a rollout, which goes on where the last one of its environments did.

        Args:
            rollout: `kerasrl.rollouts.Rollout` `[T, B, ...]` of a collector made with
                `all_finals=True`.

        Returns:
            List of the `Episode`s that ended in it.
        """
        return [episode for _, episode in self.numbered(rollout)]

    def numbered(self, rollout):
        """As `add`, a list of pairs of the number of the environment and an episode."""
        steps = {
            "observations": rollout.observations,
            "actions": self._converter_on(rollout),
            "rewards": rollout.rewards.astype(np.float64),
            "extras": self._extras(rollout),
        }
        finals = {}
        if rollout.final is not None:
            times, envs = rollout.final["time"], rollout.final["env"]
            for row, place in enumerate(
                zip(times.tolist(), envs.tolist(), strict=True)
            ):
                finals[place] = take(rollout.final["observations"], row)
        found = []
        ends = rollout.terminated | rollout.truncated
        numbers = [
            first + index
            for first, columns in rollout.parts()
            for index in range(columns.stop - columns.start)
        ]
        for env, number in enumerate(numbers):
            start = 0
            if rollout.episode_starts[0, env]:
                found += [(number, x) for x in self._cut(number)]
            for time in np.flatnonzero(ends[:, env]).tolist():
                if not rollout.valid[time, env]:
                    # A filler: what ran was lost with its worker, or is over already.
                    self._running.pop(number, None)
                else:
                    self._keep(number, steps, slice(start, time + 1), env)
                    episode = self._join(
                        number,
                        finals[time, env],
                        terminated=bool(rollout.terminated[time, env]),
                        truncated=bool(rollout.truncated[time, env]),
                    )
                    found.append((number, episode))
                start = time + 1
            if start < len(ends):
                self._keep(number, steps, slice(start, None), env)
                following = take(rollout.next_inputs["observations"], env)
                self._running[number]["next"] = optree.tree_map(np.array, following)
        return found

    def unfinished(self):
        """Returns the episodes that still run, up to here, and forgets them."""
        return [x for number in sorted(self._running) for x in self._cut(number)]

    def _cut(self, number):
        if number not in self._running:
            return []
        return [self._join(number, self._running[number]["next"])]

    def _keep(self, number, steps, rows, env):
        running = self._running.setdefault(number, {"steps": []})
        # Copies: learners and callbacks may write into theirs.
        part = optree.tree_map(lambda leaf: np.array(leaf[rows, env]), steps)
        running["steps"].append(part)

    def _join(self, number, last, **flags):
        parts = self._running.pop(number)["steps"]
        _fill_infos(parts)
        whole = optree.tree_map(lambda *leaves: np.concatenate(leaves), *parts)
        whole["observations"] = optree.tree_map(
            lambda leaf, row: np.concatenate([leaf, np.asarray(row, leaf.dtype)[None]]),
            whole["observations"],
            last,
        )
        return Episode(**whole, **flags)

    def _converter_on(self, rollout):
        shape = rollout.rewards.shape
        flat = optree.tree_map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rollout.actions
        )
        return optree.tree_map(
            lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]),
            self._converter.batch(flat),
        )

    def _extras(self, rollout):
        extras = dict(rollout.extras)
        log_probs = extras.pop(BEHAVIOR_LOG_PROBS, None)
        if log_probs is None and self._is_certain:
            log_probs = np.zeros(rollout.rewards.shape, np.float32)
        if log_probs is not None:
            extras.setdefault("log_probs", log_probs)
        if self._changes:
            extras["emitted_actions"] = rollout.actions
        # What environments said in words cannot be kept without pickling.
        infos = {k: x for k, x in rollout.infos.items() if x.dtype.kind in PLAIN}
        if infos:
            extras["infos"] = infos
        return extras


def _fill_infos(steps):
    """Has all parts of an episode the same infos: NaN where an environment said none.

    Args:
        steps: List of dicts of the steps of each part, with `"rewards"` and `"extras"`.
    """
    found = [part["extras"].get("infos", {}) for part in steps]
    examples = {name: array for infos in found for name, array in infos.items()}
    for part, infos in zip(steps, found, strict=True):
        length = len(part["rewards"])
        for name in examples.keys() - infos.keys():
            missing = np.full((length, *examples[name].shape[1:]), np.nan)
            part["extras"].setdefault("infos", {})[name] = missing


class Recorder:
    """Writes the episodes of rollouts, and hands rollouts on as they would have been.

    Args:
        writer: What episodes are added to, a `Writer`.
        episodes: `RolloutEpisodes`.
        all_finals: Whether whoever learns needs the last observation of every episode.
        quotas: List of integers, how many episodes of each environment are written,
            none that is unfinished; `None` for all.
    """

    def __init__(self, writer, episodes, all_finals, quotas=None):
        self.writer, self._episodes = writer, episodes
        self._all_finals = all_finals
        self._quotas = quotas

    def __call__(self, rollout):
        """Takes a `kerasrl.rollouts.Rollout`; returns one without what was for here."""
        for number, episode in self._episodes.numbered(rollout):
            if self._quotas is not None:
                self._quotas[number] -= 1
                if self._quotas[number] < 0:
                    continue
            self.writer.add(episode)
        extras = {k: x for k, x in rollout.extras.items() if k != BEHAVIOR_LOG_PROBS}
        final = rollout.final
        if final is not None and not self._all_finals:
            kept = ~rollout.terminated[final["time"], final["env"]]
            final = optree.tree_map(lambda x: x[kept], final) if kept.any() else None
        return dataclasses.replace(rollout, extras=extras, final=final)

    def close(self):
        """Writes what there is, also episodes that still run."""
        if self._quotas is None:
            for episode in self._episodes.unfinished():
                self.writer.add(episode)
        self.writer.close()
