"""The optimizer that settings describe."""

import contextlib
import inspect
import math
from typing import Any

from kerasrl.experiment.refusals import (
    FLAG,
    NUMBER,
    POSITIVE,
    RATE,
    TEXT,
    check,
    constructor_arguments,
    number,
    optional,
    refuse,
    unknown,
    whole,
)
from kerasrl.experiment.schedules import read_schedule
from kerasrl.experiment.settings import Settings

_DECAY = number("a number from 0 to below 1", 0.0, math.nextafter(1.0, 0.0))
_NOT_NEGATIVE = number("a number from 0", 0.0)
_NOT_POSITIVE = number("a number up to 0", most=0.0)
#: What Keras's optimizers would train with, whatever it is, by the argument's name.
RANGES = {
    **dict.fromkeys(("beta_1", "beta_2", "adam_beta_1", "adam_beta_2"), _DECAY),
    **dict.fromkeys(("rho", "momentum", "ema_momentum"), _DECAY),
    **dict.fromkeys(("epsilon", "epsilon_1", "epsilon_2", "beta"), _NOT_NEGATIVE),
    **dict.fromkeys(("weight_decay", "adam_weight_decay", "rms_rate"), _NOT_NEGATIVE),
    "initial_accumulator_value": _NOT_NEGATIVE,
    "l1_regularization_strength": _NOT_NEGATIVE,
    "l2_regularization_strength": _NOT_NEGATIVE,
    "l2_shrinkage_regularization_strength": _NOT_NEGATIVE,
    **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"), POSITIVE),
    **dict.fromkeys(("loss_scale_factor", "clip_threshold"), POSITIVE),
    "adam_lr_ratio": POSITIVE,
    **dict.fromkeys(("learning_rate_power", "beta_2_decay"), _NOT_POSITIVE),
    "ema_overwrite_frequency": whole(1),
    "gradient_accumulation_steps": whole(2),
    "ns_steps": whole(1),
    "warmup_steps": whole(0),
}


def make_optimizer(agent: Any, settings: Settings, resumed: bool) -> Any:
    """The agent's own kind of optimizer unless another one was named."""
    if not hasattr(agent, "default_optimizer"):
        if settings.optimizer_name is not None or settings.optimizer:
            refuse(
                f"{type(agent).__name__} has agents with an optimizer each. Leave out "
                "learning_rate and optimizer."
            )
        return None
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
    by_default = {bool: FLAG, str: TEXT}
    kind = RANGES.get(name) or by_default.get(type(default), NUMBER)
    if default is None:
        kind = optional(kind._replace(expected=f"{kind.expected} or null"))
    return check(f"optimizer.{name}", value, kind)
