"""Keras callbacks, and the hooks that only agents have."""

import math

import keras

from kerasrl.rollouts import Rollout
from kerasrl.training.progress import Progress


class CallbackHooks(keras.callbacks.CallbackList):
    """All callbacks of one `fit`: Keras's hooks and those of `kerasrl.callbacks`.

    Args:
        agent: The `Agent`.
        callbacks: A list of callbacks, one callback, or `None`.
        plan: The `Plan` of the run.
        verbose: As for `fit`.
    """

    def __init__(self, agent, callbacks, plan, verbose):
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        elif isinstance(callbacks, keras.callbacks.Callback):
            callbacks = [callbacks]
        callbacks = list(callbacks or ())
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise TypeError(
                    f"Received a callback of type {type(callback).__name__}. Expected "
                    "instances of keras.callbacks.Callback or "
                    "kerasrl.callbacks.Callback."
                )
        verbose = 1 if verbose == "auto" else verbose
        if not agent.replicas.is_chief:
            verbose = 0
            callbacks = [each for each in callbacks if not _is_for_chief(each)]
        for callback in callbacks:
            if hasattr(callback, "set_agent"):
                callback.set_agent(agent)
        # Keras's own, where somebody wants it, is one of the callbacks.
        has_logger = any(
            isinstance(each, keras.callbacks.ProgbarLogger) for each in callbacks
        )
        self._progress = Progress(agent, plan, 0 if has_logger else verbose)
        super().__init__(
            callbacks,
            add_history=True,
            model=agent.policy,
            verbose=verbose,
            epochs=plan.epochs,
            steps=plan.iterations_per_epoch,
            environment_steps=plan.steps,
        )
        # Imported here because callbacks are optional to know for the agents.
        from kerasrl.callbacks import Callback

        def overriders(name):
            return [
                callback
                for callback in callbacks
                if isinstance(callback, Callback)
                and getattr(type(callback), name) is not getattr(Callback, name)
            ]

        base = keras.callbacks.Callback
        hooks = ("on_batch_begin", "on_batch_end")
        hooks += ("on_train_batch_begin", "on_train_batch_end")
        #: Whether a callback sees, and so could change, something in each iteration.
        self.see_batches = any(
            # On the instance, as `keras.callbacks.LambdaCallback` does, or its class.
            name in vars(callback)
            or getattr(type(callback), name) is not getattr(base, name)
            for callback in callbacks
            for name in hooks
        )
        self._on_rollout_end = overriders("on_rollout_end")
        if self._on_rollout_end and not agent.learns_from_rollouts:
            raise TypeError(
                f"{type(self._on_rollout_end[0]).__name__} looks at rollouts, and "
                f"{type(agent).__name__} has none: it learns from the returns of "
                "episodes. Leave that callback out, or use on_episode_end."
            )
        self._episode = {
            name: overriders(name)
            for name in ("on_episode_begin", "on_episode_step", "on_episode_end")
        }

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        # A bar in a terminal hides the cursor, also when training failed.
        self._progress.close()

    def on_train_begin(self, logs=None):
        """Called before the first epoch."""
        super().on_train_begin(logs)
        # Last: callbacks may refuse, and would do so below an empty bar.
        self._progress.begin_training()

    def on_train_end(self, logs=None):
        """Called after the last epoch."""
        # First: callbacks may print something about the whole.
        self._progress.close()
        super().on_train_end(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Called before an epoch."""
        self._progress.begin_epoch(epoch)
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        """Called after an epoch; callbacks that monitor NaN are left out."""
        callbacks, self.callbacks = self.callbacks, []
        super().on_epoch_end(epoch)  # Waits for hooks of batches that still run.
        self.callbacks = callbacks
        logs = {name: float(value) for name, value in sorted(logs.items())}
        for callback in self.callbacks:
            if not _monitors_nan(callback, logs):
                callback.on_epoch_end(epoch, logs)
        self._progress.end_epoch(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Called before an iteration, if any callback wants to know."""
        if self.see_batches:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """Called after an iteration, if any callback wants to know."""
        if self.see_batches:
            super().on_train_batch_end(batch, logs)
        self._progress.end_iteration(batch, logs)

    @property
    def episode_listener(self):
        """This object if any callback wants to hear of episodes, else `None`."""
        return self if any(self._episode.values()) else None

    def on_episode_begin(self, episode):
        """Called by the collector when an episode begins."""
        for callback in self._episode["on_episode_begin"]:
            callback.on_episode_begin(episode)

    def on_episode_step(self, episode):
        """Called by the collector after every step of an episode."""
        for callback in self._episode["on_episode_step"]:
            callback.on_episode_step(episode)

    def on_episode_end(self, episode):
        """Called by the collector when an episode ended."""
        for callback in self._episode["on_episode_end"]:
            callback.on_episode_end(episode)

    def on_rollout_end(self, rollout):
        """Called with every rollout before it is learnt from; may replace it."""
        for callback in self._on_rollout_end:
            replaced = callback.on_rollout_end(rollout)
            # Of several agents, those of all.
            kind = Rollout if isinstance(rollout, Rollout) else type(rollout)
            if replaced is not None and not isinstance(replaced, kind):
                raise TypeError(
                    f"{type(callback).__name__}.on_rollout_end returned "
                    f"{replaced!r:.200}. Expected a kerasrl.rollouts.Rollout, or None "
                    "to keep it."
                    if kind is Rollout
                    else f"{type(callback).__name__}.on_rollout_end returned a "
                    f"{type(replaced).__name__}. Expected a {kind.__name__}, or None."
                )
            rollout = rollout if replaced is None else replaced
        return rollout


def _monitors_nan(callback, logs):
    """Whether a callback would compare what has no value in this epoch.

    Keras takes the first value for the best, and nothing ever improves on NaN.
    """
    if not isinstance(callback, _MONITORS):
        return False
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        if not callback.save_best_only:
            return False
    return math.isnan(logs.get(callback.monitor, 0.0))


def _is_for_chief(callback):
    """Whether only one of several ranks may call it: it writes to fixed places."""
    return getattr(callback, "chief_only", False) or isinstance(callback, _WRITERS)


_MONITORS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)
