"""Hyperparameters that change over time."""

import functools
import math

import numpy as np
from keras.layers import Layer
from keras.optimizers.schedules import LearningRateSchedule

from kerasrl import checks
from kerasrl.actors import build_actor


def current(agent, name):
    """Returns the value of a hyperparameter that may be a schedule.

    Args:
        agent: An `Agent`; its `env_steps` and `progress` are the clocks.
        name: Name of the attribute: a number, a Keras schedule of environment steps,
            or a function of progress.

    Returns:
        Float.

    Raises:
        ValueError: A schedule gave what cannot be a value of it, such as NaN.

    Example:

    ```python
    agent = kerasrl.PPO(clip_ratio=lambda progress: 0.2 * (1 - progress))
    current(agent, "clip_ratio")  # 0.2
    ```
    """
    value = getattr(agent, name)
    if isinstance(value, LearningRateSchedule):
        if name not in agent.schedules:
            agent.schedules[name] = _compile(value)
        return _check_now(agent, name, agent.schedules[name](agent.env_steps))
    if callable(value):
        return _check_now(agent, name, value(agent.progress))
    return 0.0 if value is None else float(value)


def _check_now(agent, name, value):
    """A value that a schedule gave: one that is allowed as a constant, or 0.

    A schedule may end in 0 where a constant 0 would make no sense.
    """
    try:
        now = float(value)
        if now != 0.0:
            agent.check_hyperparameter(name, now)
        if math.isfinite(now):
            return now
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"The schedule of {name} gave {value!r} at env_steps={agent.env_steps}, "
        f"progress={agent.progress}. Expected a finite number that {name} can be: "
        "look at what the schedule gives at its beginning and its end."
    )


def _compile(schedule):
    """Makes a function of a step, which takes microseconds instead of a millisecond."""
    try:
        program = build_actor(
            lambda inputs: {"value": schedule(inputs["step"])},
            {"step": np.zeros(1, np.int64)},
            backend="numpy",
            name=type(schedule).__name__,
        )
    except (TypeError, ValueError):
        # A schedule of one's own may take single numbers only.
        return lambda step: float(schedule(step))
    return lambda step: float(program({"step": np.array([step])})["value"][0])


def schedulable(name, value, zero=True, most=math.inf):
    """Returns an argument that may be a number, a schedule or a function.

    Args:
        name: Name of the argument.
        value: What it was set to.
        zero: Whether the number may be 0.
        most: Float, the largest number.

    Raises:
        ValueError: It is none of these, or a number out of range.
    """
    if isinstance(value, LearningRateSchedule) or _is_function(value):
        return value
    if checks.is_number(value) and 0.0 <= value <= most and (value > 0 or zero):
        return float(value)
    least = "from 0" if zero else "above 0"
    limit = "" if most == math.inf else f" up to {most:g}"
    raise ValueError(
        f"Received {name}={value!r}. Expected a number {least}{limit}, a "
        "keras.optimizers.schedules.LearningRateSchedule of environment steps, or a "
        "function of progress (0 to 1)."
    )


def _is_function(value):
    # A class is callable too: that of a schedule, without its arguments, for one.
    return callable(value) and not isinstance(value, type)


def goes_by_progress(value):
    """Whether the value of a hyperparameter is a function of the progress of `fit`."""
    is_layer = isinstance(value, (LearningRateSchedule, Layer))
    return _is_function(value) and not is_layer


def rates(name, value, most=math.inf, optional=False):
    """Returns an argument that may also be a list, one number per environment.

    With `optional`, `None` is allowed.

    Raises:
        ValueError: It is none of what `schedulable` takes, nor a list of numbers.
    """
    if value is None and optional:
        return None
    if isinstance(value, (list, tuple)):
        for index, number in enumerate(value):
            checks.positive(f"{name}[{index}]", number, zero=True)
            if number > most:
                raise ValueError(
                    f"Received {name}[{index}]={number!r}. Expected a number up to "
                    f"{most:g}."
                )
        if not value:
            raise ValueError(
                f"Received {name}={value!r}. Expected one number per environment."
            )
        return [float(number) for number in value]
    return schedulable(name, value, most=most)


#: Arguments that are a probability, or a weight from 0 to 1.
share = functools.partial(schedulable, most=1.0)
probabilities = functools.partial(rates, most=1.0)


def current_rates(agent, name, num_envs):
    """Returns the present values of an argument that `rates` accepted.

    A list has one number for each environment of `fit`. Where no `fit` runs, or more
    rows than that are acted on, it is repeated.

    Args:
        agent: An `Agent`.
        name: Name of the attribute.
        num_envs: Integer `B`.

    Returns:
        float32 `[B]`.

    Raises:
        ValueError: There is a list of another length than `fit` has environments.
    """
    value = getattr(agent, name)
    if not isinstance(value, list):
        return np.full(num_envs, current(agent, name), np.float32)
    if agent.source is not None and len(value) != agent.source.num_envs:
        raise ValueError(
            f"Received {len(value)} values of {name} for {agent.source.num_envs} "
            f"environments. Expected one for each: pass num_envs={len(value)}."
        )
    return np.resize(np.array(value, np.float32), num_envs)
