"""Schedules as JSON and YAML can write them."""

import inspect
from typing import Any

from kerasrl.experiment.refusals import (
    MAPPING,
    SHARE,
    TEXT,
    check,
    check_all,
    constructor_arguments,
    optional,
    refuse,
    unknown,
    whole,
)

#: The entries of RLlib's `exploration_config`.
EXPLORATION = {
    "type": TEXT,
    "initial_epsilon": SHARE,
    "final_epsilon": SHARE,
    "epsilon_timesteps": whole(1),
}


def epsilon_schedule(config: dict[str, Any]) -> Any:
    """RLlib's `exploration_config` as a schedule of environment steps."""
    from keras.optimizers.schedules import PolynomialDecay

    for name in config:
        if name not in EXPLORATION:
            refuse(unknown("entry of exploration_config", name, EXPLORATION))
    config = check_all(config, EXPLORATION, "exploration_config.")
    kind = config.get("type", "EpsilonGreedy")
    if kind == "PerWorkerEpsilonGreedy":
        # Here of each environment, where an algorithm has that by default.
        if set(config) != {"type"}:
            refuse(
                "exploration_config of PerWorkerEpsilonGreedy has no other entries: "
                "each environment has an epsilon that stays."
            )
        return None
    if kind != "EpsilonGreedy":
        refuse(f"exploration_config has type {kind!r}. Expected 'EpsilonGreedy'.")
    first = config.get("initial_epsilon", 1.0)
    last = config.get("final_epsilon", 0.05)
    return PolynomialDecay(first, config.get("epsilon_timesteps", 10_000), last)


def read_schedule(name: str, value: dict[str, Any]) -> Any:
    """A schedule of Keras's from `{"class_name": ..., "config": {...}}`."""
    from keras import saving
    from keras.optimizers import schedules

    base = schedules.LearningRateSchedule
    known = {
        each: cls
        for each, cls in vars(schedules).items()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
    }
    example = "{class_name: PolynomialDecay, config: {...}}"
    if set(value) - {"module", "registered_name"} != {"class_name", "config"}:
        refuse(f"{name} must be a number or {example}. Received: {value!r}")
    kind = check(f"class_name of {name}", value["class_name"], TEXT)
    cls: Any = known.get(kind) or saving.get_registered_object(kind)
    if cls is None:
        refuse(f"{name}: {unknown('schedule', kind, known)}")
    arguments = check(f"config of {name}", value["config"], optional(MAPPING)) or {}
    names = constructor_arguments(cls)
    for argument in arguments:
        if argument not in names:
            refuse(f"{name}: " + unknown(f"{kind} argument", argument, names))
    try:
        schedule = cls.from_config(arguments)
        # Only a call shows what an argument of the wrong type does.
        float(schedule(0))
    except Exception:
        refuse(
            f"{name}: {kind} does not accept these arguments. Received: {arguments!r}. "
            f"Expected: {', '.join(names)}."
        )
    return schedule
