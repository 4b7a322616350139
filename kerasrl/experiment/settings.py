"""Hyperparameters sorted by who takes them."""

import inspect
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
)


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
            `policy.<name>` and `optimizer.<name>` reach the policy's and the
            optimizer's arguments.
        agent_class: the agent's class, or what a `kerasrl.cli.catalog.Class` says of
            it; the constructor's arguments say what is valid.

    Returns:
        `Settings`.

    Raises:
        click.UsageError: for a key that is not known, given twice, or not supported.
    """
    arguments = agent_class.hyperparameters()
    known = {*arguments, *FIT, "learning_rate", "optimizer"}
    settings = Settings()
    given: dict[str, str] = {}
    for key, value in from_rllib(config, arguments).items():
        name = RLLIB_CONFIG.get(key, key)
        if name not in known and name.partition(".")[0] in ("policy", "optimizer"):
            part, _, argument = name.partition(".")
            getattr(settings, part)[argument] = value
            continue
        if name not in known:
            aliases = {
                alias for alias, target in RLLIB_CONFIG.items() if target in known
            }
            parts = {"policy.<argument>", "optimizer.<argument>"}
            refuse(
                f"{agent_class.__name__} has no setting {key!r}. "
                f"{nearest(key, known | aliases | parts)}"
            )
        if name in given:
            refuse(f"{given[name]!r} and {key!r} are the same setting. Give one.")
        given[name] = key
        if name in FIT:
            settings.fit[name] = value
        elif name == "learning_rate":
            settings.optimizer["learning_rate"] = value
        elif name == "optimizer" and isinstance(value, dict):
            settings.optimizer.update(value)
        elif name == "optimizer":
            settings.optimizer_name = check(key, value, TEXT)
        elif name == "policy" and isinstance(value, dict):
            settings.policy.update(value)
        elif isinstance(value, dict) and "class_name" in value:
            settings.agent[name] = read_schedule(key, value)
        else:
            settings.agent[name] = value
    if settings.policy:
        check_policy(settings.policy, agent_class.default_policy)
        settings.agent["policy"] = settings.policy
    return settings


def check_policy(policy: dict[str, Any], policy_class: Any) -> None:
    """Refuse arguments that the built-in policy does not have."""
    if inspect.isclass(policy_class):
        known = constructor_arguments(policy_class)
    else:
        known = list(policy_class.signature(inherited=False))
    for name in policy:
        if name not in known:
            refuse(unknown("policy argument", name, known))
