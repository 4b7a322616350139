"""The program of a trial, run with `python -m` in a process of its own.

It is told the trial's directory and file descriptors. It imports TensorFlow only for
trials of agents.
"""

import importlib
import inspect
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from kerasrl.experiment import first_line, import_module, refuse
from kerasrl.tuning.context import Context
from kerasrl.tuning.link import Leave, Link
from kerasrl.tuning.trial import Trial

#: Exit codes, as those of commands.
_FAILED, _REFUSED, _TERMINATED = 1, 2, 143


def main(directory: str, results: str, control: str, waits: str) -> None:
    """Run the trial of a directory, and say how it ended.

    Args:
        directory: str, path of the trial's directory.
        results, control: str, numbers of file descriptors as for `Link`.
        waits: str, "1" if each result is answered.
    """
    link = Link(int(results), int(control), waits == "1")
    # As an exception, so that workers and environments are closed on the way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        train = prepare(Trial.load(directory), link)
    except (click.ClickException, ImportError, OSError, TypeError, ValueError) as error:
        # It would be the same another time.
        print_error(error)
        link.end("refused", getattr(error, "message", None) or first_line(error))
        sys.exit(_REFUSED)
    try:
        link.end("finished", train())
    except Leave as leaving:
        link.end(leaving.status, leaving.reason)
    except Exception as error:
        print_error(error)
        sys.exit(_FAILED)


def prepare(trial: Trial, link: Link) -> Callable[[], str]:
    """Make all that a trial needs.

    Returns:
        a function that trains, and returns why it ended.

    Raises:
        click.ClickException, ImportError, OSError, TypeError, ValueError: for what the
            trial asks for and cannot have.
    """
    for module in trial.options.get("modules", ()):
        import_module(module)
    function = find_function(trial.run)
    if function is not None:
        return Context(trial, link).prepare(function)
    # With TensorFlow from here on.
    training = importlib.import_module("kerasrl.tuning.training")
    return training.prepare(trial, link)


def find_function(run: str) -> Callable[..., Any] | None:
    """The function that `module:name` or `file.py:name` names; None for agents.

    Raises:
        click.UsageError: if there is none.
    """
    place, colon, name = run.rpartition(":")
    if not colon:
        return None
    if place.endswith(".py"):
        found = runpy.run_path(place, run_name="kerasrl_trial").get(name)
    else:
        found = getattr(import_module(place), name, None)
    if not callable(found):
        refuse(f"{place} has no function or class {name!r}.")
    return None if inspect.isclass(found) else found


def print_error(error: Exception) -> None:
    """Write an error into the log; and where it was raised, unless it is refused."""
    if isinstance(error, click.ClickException):
        print(f"Error: {error.format_message()}", file=sys.stderr)
    else:
        traceback.print_exception(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
