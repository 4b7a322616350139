"""`kerasrl list` and `kerasrl stack`."""

import inspect
from collections.abc import Iterable
from typing import Any

import click

from kerasrl.cli.common import (
    Command,
    WholeNumber,
    algorithms,
    common_options,
    import_module,
    quiet_tensorflow,
    run,
)
from kerasrl.experiment import refuse


@click.command("list", cls=Command)
@click.argument(
    "what", required=False, type=click.Choice(["algorithms", "environments"])
)
@common_options
def list_command(what: str | None, verbosity: int, modules: Iterable[str]) -> None:
    """List the algorithms and the environments that are known by name."""
    quiet_tensorflow(verbosity)

    def show() -> None:
        for module in modules:
            import_module(module)
        if what != "environments":
            show_algorithms()
        if what != "algorithms":
            show_environments()

    run(show, verbosity)


def show_algorithms() -> None:
    """Print the agents, with what the first line of each says of it."""
    click.echo("Algorithms:")
    for name, cls in sorted(algorithms().items()):
        click.echo(f"  {name:<12} {(inspect.getdoc(cls) or '').splitlines()[0]}")


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


@click.command(cls=Command)
@click.argument("pid", type=WholeNumber(1))
def stack(pid: int) -> None:
    """Print what process PID, which trains, and its workers are doing.

    Each of them writes the stacks of its threads, innermost call first. It goes on
    undisturbed, even if it hangs.
    """
    from kerasrl.rollouts.workers import stacks

    for each in (pid, *stacks.workers_of(pid)):
        text = stacks.read(each)
        if text is None:
            refuse(
                f"Process {each} does not train with kerasrl here, or not as this user."
            )
        click.echo(f"{'Learner' if each == pid else 'Worker'}, process {each}:\n{text}")
