"""Algorithms and modules by their names."""

import importlib
import inspect
import sys
from collections.abc import Iterable
from typing import Any

import click

from kerasrl.experiment import catalog
from kerasrl.experiment.refusals import first_line, refuse, unknown
from kerasrl.spellings import RLLIB_ALGORITHMS

#: Those of several agents: they are imported at once, as few know their arguments.
_OF_SEVERAL = {
    name.lower(): f"kerasrl.multi_agent:{name}"
    for name in ("MultiAgent", "QMIX", "VDN")
}


def find_algorithm(name: str) -> Any:
    """What the catalog has of an algorithm, or the class that `module:Class` names."""
    name = _OF_SEVERAL.get(name.lower(), name)
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except AttributeError:
            refuse(f"The module {module!r} has no {attribute!r}.")
        agent = importlib.import_module("kerasrl.training.trainer").Trainer
        if not (inspect.isclass(found) and issubclass(found, agent)):
            refuse(f"{name} is not a subclass of kerasrl.Agent.")
        return found
    return named_algorithm(name)


def named_algorithm(name: str, others: Iterable[str] = ()) -> Any:
    """What the catalog has of an algorithm, which may have RLlib's name.

    Args:
        name: str, in capitals or not.
        others: names of what else it could have been, for the message.
    """
    known = catalog.algorithms()
    by_lower = {each.lower(): cls for each, cls in known.items()}
    meant, remark = RLLIB_ALGORITHMS.get(name.lower(), (name, ""))
    if remark:
        click.echo(f"{name} is kerasrl.{meant}, {remark}.", err=True)
    if meant.lower() not in by_lower:
        refuse(unknown("algorithm", name, [*known, *others]))
    return by_lower[meant.lower()]


def import_algorithm(found: Any) -> Any:
    """The class of what `find_algorithm` found. Imports TensorFlow."""
    if inspect.isclass(found):
        return found
    return getattr(importlib.import_module("kerasrl.agents"), found.__name__)


def import_module(name: str) -> Any:
    """A module by its name; refused with the reason if it cannot be imported."""
    if not all(part.strip() for part in name.split(".")):
        refuse(f"{name!r} is not the name of a module, such as package.module.")
    # As `python -m` does: modules of the working directory can be imported.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        refuse(f"The module {name!r} cannot be imported: {first_line(error)}")
