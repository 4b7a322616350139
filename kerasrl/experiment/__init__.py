"""Reading what to train: experiment files, hyperparameters, RLlib's spellings.

Texts and YAML become checked arguments of agents and of `fit`, or a message that says
what to write instead. Nothing is trained here, and no agent is imported, so that
mistakes are answered before TensorFlow starts.
"""

from kerasrl.experiment.reading import (
    COUNTERS,
    parse_assignments,
    parse_json,
    read_experiment,
    read_stop,
)
from kerasrl.experiment.refusals import (
    FLAG,
    NUMBER,
    POSITIVE,
    RATE,
    TEXT,
    check,
    constructor_arguments,
    first_line,
    number,
    optional,
    refuse,
    unknown,
    whole,
)
from kerasrl.experiment.schedules import read_schedule
from kerasrl.experiment.settings import FIT, Settings, split_config

__all__ = [
    "COUNTERS",
    "FIT",
    "FLAG",
    "NUMBER",
    "POSITIVE",
    "RATE",
    "TEXT",
    "Settings",
    "check",
    "constructor_arguments",
    "first_line",
    "number",
    "optional",
    "parse_assignments",
    "parse_json",
    "read_experiment",
    "read_schedule",
    "read_stop",
    "refuse",
    "split_config",
    "unknown",
    "whole",
]
