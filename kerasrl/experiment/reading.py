"""What experiment files and options hold."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import yaml

from kerasrl.experiment.refusals import (
    FLAG,
    MAPPING,
    NUMBER,
    POSITIVE,
    TEXT,
    Kind,
    check,
    check_all,
    first_line,
    optional,
    refuse,
    unknown,
    whole,
)
from kerasrl.experiment.rllib import RLLIB_STOP


def _name_or_grid(value: Any) -> Any:
    """What `run` and `env` may be; a sweep reads a mapping or an object further."""
    if isinstance(value, str | dict):
        return value or None
    return None if isinstance(value, bool | int | float | list) else value


def _seeds(value: Any) -> Any:
    one = whole(0).convert
    if isinstance(value, list | tuple):
        found = [one(each) for each in value]
        return found if found and None not in found else None
    return whole(1).convert(value)


_NAME = Kind("a text that is not empty", _name_or_grid, optional=True)
#: What an experiment may say.
EXPERIMENT = {
    "run": _NAME,
    "env": _NAME,
    "stop": optional(MAPPING),
    "config": optional(MAPPING),
    "checkpoint_freq": optional(whole(0)),
    "checkpoint_at_end": Kind(
        "true: a run always ends with a checkpoint",
        lambda value: value if value is True else None,
        optional=True,
    ),
    "local_dir": optional(TEXT),
    "num_samples": optional(whole(1)),
    "steps": optional(whole(1)),
    "seeds": Kind("a number of seeds, or a list of them", _seeds, optional=True),
    "max_failures": optional(whole(0)),
    "resources_per_trial": optional(MAPPING),
    "modules": Kind(
        "a list of names of modules",
        lambda value: (
            value
            if isinstance(value, list) and all(isinstance(x, str) and x for x in value)
            else None
        ),
        optional=True,
    ),
    "eager": optional(FLAG),
    "eval_freq": optional(whole(0)),
    "eval_episodes": optional(whole(1)),
}
#: What training counts rather than measures: a criterion of 0 would be met at once.
COUNTERS = ("env_steps", "episodes", "iterations", "epochs", "time_total_s")


class Loader(yaml.SafeLoader):
    """YAML as JSON understands it.

    YAML 1.1 takes `1e-3` for a text; here it is a number, as in YAML 1.2. Keys are
    texts.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} must be a text", node.start_mark
                )
        return mapping


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)
#: What reading a text can end in: dates that do not exist are a ValueError.
UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError)


#: Values of the largest file of settings, references counted as what they stand for.
MOST_VALUES = 100_000
MOST_CHARACTERS = 1_000_000


def load_yaml(text: str) -> Any:
    """What a text in YAML says; raises one of `UNREADABLE`."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        # A few lines of references can stand for more than memory holds.
        if count_values(node, {}) > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def count_values(node: Any, counts: dict[int, int | None]) -> int:
    """How many values a YAML node stands for; a ValueError if it is in itself."""
    if id(node) in counts:
        count = counts[id(node)]
        if count is None:
            raise ValueError("a reference is in what it refers to")
        return count
    counts[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        inner = [each for pair in inner for each in pair]
    counts[id(node)] = total = 1 + sum(count_values(each, counts) for each in inner)
    return total


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["gamma=0.98", ...]` as a dict; values are YAML."""
    config: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            refuse(f"--set takes key=value. Received: {assignment!r}")
        try:
            config[key.strip()] = load_yaml(text)
        except UNREADABLE as error:
            refuse(f"--set {key}: {text!r} is not YAML: {first_line(error)}")
    return config


def parse_json(option: str, text: str | None) -> dict[str, Any]:
    """A JSON object given to an option."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        refuse(f"{option} must be a JSON object. Received: {text!r}: {error}")
    if not isinstance(value, dict):
        refuse(f"{option} must be a JSON object. Received: {text!r}")
    return value


def read_experiments(path: str) -> dict[str, dict[str, Any]]:
    """The experiments of a YAML file in RLlib's layout, by their names."""
    try:
        with open(path, encoding="utf-8") as file:
            content = load_yaml(file.read(MOST_CHARACTERS + 1))
    except UNREADABLE as error:
        refuse(f"{path} cannot be read as YAML: {first_line(error)}")
    if not isinstance(content, dict) or not content:
        refuse(
            f"{path} must hold one experiment at least: `name: {{run: PPO, env: ...}}`."
        )
    entries = [
        key
        for key, value in content.items()
        if key in EXPERIMENT and (len(content) > 1 or not isinstance(value, dict))
    ]
    if entries:
        refuse(
            f"{path}: {', '.join(entries)} must stand below the name of the "
            "experiment: `name: {run: PPO, env: ...}`."
        )
    for name, experiment in content.items():
        if not isinstance(experiment, dict):
            refuse(f"{path}: the experiment {name!r} must be a mapping with run, ...")
    several = len(content) > 1
    return {
        name: check_experiment(f"{path}: {name}: " if several else f"{path}: ", each)
        for name, each in content.items()
    }


def check_experiment(where: str, experiment: dict[str, Any]) -> dict[str, Any]:
    """The entries of an experiment, checked.

    Args:
        where: str, what messages begin with.
        experiment: dict in RLlib's shape.

    Raises:
        click.UsageError: for an entry that is not known, or a value that it cannot be.
    """
    for key in experiment:
        if key not in EXPERIMENT:
            refuse(where + unknown("entry", key, EXPERIMENT))
    return check_all(experiment, EXPERIMENT, where)


def read_stop(criteria: dict[str, Any]) -> dict[str, Any]:
    """Stop criteria in kerasrl's names."""
    stop: dict[str, Any] = {}
    given: dict[str, str] = {}
    for key, value in criteria.items():
        name = RLLIB_STOP.get(key, key)
        if name in stop:
            refuse(f"{given[name]!r} and {key!r} are the same stop criterion.")
        given[name] = key
        kind = POSITIVE if name in COUNTERS else NUMBER
        stop[name] = check(f"The stop criterion {key!r}", value, kind)
    if "env_steps" in stop:
        # Also the limit of `fit`.
        stop["env_steps"] = math.ceil(stop["env_steps"])
    return stop
