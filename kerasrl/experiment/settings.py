"""Hyperparameters sorted by who takes them."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from kerasrl.experiment.refusals import (
    TEXT,
    check,
    constructor_arguments,
    nearest,
    refuse,
    unknown,
)
from kerasrl.experiment.rllib import from_rllib
from kerasrl.experiment.schedules import read_schedule
from kerasrl.spellings import RLLIB_CONFIG

#: Settings that are arguments of `fit` rather than of the agent.
FIT = (
    "num_envs",
    "env_config",
    "steps_per_epoch",
    "num_workers",
    "worker_mode",
    "env_timeout",
    "cluster",
)
#: Settings with arguments of their own, `<name>.<argument>`.
PARTS = ("policy", "optimizer", "env_config")
#: Arguments of them that are settings, too.
OWN_NAMES = {"optimizer.learning_rate": "learning_rate"}


class Settings:
    """A configuration sorted by who takes what.

    Attributes:
        agent: dict, constructor arguments of the agent.
        policy: dict, arguments of the built-in policy; part of `agent` if not empty.
        optimizer: dict, arguments of the optimizer.
        optimizer_name: str or None, its name if one was given.
        fit: dict, arguments of `fit`.
    """

    def __init__(self) -> None:
        self.agent: dict[str, Any] = {}
        self.policy: dict[str, Any] = {}
        self.optimizer: dict[str, Any] = {}
        self.optimizer_name: str | None = None
        self.fit: dict[str, Any] = {}


def split_config(config: dict[str, Any], agent_class: Any) -> Settings:
    """Sort a configuration by who takes what; refuse what nobody takes.

    Args:
        config: dict of hyperparameters in kerasrl's or RLlib's spelling.
            `policy.<name>`, `optimizer.<name>` and `env_config.<name>` reach the
            arguments of these, and go before those in a dict `policy`, `optimizer` or
            `env_config`.
        agent_class: the agent's class, or what a `kerasrl.experiment.catalog.Class`
            says of it; the constructor's arguments say what is valid.

    Returns:
        `Settings`.

    Raises:
        click.UsageError: for a key that is not known, given twice, or not supported.
    """
    arguments = agent_class.hyperparameters()
    known = {*arguments, *FIT, "learning_rate", "optimizer"}
    settings = Settings()
    given: dict[str, str] = {}
    for key, name, value in entries(config, arguments):
        if name in given:
            refuse(f"{given[name]!r} and {key!r} are the same setting. Give one.")
        given[name] = key
        part, dot, argument = name.partition(".")
        if dot and part in PARTS:
            if part in FIT:
                settings.fit.setdefault(part, {})[argument] = value
            else:
                getattr(settings, part)[argument] = value
            continue
        if name not in known:
            aliases = {
                alias for alias, target in RLLIB_CONFIG.items() if target in known
            }
            parts = {f"{each}.<argument>" for each in PARTS}
            refuse(
                f"{agent_class.__name__} has no setting {key!r}. "
                f"{nearest(key, known | aliases | parts)}"
            )
        if name in FIT:
            settings.fit[name] = value
        elif name == "learning_rate":
            settings.optimizer["learning_rate"] = value
        elif name == "optimizer":
            settings.optimizer_name = check(key, value, TEXT)
        elif isinstance(value, dict) and "class_name" in value:
            settings.agent[name] = read_schedule(key, value)
        else:
            settings.agent[name] = value
    if settings.policy:
        check_policy(settings.policy, agent_class.default_policy)
        if settings.agent.get("policy") is not None:
            argument = f"policy.{next(iter(settings.policy))}"
            refuse(f"{given['policy']!r} is another policy than {argument!r} is for.")
        settings.agent["policy"] = settings.policy
    return settings


def entries(
    config: dict[str, Any], arguments: Iterable[str]
) -> Iterator[tuple[str, str, Any]]:
    """A configuration in kerasrl's names, the arguments of `PARTS` one by one.

    Yields:
        tuples of a key of `config`, and the name and the value of what it sets.
    """
    for key, name, value in from_rllib(config, arguments):
        name = RLLIB_CONFIG.get(name, name)
        is_whole = not isinstance(value, dict) or (name in FIT and not value)
        if name not in PARTS or is_whole:
            yield key, OWN_NAMES.get(name, name), value
            continue
        for argument, item in value.items():
            argument = f"{name}.{argument}"
            # Named alone, it goes before that of the mapping, which a file may hold.
            if argument not in config:
                yield key, OWN_NAMES.get(argument, argument), item


def check_policy(policy: dict[str, Any], policy_class: Any) -> None:
    """Refuse arguments that the built-in policy does not have."""
    if inspect.isclass(policy_class):
        known = constructor_arguments(policy_class)
    else:
        known = list(policy_class.signature(inherited=False))
    known += ["model", "model_config"]
    for name in policy:
        if name not in known:
            refuse(unknown("policy argument", name, known))
