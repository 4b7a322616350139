"""Episodes while they run, and what remains of them."""

import dataclasses
from typing import Any

import numpy as np

from kerasrl.rollouts.rollout import take


@dataclasses.dataclass(slots=True)
class EpisodeRecord:
    """A finished episode.

    Args:
        env_index: Integer, which environment.
        episode_return: Float, undiscounted sum of rewards.
        length: Integer, number of steps.
        terminated: Bool, whether it reached an end of the task (else it was cut off).
        env_steps: Integer, steps of all environments that the collector had taken at
            the end of the step in which it ended.
        custom_metrics: Dict of numbers that callbacks put into the episode.
    """

    env_index: int
    episode_return: float
    length: int
    terminated: bool
    env_steps: int
    custom_metrics: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Episode:
    """A running episode, as episode hooks see it.

    One object per episode, updated in place at every step.

    Args:
        env_index: Integer, which environment.
        observation: Tree without batch axis: the latest observation, at the end the
            last of the episode.
        info: Dict, info of the latest step, or of the reset.
        episode_return: Float, sum of rewards so far.
        length: Integer, number of steps so far.
        action: Tree without batch axis, the latest action as the policy emitted it;
            `None` before the first.
        reward: Float, the latest reward.
        terminated: Bool, whether the latest step ended the task.
        truncated: Bool, whether the latest step was the last before a cut.
        user_data: Dict for the hooks' own use.
        custom_metrics: Dict of numbers, logged as `<name>_mean`, `_min` and `_max`
            over the episodes that end.

    Example:

    ```python
    def on_episode_end(self, episode):
        episode.custom_metrics["steps"] = episode.length
    ```
    """

    env_index: int
    observation: Any
    info: dict
    episode_return: float = 0.0
    length: int = 0
    action: Any = None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    user_data: dict = dataclasses.field(default_factory=dict)
    custom_metrics: dict = dataclasses.field(default_factory=dict)


class RunningEpisodes:
    """Returns and lengths of the episodes under way, at no cost per step.

    Works on whole rollouts: episodes may span several of them.

    Args:
        num_envs: Integer, B.
    """

    def __init__(self, num_envs):
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, np.int64)

    def begin(self, envs):
        """Forgets the episodes of environments that were reset, or are others now.

        Args:
            envs: bool `[B]`.
        """
        self.returns = np.where(envs, 0.0, self.returns)
        self.lengths = np.where(envs, 0, self.lengths)

    def update(self, rewards, terminated, truncated, valid, env_steps):
        """Takes in a rollout.

        Args:
            rewards: float32 `[T, B]`.
            terminated: bool `[T, B]`.
            truncated: bool `[T, B]`.
            valid: bool `[T, B]`.
            env_steps: Integer, steps of all environments before this rollout.

        Returns:
            List of pairs `(time, EpisodeRecord)` of the episodes that ended, in the
            order of time.
        """
        returns = np.cumsum(rewards, axis=0, dtype=np.float64)
        returns += self.returns
        lengths = np.cumsum(valid, axis=0)
        lengths += self.lengths
        # Fillers too: one in the middle of an episode drops it (a worker was lost).
        ends = terminated | truncated
        records = []
        if ends.any():
            steps = env_steps + np.cumsum(valid.sum(axis=1))
            # Python numbers: reading single NumPy elements costs more than the rest.
            times, envs = (indices.tolist() for indices in np.nonzero(ends))
            columns = [each[ends] for each in (returns, lengths, terminated, valid)]
            base_returns = [0.0] * len(self.returns)
            base_lengths = [0] * len(self.lengths)
            columns.append(steps[times])
            for time, env, total, length, by_termination, is_end, step in zip(
                times, envs, *(column.tolist() for column in columns), strict=True
            ):
                if is_end:
                    record = EpisodeRecord(
                        env,
                        total - base_returns[env],
                        length - base_lengths[env],
                        by_termination,
                        step,
                    )
                    records.append((time, record))
                base_returns[env], base_lengths[env] = total, length
            self.returns = returns[-1] - base_returns
            self.lengths = lengths[-1] - base_lengths
        else:
            self.returns, self.lengths = returns[-1], lengths[-1]
        return records


class EpisodeTracker:
    """Keeps `Episode` objects up to date and tells a listener about them.

    Args:
        listener: Object with the methods `on_episode_begin(episode)`,
            `on_episode_step(episode)` and `on_episode_end(episode)`.
        envs: `kerasrl.envs.Environments`, just reset or under way.
        observations: Tree `[B, ...]`, the current observations.
        running: `RunningEpisodes`, for those that began before.
    """

    def __init__(self, listener, envs, observations, running):
        self.listener = listener
        self.envs = envs
        self._episodes = []
        self._finished = {}
        for env, info in enumerate(envs.reset_infos):
            self._episodes.append(None)
            self.begin(
                env,
                take(observations, env),
                info,
                float(running.returns[env]),
                int(running.lengths[env]),
            )

    def step(self, time, step, actions):
        """Takes in one step of all environments.

        Args:
            time: Integer, index within the rollout.
            step: `EnvStep`.
            actions: Tree `[B, ...]` as the policy emitted them.
        """
        infos, rewards = step.infos, step.rewards.tolist()
        for env, info in enumerate(infos):
            if info is None:
                continue  # Lost with its worker; a new episode begins later.
            if not step.valid[env]:
                # The vector environment only now made the first observation.
                observation = take(step.observations, env)
                self.begin(env, observation, info.get("reset_info", {}))
                continue
            episode = self._episodes[env]
            episode.action = take(actions, env)
            episode.reward = rewards[env]
            episode.episode_return += rewards[env]
            episode.length += 1
            episode.terminated = bool(step.terminated[env])
            episode.truncated = bool(step.truncated[env])
            ended = episode.terminated or episode.truncated
            episode.observation = (
                step.final_observations[env] if ended else take(step.observations, env)
            )
            episode.info = info
            self.listener.on_episode_step(episode)
            if ended:
                self.listener.on_episode_end(episode)
                self._finished[time, env] = episode.custom_metrics
                if not self.envs.resets_on_next_step:
                    observation = take(step.observations, env)
                    self.begin(env, observation, info.get("reset_info", {}))

    def begin(self, env, observation, info, episode_return=0.0, length=0):
        """Takes in that an environment was reset.

        Args:
            env: Integer, which one.
            observation: Tree without batch axis.
            info: Dict, info of the reset.
            episode_return: Float, sum of the rewards so far.
            length: Integer, number of steps so far.
        """
        number = self.envs.first_index + env
        episode = Episode(number, observation, info, episode_return, length)
        self._episodes[env] = episode
        self.listener.on_episode_begin(episode)

    def custom_metrics(self, time, env):
        """The custom metrics of the episode that ended there in this rollout."""
        return self._finished.pop((time, env), {})
