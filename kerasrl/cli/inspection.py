"""`kerasrl list`, `kerasrl tuned` and `kerasrl stack`."""

import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

import click

from kerasrl.cli.common import (
    Command,
    WholeNumber,
    common_options,
    run,
    start,
)
from kerasrl.experiment import catalog, import_module, named_algorithm, refuse
from kerasrl.experiment.tuned_settings import TunedSettings, all_tuned


@click.command("list", cls=Command)
@click.argument("what", required=False, metavar="[algorithms|environments|ALGO]")
@common_options
def list_command(what: str | None, verbosity: int, modules: Iterable[str]) -> None:
    """List the algorithms and the environments that are known by name.

    \b
    kerasrl list PPO    the settings of an algorithm and of its policy
    """
    start(verbosity)

    def show() -> None:
        for module in modules:
            import_module(module)
        if what not in (None, "algorithms", "environments"):
            show_settings(str(what))
            return
        if what != "environments":
            show_algorithms()
        if what != "algorithms":
            show_environments()

    run(show, verbosity)


def show_algorithms() -> None:
    """Print the agents, with what the first line of each says of it."""
    click.echo("Algorithms:")
    for name, cls in catalog.algorithms().items():
        click.echo(f"  {name:<12} {cls.summary}")
    click.echo("`kerasrl list PPO` shows the settings of one.")


def show_settings(name: str) -> None:
    """Print the settings of an algorithm and of its policy, one a line."""
    algorithm = named_algorithm(name, ("algorithms", "environments"))
    policy = algorithm.default_policy
    click.echo(f"{algorithm.__name__}: {algorithm.summary}")
    click.echo("\nSettings, given as --set NAME=VALUE or as arguments in Python:")
    show_arguments(algorithm.arguments())
    click.echo(f"\nOptimizer: {algorithm.default_optimizer}")
    for text in (
        "learning_rate=VALUE    its learning rate, a number or a schedule",
        "optimizer=NAME         another of Keras's",
        "optimizer.NAME=VALUE   another of its arguments",
    ):
        click.echo(f"  {text}")
    click.echo(f"\nPolicy: {policy.__name__}, given as --set policy.NAME=VALUE:")
    show_arguments(policy.arguments(inherited=False))


def show_arguments(arguments: dict[str, catalog.Argument]) -> None:
    """Print arguments, their defaults and what they mean.

    One line each; a terminal that is narrower has the rest below it.
    """
    texts = {
        name if each.default is None else f"{name}={each.default}": each.meaning
        for name, each in arguments.items()
    }
    margin = max(map(len, texts), default=0) + 4
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    for text, meaning in texts.items():
        lines = textwrap.wrap(meaning, max(columns - margin, 20)) or [""]
        click.echo(f"  {text}".ljust(margin) + f"\n{' ' * margin}".join(lines))


def show_environments() -> None:
    """Print the environments known to kerasrl and to gymnasium."""
    import gymnasium

    from kerasrl.envs.make import missing_dependency
    from kerasrl.envs.registration import registered_envs

    click.echo("Environments registered with kerasrl:")
    for name in registered_envs():
        click.echo(f"  {name}")
    click.echo(
        "Environments registered with gymnasium (latest versions "
        "of those whose packages are installed):"
    )
    latest: dict[tuple[str | None, str], Any] = {}
    for spec in gymnasium.registry.values():
        if missing_dependency(spec) is not None:
            continue
        key = (spec.namespace, spec.name)
        if key not in latest or (spec.version or 0) >= (latest[key].version or 0):
            latest[key] = spec
    for spec in sorted(latest.values(), key=lambda each: each.id):
        click.echo(f"  {spec.id}")


@click.command("tuned", cls=Command)
@click.argument("algorithm", required=False, metavar="[ALGO]")
@common_options
def tuned_command(
    algorithm: str | None, verbosity: int, modules: Iterable[str]
) -> None:
    """List tuned settings, of `kerasrl train ALGO ENV --tuned`, and what they reached.

    What was reached is the mean over seeds and the worst of them, in the learning
    benchmark. Steps of algorithms that learn from data are gradient steps.
    """
    start(verbosity)

    def show() -> None:
        for module in modules:
            import_module(module)
        name = None if algorithm is None else named_algorithm(algorithm).__name__
        found = [each for each in all_tuned() if name in (None, each.algorithm)]
        if not found:
            refuse(f"There are no tuned settings of {name}. `kerasrl tuned` lists all.")
        for each in found:
            data = "" if each.data is None else f"; from {each.data}"
            click.echo(
                f"{each.algorithm:<9} {each.env:<20} {each.steps:>9,} steps  "
                f"{reached_text(each)}{data}"
            )

    run(show, verbosity)


def reached_text(tuned: TunedSettings) -> str:
    """What tuned settings reached, in a few words."""
    found = tuned.reached
    if found is None:
        return f"not measured; {tuned.source}"
    return (
        f"{found['measure']} {found['mean']:g}, worst of {found['seeds']} seeds "
        f"{found['worst']:g}"
    )


@click.command(cls=Command)
@click.argument("pid", type=WholeNumber(1))
def stack(pid: int) -> None:
    """Print what process PID, which trains, and its workers are doing.

    Each of them writes the stacks of its threads, innermost call first. It goes on
    undisturbed, even if it hangs.
    """
    from kerasrl.workers import stacks

    for each in (pid, *stacks.workers_of(pid)):
        text = stacks.read(each)
        if text is None:
            refuse(
                f"Process {each} does not train with kerasrl here, or not as this user."
            )
        click.echo(f"{'Learner' if each == pid else 'Worker'}, process {each}:\n{text}")
