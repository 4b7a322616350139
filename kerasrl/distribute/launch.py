"""Replicas by their name on the command line."""

import keras
import tensorflow as tf

from kerasrl.distribute import scopes
from kerasrl.distribute.horovod import Horovod

NAMES = ("mirrored", "multiworker", "horovod")


def open_scope(name):
    """Returns the context of replicas of a kind.

    Call it before anything else uses TensorFlow.

    Args:
        name: `"horovod"`; `"multiworker"`, with workers as in `TF_CONFIG`; or
            `"mirrored"`, all GPUs of this machine. `"mirrored:2"` takes two of them,
            or, where there is no GPU, makes two devices of the CPU, for trying.

    Returns:
        A context manager.

    Raises:
        ValueError: The name is not known, or there are fewer GPUs.

    Example:

    ```python
    with kerasrl.distribute.open_scope("mirrored"):
        agent = kerasrl.PPO()
    ```
    """
    kind, _, number = str(name).partition(":")
    if kind not in NAMES or (number and (kind != "mirrored" or not number.isdigit())):
        raise ValueError(
            f"Received {name!r}. Expected one of {', '.join(NAMES)}, or mirrored:N."
        )
    if kind == "horovod":
        return Horovod()
    if kind == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    return tf.distribute.MirroredStrategy(_devices(int(number or 0))).scope()


def scale_learning_rate(rate):
    """Multiplies a learning rate by the number of ranks of the context.

    The gradient of N ranks is a mean over N times the data. A rate N times as high then
    makes up for N times fewer steps (https://arxiv.org/abs/1706.02677), if training
    stays stable. Nothing does this unless it is called.

    Args:
        rate: Float or `keras.optimizers.schedules.LearningRateSchedule`.

    Returns:
        The same kind of thing.

    Example:

    ```python
    with kerasrl.distribute.Horovod():
        rate = kerasrl.distribute.scale_learning_rate(3e-4)
        agent.compile(keras.optimizers.Adam(rate))
    ```
    """
    factor = scopes.current().num_ranks
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate * factor
    if factor == 1:
        return rate
    return ScaledSchedule(rate, factor)


@keras.saving.register_keras_serializable("kerasrl")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a constant."""

    def __init__(self, schedule, factor):
        self.schedule = schedule
        self.factor = factor

    def __call__(self, step):
        return self.factor * self.schedule(step)

    def get_config(self):
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "factor": self.factor,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["factor"])


def _devices(number):
    if not number:
        return None
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) >= number:
        return [f"GPU:{index}" for index in range(number)]
    if gpus:
        raise ValueError(f"Received mirrored:{number}, but there are {len(gpus)} GPUs.")
    cpu = tf.config.list_physical_devices("CPU")[0]
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device] * number)
    return [f"CPU:{index}" for index in range(number)]
