"""Experiments: many trials of training, on the processors of one machine.

A trial is one training with one seed, in a process and a directory of its own. What
trials there are comes from grids, distributions or a searcher; which of them go on is
said by a scheduler. Importing this imports no TensorFlow: only the trials' processes
do.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Context": "context",
    "Continue": "decisions",
    "Domain": "domains",
    "Exploit": "decisions",
    "GridSearch": "domains",
    "MedianStopping": "schedulers",
    "OptunaSearch": "optuna_search",
    "Pause": "decisions",
    "PopulationBasedTraining": "population_based_training",
    "Results": "results",
    "Scheduler": "schedulers",
    "Searcher": "searchers",
    "Stop": "decisions",
    "SuccessiveHalving": "schedulers",
    "Trainable": "ray_trainable",
    "Trial": "trial",
    "choice": "spaces",
    "grid_search": "spaces",
    "loguniform": "spaces",
    "normal": "spaces",
    "quniform": "spaces",
    "randint": "spaces",
    "run_experiments": "experiments",
    "sample_from": "spaces",
    "search_space": "search_spaces",
    "uniform": "spaces",
    "variants": "spaces",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
