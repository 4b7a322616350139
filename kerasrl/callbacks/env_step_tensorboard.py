"""TensorBoard curves over environment steps."""

import json
import math
from pathlib import Path
from typing import Any

from kerasrl.callbacks.callback import Callback
from kerasrl.callbacks.run_logger import describe

# Longest beginning first; the others go under "train/".
GROUPS = (
    ("evaluation_", "evaluation"),
    ("episode", "episodes"),
    ("steps_per_second", "time"),
    ("time_", "time"),
)
#: What Keras writes beside the settings of an object.
NO_SETTINGS = (
    "name",
    "trainable",
    "dtype",
    "module",
    "registered_name",
    "build_config",
)


class EnvStepTensorBoard(Callback):
    """Writes every number of the logs to TensorBoard, over environment steps.

    `keras.callbacks.TensorBoard` counts epochs and batches, whose length depends on
    hyperparameters. Here the horizontal axis is `agent.env_steps`, the agent's whole
    life, so that runs with different rollout lengths, and a resumed run, share one
    axis. Use both when you also want its graph, histograms or profiler.

    The tags are the names in the logs under a group: `episodes/episode_return_mean`,
    `evaluation/evaluation_return_mean`, `time/steps_per_second`, `train/policy_loss`.
    Numbers that are not finite yet (no episode has ended) are left out. The agent's
    configuration is written once as text, and its scalar hyperparameters to the HPARAMS
    tab.

    Args:
        directory: str or path. Where the event file goes.
        update_freq: `"epoch"` or `"batch"`. With `"batch"` the losses of every
            iteration are written as well, under `iteration/`.
        hyperparameters: bool. Whether to write the configuration.

    Raises:
        ValueError: if `update_freq` is neither of the two.

    Example:

    ```python
    agent.fit(
        "CartPole-v1",
        steps=100_000,
        callbacks=[kerasrl.callbacks.EnvStepTensorBoard("logs/ppo")],
    )
    # tensorboard --logdir logs
    ```
    """

    chief_only = True

    def __init__(
        self,
        directory: str | Path,
        update_freq: str = "epoch",
        hyperparameters: bool = True,
    ) -> None:
        super().__init__()
        if update_freq not in ("epoch", "batch"):
            raise ValueError(
                f'update_freq must be "epoch" or "batch". Received: {update_freq!r}'
            )
        self.directory = Path(directory).expanduser()
        self.update_freq = update_freq
        self.hyperparameters = hyperparameters
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(str(self.directory))
        if self.hyperparameters:
            self._write_hyperparameters()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if self.update_freq == "batch":
            self._write(
                {f"iteration/{key}": value for key, value in (logs or {}).items()}
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write({tag(key): value for key, value in (logs or {}).items()})
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: dict[str, Any]) -> None:
        import tensorflow as tf

        with self._writer.as_default():
            for name, value in values.items():
                try:
                    number = float(value)
                except (TypeError, ValueError):
                    continue
                if math.isfinite(number):
                    tf.summary.scalar(name, number, step=int(self.agent.env_steps))

    def _write_hyperparameters(self) -> None:
        import tensorflow as tf
        from tensorboard.plugins.hparams import api as hparams

        config = {
            "algorithm": type(self.agent).__name__,
            "env": self.agent.env_name,
            **flatten(describe(self.agent)),
        }
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            config["optimizer"] = type(optimizer).__name__
            config.update(flatten(optimizer.get_config(), "optimizer."))
        lines = ["| name | value |", "| --- | --- |"]
        lines += [f"| {key} | {value} |" for key, value in config.items()]
        with self._writer.as_default():
            tf.summary.text("config", "\n".join(lines), step=int(self.agent.env_steps))
            # The HPARAMS tab takes plain scalars only.
            hparams.hparams(
                {
                    key: value if isinstance(value, bool | int | float) else str(value)
                    for key, value in config.items()
                }
            )


def tag(name: str) -> str:
    """The TensorBoard tag of a name in the logs: `loss` becomes `train/loss`."""
    for beginning, group in GROUPS:
        if name.startswith(beginning):
            return f"{group}/{name}"
    return f"train/{name}"


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of plain settings with dotted names.

    An object that Keras has serialized is the name of its class and its settings.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key in NO_SETTINGS:
            continue
        if isinstance(value, dict) and "class_name" in value:
            flat[name] = value["class_name"]
            value = value.get("config")
            if not isinstance(value, dict):
                continue
        if isinstance(value, dict):
            flat.update(flatten(value, f"{name}."))
        elif value is None or isinstance(value, bool | int | float | str):
            flat[name] = value
        elif callable(value):
            flat[name] = "a function"
        else:
            flat[name] = json.dumps(value, default=str)
    return flat
