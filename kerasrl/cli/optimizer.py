"""The optimizer that settings describe."""

import contextlib
import inspect
from typing import Any

from kerasrl.experiment import (
    FLAG,
    NUMBER,
    RATE,
    TEXT,
    Settings,
    check,
    constructor_arguments,
    read_schedule,
    refuse,
    unknown,
)


def make_optimizer(agent: Any, settings: Settings, resumed: bool) -> Any:
    """The agent's own kind of optimizer unless another one was named."""
    if settings.optimizer_name is None:
        default = agent.default_optimizer()
        cls, config = type(default), default.get_config()
    else:
        cls, config = find_optimizer(settings.optimizer_name), {}
    arguments = {
        name: read_argument(cls, name, value)
        for name, value in settings.optimizer.items()
    }
    if resumed:
        if "learning_rate" in arguments:
            agent.policy.optimizer.learning_rate = arguments["learning_rate"]
        return agent.policy.optimizer
    return cls.from_config({**config, **arguments})


def find_optimizer(name: str) -> Any:
    """The class of an optimizer by its name."""
    import keras

    with contextlib.suppress(KeyError, TypeError, ValueError):
        return type(keras.optimizers.get(name))
    base = keras.optimizers.Optimizer
    classes = [
        each
        for each, cls in vars(keras.optimizers).items()
        # Those around other optimizers have arguments without a default.
        if inspect.isclass(cls) and issubclass(cls, base) and not required(cls)
    ]
    refuse(unknown("optimizer", name, classes))


def required(cls: type) -> bool:
    """Whether the first argument of a constructor has no default."""
    first = next(iter(inspect.signature(cls).parameters.values()))
    return first.default is inspect.Parameter.empty


def read_argument(cls: type, name: str, value: Any) -> Any:
    """An argument of an optimizer, checked: Keras itself would fail in the update."""
    known = constructor_arguments(cls)
    if name not in known:
        refuse(unknown(f"{cls.__name__} argument", name, known))
    if name == "learning_rate":
        if isinstance(value, dict):
            return read_schedule(name, value)
        return float(check(name, value, RATE))
    default = inspect.signature(cls).parameters[name].default
    kinds = {bool: FLAG, str: TEXT, int: NUMBER, float: NUMBER}
    if type(default) in kinds:
        return check(f"optimizer.{name}", value, kinds[type(default)])
    if isinstance(value, str | dict):
        refuse(f"optimizer.{name} must be a number or null. Received: {value!r}")
    return value
