"""Layers and policies that know what they were made with."""

import keras

from kerasrl import signatures
from kerasrl.models.initializers import shift_seed


class Configured:
    """Mixin of Keras layers that keep the arguments of their constructor.

    It comes before the layer in the list of bases. The constructor keeps each argument
    in an attribute of its name, and passes what it does not know on, as `**kwargs`. A
    subclass need not define `get_config`; one that does speaks for its own arguments.

    Example:

    ```python
    class Scale(Configured, keras.layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, inputs):
            return self.factor * inputs

    Scale.from_config(Scale(2.0).get_config()).factor  # 2.0
    ```
    """

    #: Agents set the `seed` of policies that were given none.
    seed = None

    #: In which attributes arguments are kept whose names are those of methods.
    kept_as: dict = {}

    def get_config(self):
        config = super().get_config()
        for name in self._arguments():
            kept = self.kept_as.get(name, name)
            # Keras speaks for its own, such as the dtype.
            if name not in config and hasattr(self, kept):
                config[name] = _serialize(getattr(self, kept))
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in cls._arguments():
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

    @classmethod
    def _arguments(cls):
        """Names of the arguments that `get_config` of this class speaks for."""
        classes = cls.__mro__[: cls.__mro__.index(Configured)]
        first = 0
        for number, each in enumerate(classes, 1):
            if "get_config" in vars(each):
                first = number
        return signatures.arguments(classes[first:])

    def _seed(self, offset):
        return shift_seed(self.seed, offset)


def _serialize(value):
    """Describes an argument as data: an activation by its name if Keras knows it."""
    name = getattr(value, "__name__", "")
    if name and getattr(keras.activations, name, None) is value:
        return name
    if callable(value) or hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value
