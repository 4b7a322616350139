"""Reading what to train: experiment files, hyperparameters, RLlib's spellings.

Texts and YAML become checked arguments of agents and of `fit`, or a message that says
what to write instead. Nothing is trained here, and no agent is imported before one is
made, so that mistakes are answered before TensorFlow starts.
"""

from kerasrl.experiment.algorithms import (
    find_algorithm,
    import_algorithm,
    import_module,
    named_algorithm,
)
from kerasrl.experiment.making import (
    EVAL_EPISODES,
    choose_steps,
    listeners,
    make_agent,
    make_checkpoints,
    make_evaluation,
)
from kerasrl.experiment.optimizer import make_optimizer
from kerasrl.experiment.reading import (
    COUNTERS,
    parse_assignments,
    parse_json,
    read_experiments,
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
from kerasrl.experiment.stopping import make_stop

__all__ = [
    "COUNTERS",
    "EVAL_EPISODES",
    "FIT",
    "FLAG",
    "NUMBER",
    "POSITIVE",
    "RATE",
    "TEXT",
    "Settings",
    "check",
    "choose_steps",
    "constructor_arguments",
    "find_algorithm",
    "first_line",
    "import_algorithm",
    "import_module",
    "listeners",
    "make_agent",
    "make_checkpoints",
    "make_evaluation",
    "make_optimizer",
    "make_stop",
    "named_algorithm",
    "number",
    "optional",
    "parse_assignments",
    "parse_json",
    "read_experiments",
    "read_schedule",
    "read_stop",
    "refuse",
    "split_config",
    "unknown",
    "whole",
]
