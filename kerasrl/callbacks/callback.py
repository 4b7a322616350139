"""The base class of reinforcement-learning callbacks."""

from typing import Any

import keras


class Callback(keras.callbacks.Callback):
    """A Keras callback that also sees episodes, rollouts and the agent.

    Every hook of `keras.callbacks.Callback` is there. One *batch* is one iteration: a
    rollout and the update phase that follows it. One *epoch* is `steps_per_epoch`
    environment steps. `self.model` is the policy (a `keras.Model`) and `self.agent` the
    agent that trains it.

    The order of hooks in an iteration is `on_train_batch_begin`, then the episode hooks
    while the rollout is collected, `on_rollout_end`, and `on_train_batch_end`.

    Where several ranks learn together, each calls its callbacks. They see the logs of
    all ranks, so that decisions agree, and the episodes and rollouts of their own.

    Episode hooks cost Python time per environment step, so the collector only calls
    them when some callback overrides one of them.

    Example:

    ```python
    class PoleAngle(kerasrl.callbacks.Callback):
        def on_episode_begin(self, episode):
            episode.user_data["angles"] = []

        def on_episode_step(self, episode):
            episode.user_data["angles"].append(abs(float(episode.observation[2])))

        def on_episode_end(self, episode):
            angles = episode.user_data["angles"]
            episode.custom_metrics["pole_angle"] = sum(angles) / len(angles)

    history = kerasrl.PPO().fit("CartPole-v1", steps=10_000, callbacks=[PoleAngle()])
    history.history["pole_angle_mean"]  # also `_min` and `_max`
    ```
    """

    #: Whether only the first of several ranks calls it, because it writes files or
    #: shows progress.
    chief_only = False

    def __init__(self) -> None:
        super().__init__()
        self._agent: Any = None

    @property
    def agent(self) -> Any:
        """The agent that is being trained; set by `agent.fit`."""
        # `getattr`: a subclass may have forgotten `super().__init__()`.
        agent = getattr(self, "_agent", None)
        if agent is None:
            raise RuntimeError(
                f"{type(self).__name__} has no agent yet. Received: a use outside of "
                "`agent.fit(...)`. Expected: `agent.fit(env, callbacks=[callback])`, "
                "which sets it before `on_train_begin`."
            )
        return agent

    def set_agent(self, agent: Any) -> None:
        """Receive the agent. `agent.fit` calls it before `on_train_begin`."""
        self._agent = agent

    def on_episode_begin(self, episode: Any) -> None:
        """Called when an episode starts.

        Args:
            episode: the running episode of one environment. `env_index` says which.
                `user_data`, an empty dict, is yours until the episode ends;
                `observation` is the first observation.
        """

    def on_episode_step(self, episode: Any) -> None:
        """Called after every step of an episode, the last one included.

        Args:
            episode: the same object as in `on_episode_begin`, with the latest
                `observation, action, reward, terminated, truncated, info`, and
                `episode_return` and `length` so far.
        """

    def on_episode_end(self, episode: Any) -> None:
        """Called once when an episode has terminated or was truncated.

        Args:
            episode: as in `on_episode_step`. Numbers put in `episode.custom_metrics`
                appear in the epoch's logs as `<name>_mean`, `<name>_min`, `<name>_max`
                over the episodes that ended in it.
        """

    def on_rollout_end(self, rollout: Any) -> Any:
        """Called when a rollout has been collected, before the update.

        Args:
            rollout: `kerasrl.rollouts.Rollout`, leaves `[T, B, ...]`.

        Returns:
            None, or another `Rollout` of the same shapes to learn from instead.
        """
        return None
