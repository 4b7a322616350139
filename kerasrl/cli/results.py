"""`kerasrl results`."""

import math
from pathlib import Path
from typing import Any

import click

from kerasrl.cli.common import Command, run, start
from kerasrl.display import clock, count, number
from kerasrl.tuning.results import METRIC, Results

PICTURE = "learning_curves.png"


@click.command("results", cls=Command)
@click.argument("directory", metavar="DIR")
@click.option(
    "--metric", default=METRIC, show_default=True, help="The result that counts."
)
@click.option(
    "--mode",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Which of its values are good.",
)
@click.option(
    "--plot",
    "picture",
    metavar="FILE.png",
    help=f"Where to draw learning curves (extra `plot`). Default: {PICTURE} in DIR.",
)
@click.option(
    "--most",
    type=int,
    default=8,
    show_default=True,
    help="How many settings are drawn, the best ones.",
)
@click.option("-v", "--verbose", "verbosity", count=True, help="-vv shows tracebacks.")
def results_command(verbosity: int, **options: Any) -> None:
    """Compare the trials of a sweep in DIR, finished or not.

    Prints a row for each setting, with its mean over seeds and half of the 95 %
    confidence interval, and draws their learning curves.
    """
    start(verbosity)
    run(lambda: show(**options), verbosity)


def show(
    directory: str, metric: str, mode: str, picture: str | None, most: int
) -> None:
    """Print the table, and draw the picture if that can be."""
    found = Results.load(directory, metric, mode)
    rows = found.compare()
    click.echo("\n".join(table(rows, metric)))
    for trial in found.failed:
        reason = trial.error.partition("\n")[0]
        click.echo(f"Failed: {trial.directory}: {reason}")
    place = found.directory / PICTURE if picture is None else Path(picture)
    try:
        path = found.plot(place, most=most)
    except ImportError as error:
        if picture is not None:
            raise
        click.echo(f"No picture: {error}", err=True)
        return
    click.echo(f"Learning curves: {path}")


def table(rows: list[dict[str, Any]], metric: str) -> list[str]:
    """Lines of a table, whose columns are as wide as they need to be."""
    lines = [["setting", "seeds", metric, "+-", "steps", "time", "status"]]
    for row in rows:
        half = row["half_width"]
        lines.append(
            [
                row["setting"],
                str(row["seeds"]),
                number(row["mean"]),
                "-" if math.isnan(half) else number(half),
                count(row["env_steps"]),
                clock(row["seconds"]),
                row["status"],
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            # Numbers to the right.
            cell.rjust(width) if 0 < index < len(line) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
