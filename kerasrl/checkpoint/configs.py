"""Constructor arguments as JSON-compatible data."""

import keras


def serialize_config(config):
    """Turns constructor arguments into JSON-compatible data.

    Args:
        config: Dict. Values may be Keras objects with a `get_config`, or functions
            registered with `keras.saving.register_keras_serializable`.

    Returns:
        Dict.

    Raises:
        ValueError: A value is a function that is not registered, or an object without
            a `get_config`.
    """
    for name, value in config.items():
        is_class_instance = hasattr(value, "get_config")
        if callable(value) and not is_class_instance:
            registered = keras.saving.get_registered_name(value)
            if keras.saving.get_registered_object(registered) is not value:
                raise ValueError(
                    f"Cannot save {name}={value!r}: it is a function that is not "
                    "registered. Decorate a named function with "
                    "keras.saving.register_keras_serializable(), or use a "
                    "keras.optimizers.schedules object."
                )
    return {name: serialize_object(name, value) for name, value in config.items()}


def serialize_object(name, value):
    """As `keras.saving.serialize_keras_object`, with a message of a few lines."""
    try:
        return keras.saving.serialize_keras_object(value)
    except NotImplementedError as error:
        raise ValueError(
            f"Cannot save {name}={value!r:.200}: it, or a part of it, has no "
            "get_config that Keras could make up from plain arguments. Define "
            "get_config so that it returns every argument of __init__."
        ) from error


def deserialize_config(config):
    """Inverse of `serialize_config`."""
    return {
        name: keras.saving.deserialize_keras_object(value)
        for name, value in config.items()
    }
