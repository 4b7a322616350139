"""`kerasrl data info|convert|merge`."""

from collections.abc import Iterable
from typing import Any

import click

from kerasrl.cli.common import Command, Group, common_options, run, start
from kerasrl.experiment import import_module, refuse

KINDS = click.Choice(["kerasrl", "json", "minari"])


@click.group(cls=Group)
def data() -> None:
    """Look at data sets, convert and merge them."""


def reading_options(function: Any) -> Any:
    """Decorator: options of every command that reads data sets."""
    for option in (
        common_options,
        click.option(
            "--skip-damaged",
            is_flag=True,
            help="Leave damaged files, episodes and lines out, and say how many.",
        ),
        click.option(
            "--actions-normalized",
            is_flag=True,
            help="Box actions of other libraries are kept as numbers from -1 to 1.",
        ),
        click.option(
            "--env",
            "env",
            metavar="ENV",
            help="Whose spaces lines of JSON are of, which do not say them.",
        ),
    ):
        function = option(function)
    return function


@data.command(cls=Command)
@click.argument("path")
@reading_options
def info(path: str, verbosity: int, **options: Any) -> None:
    """Show what the data set at PATH is like."""
    start(verbosity)
    run(lambda: show(read(path, **options)), verbosity)


@data.command(cls=Command)
@click.argument("source")
@click.argument("target")
@click.option("--to", "kind", type=KINDS, default="kerasrl", show_default=True)
@reading_options
def convert(
    source: str, target: str, kind: str, verbosity: int, **options: Any
) -> None:
    """Write the data set at SOURCE into the new directory TARGET."""
    start(verbosity)
    run(lambda: write([source], target, kind, options), verbosity)


@data.command(cls=Command)
@click.argument("target")
@click.argument("sources", nargs=-1, required=True)
@click.option("--to", "kind", type=KINDS, default="kerasrl", show_default=True)
@reading_options
def merge(
    target: str, sources: tuple[str, ...], kind: str, verbosity: int, **options: Any
) -> None:
    """Write the data sets at SOURCES, one or more, into the new directory TARGET."""
    start(verbosity)
    run(lambda: write(sources, target, kind, options), verbosity)


def read(
    path: str,
    skip_damaged: bool,
    actions_normalized: bool,
    env: str | None,
    modules: Iterable[str],
) -> Any:
    """Open a data set as the options say."""
    from kerasrl import offline

    for module in modules:
        import_module(module)
    found: dict[str, Any] = {"actions_normalized": actions_normalized}
    if env is not None:
        from kerasrl.envs import make_envs

        envs = make_envs(env, num_envs=1)
        found["observation_space"] = envs.observation_space
        found["action_space"] = envs.action_space
        envs.close()
    return offline.load(path, damaged="skip" if skip_damaged else "refuse", **found)


def write(
    sources: Iterable[str], target: str, kind: str, options: dict[str, Any]
) -> None:
    """Write data sets into one, and say what it has."""
    from kerasrl import offline

    datasets = [read(source, **options) for source in sources]
    if not datasets:
        refuse("Which data sets? Name at least one.")
    offline.merge(datasets, target, kind)
    episodes = sum(each.num_episodes for each in datasets)
    steps = sum(each.num_steps for each in datasets)
    click.echo(f"Wrote {episodes:,} episodes, {steps:,} steps to {target}")


def show(dataset: Any) -> None:
    """Print what a data set is like, a line for each."""
    found = dataset.statistics()
    ends = (
        f"{found[f'num_{name}']:,} {name}"
        for name in ("terminated", "truncated", "unfinished")
    )
    lines = {
        "Observations": dataset.observation_space,
        "Actions": dataset.action_space,
        "Episodes": f"{found['num_episodes']:,}: {', '.join(ends)}",
        "Steps": f"{found['num_steps']:,}, {dataset.nbytes / 1e6:,.1f} MB",
        "Return": f"{found['return_mean']:.1f} +- {found['return_std']:.1f}, from "
        f"{found['return_min']:.1f} to {found['return_max']:.1f}",
        "Length": f"{found['length_mean']:.1f} on average",
        "Extras": ", ".join(dataset.extras) or "none",
        **{
            name.replace("_", " ").capitalize(): x
            for name, x in dataset.metadata.items()
        },
        "Damaged": f"{dataset.num_damaged} files or lines left out",
    }
    for name, value in lines.items():
        click.echo(f"{name + ':':<18} {value}")
