"""What the commands share: errors, modules, algorithms, checkpoints, options."""

import contextlib
import importlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from kerasrl.cli.messages import quiet_import, show_messages
from kerasrl.experiment import (
    find_algorithm,
    first_line,
    import_algorithm,
    refuse,
    unknown,
    whole,
)


class BadInput(click.ClickException):
    """Something the user can mend."""

    exit_code = 2


class FailedRun(click.ClickException):
    """Anything else that ended a command."""

    exit_code = 1


class Command(click.Command):
    """A command whose arguments and options are not empty texts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if "" in (value if isinstance(value, tuple) else (value,)):
                raise click.BadParameter("it is empty.", ctx, parameter)
        return rest


class Group(click.Group):
    """A group that names the nearest command, and whose errors have one line."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line():
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            if not args[0].startswith("-"):
                names = self.list_commands(ctx)
                refuse(unknown("command", args[0], names))
        return super().resolve_command(ctx, args)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Leave out the usage that click shows above what is wrong with it."""
    try:
        yield
    except getattr(click.exceptions, "NoArgsIsHelpError", ()):
        raise
    except click.UsageError as error:
        raise BadInput(" ".join(error.format_message().split())) from error


class WholeNumber(click.ParamType):
    """Integers of a range, also in the notation 1e5."""

    name = "integer"

    def __init__(self, *limits: int) -> None:
        self.kind = whole(*limits)

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> int:
        number = value
        if isinstance(value, str):
            for read in (float, int):
                with contextlib.suppress(ValueError):
                    number = read(value)
        converted = self.kind.convert(number)
        if converted is None:
            self.fail(f"it must be {self.kind.expected}. Received: {value!r}")
        return converted


#: What agents take.
SEED = WholeNumber(0, 2**31 - 1)


def start(verbosity: int) -> None:
    """Set up what TensorFlow and kerasrl say; must run before the first import."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if verbosity == 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        quiet_import("tensorflow")
    show_messages(verbosity)


def run(command: Callable[[], None], verbosity: int) -> None:
    """Run a command's body; an error becomes one line, a traceback only with -vv.

    The line says so where the reason may lie elsewhere than in the input.
    """
    try:
        command()
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except Exception as error:
        if verbosity >= 2:
            traceback.print_exc()
        # Bad input is the user's to mend; anything else is a failed run.
        bad_input = isinstance(error, ValueError | TypeError | ImportError | OSError)
        message = first_line(error)
        if not bad_input:
            message = f"{type(error).__name__}: {message}"
            if verbosity < 2:
                message += " (-vv shows where)"
        raise (BadInput if bad_input else FailedRun)(message) from error


def load_agent(path: str) -> Any:
    """The agent of a checkpoint; for a directory, names the checkpoints in it."""
    if not Path(path).is_file():
        hint = ""
        if Path(path).is_dir():
            found = sorted(each.name for each in Path(path).glob("checkpoint-*"))
            found = [each for each in found if not each.endswith(".json")]
            if found:
                hint = f" It is a directory with {', '.join(found)}: name one of them."
        refuse(f"There is no checkpoint at {path}.{hint}")
    return importlib.import_module("kerasrl.multi_agent").load(path)


def recorded_env(checkpoint: str, agent: Any) -> str | None:
    """The environment that a checkpoint names, unless that is code to import."""
    env = agent.env_name
    if env is not None and ":" in env:
        registration = importlib.import_module("kerasrl.envs.registration")
        if env not in registration.registered_envs():
            refuse(
                f"{checkpoint} names the environment {env!r}, a module to import. If "
                f"you trust it, say so: --env {env}"
            )
    return env


def check_algorithm(checkpoint: str, agent: Any, run_name: str | None) -> None:
    """Refuse a checkpoint of another algorithm than the one named."""
    if run_name is None:
        return
    if import_algorithm(find_algorithm(run_name)) is not type(agent):
        refuse(
            f"{checkpoint} is a checkpoint of {type(agent).__name__}, not of "
            f"{run_name}."
        )


def run_params(checkpoint: str) -> dict[str, Any]:
    """What `params.json` beside a checkpoint says about `fit`; empty without one."""
    try:
        text = (Path(checkpoint).parent / "params.json").read_text(encoding="utf-8")
        params = json.loads(text)
        settings = dict(params.get("settings") or {})
        for again in params.get("resumed", ()):
            settings.update(again.get("settings") or {})
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return settings


def show_evaluation(result: dict[str, float]) -> None:
    """Print the outcome of an evaluation on one line."""
    click.echo(
        f"Evaluation over {int(result['episodes'])} episodes: "
        f"return {result['return_mean']:.1f} +- {result['return_std']:.1f}, "
        f"length {result['length_mean']:.1f}"
    )


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: options of every command."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            "verbosity",
            count=True,
            help="Say what happens, and show TensorFlow's messages; -vv says more and "
            "shows tracebacks.",
        ),
        click.option(
            "--import",
            "modules",
            multiple=True,
            metavar="MODULE",
            help="Import a module first, one that registers environments. Repeatable.",
        ),
    ):
        function = option(function)
    return function


def choose(
    what: str, argument: str | None, option: str | None, file: str | None
) -> str | None:
    """The argument, the option, or what the file says; not two that differ."""
    if argument is not None and option is not None and argument != option:
        refuse(f"{what} is given twice: {argument!r} and {option!r}.")
    return first_given(argument, option, file)


def first_given(*values: Any) -> Any:
    """The first that is not `None`."""
    return next((value for value in values if value is not None), None)
