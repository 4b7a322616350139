"""Experiments as users run them."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from kerasrl import checks
from kerasrl.tuning import planning
from kerasrl.tuning.results import METRIC, Results
from kerasrl.tuning.runner import Runner
from kerasrl.tuning.schedulers import Scheduler
from kerasrl.tuning.searchers import Searcher
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.suggestions import Suggestions
from kerasrl.tuning.table import PROGRESS, Table
from kerasrl.tuning.trial import Trial

try:
    import fcntl
except ImportError:  # Not on Windows: nobody notices a second launcher there.
    fcntl = None  # type: ignore[assignment]

#: Where experiments live that do not say.
HOME = "~/kerasrl_results"


def run_experiments(
    experiments: dict[str, Any],
    *,
    slots: int | None = None,
    directory: str | Path | None = None,
    scheduler: Scheduler | None = None,
    search: Searcher | None = None,
    metric: str = METRIC,
    mode: str = "max",
    retries: int | None = None,
    seeds: int | Sequence[int] | None = None,
    seed: int = 0,
    resources: dict[str, float] | None = None,
    modules: Sequence[str] = (),
    progress: str = "table",
    dry_run: bool = False,
) -> Results:
    """Train with many settings and seeds, several at once, each in a process.

    Called again with the same directory, it skips what has finished, and goes on with
    the rest from the last checkpoints; also after the launcher was killed.

    Args:
        experiments: dict, one experiment in RLlib's shape, or several by their names.
            Entries: `run` (an algorithm, a class or a function of a
            `kerasrl.tuning.Context`), `env`, `stop` (dict from results to numbers),
            `config` (hyperparameters, with `grid_search` and distributions),
            `num_samples` (times the product of the grids, each with draws of its own),
            `steps`, `seeds`, `checkpoint_freq` (iterations, default 10),
            `max_failures`, `local_dir`, `resources_per_trial` (dict of `cpu`, `gpu`
            and others), `modules`, `eval_freq` and `eval_episodes`.
        slots: int or None, how many trials run at once. None: as many as there are
            cores for, `1 + num_workers` a trial.
        directory: path or None, for all files. None: `local_dir/<name>`, or
            `~/kerasrl_results/<name>`.
        scheduler: `Scheduler` or None, decides which trials go on.
        search: `Searcher` or None, suggests settings, in the place of grids.
        metric: str, the result that counts in tables.
        mode: "max" or "min", which of its values are good.
        retries: int or None, crashes of a trial that are followed by another attempt,
            from its last checkpoint. None: the experiment's `max_failures`, or 1.
        seeds: int or list of ints, the seeds of each setting: 3 stands for 0, 1 and 2.
        seed: int from 0, seed of what is drawn from distributions.
        resources: dict from names to how much there is of what trials ask for besides
            cores and GPUs.
        modules: names of modules to import first, which register environments.
        progress: "table" (live in a terminal, else as "lines"), "lines" (one for each
            event) or "none".
        dry_run: bool, whether to make the list of trials only.

    Returns:
        `Results`. Trials that failed are in `results.failed`.

    Raises:
        ValueError, TypeError: for experiments that cannot be, trials on disk that are
            others, or a directory in which another launcher runs.

    Example:

    ```python
    from kerasrl.tuning import grid_search, run_experiments

    results = run_experiments(
        {
            "run": "PPO",
            "env": "CartPole-v1",
            "stop": {"env_steps": 20_000},
            "config": {"gamma": grid_search([0.9, 0.99])},
        },
        seeds=3,
        directory="sweep",
    )
    results.best().settings  # {"gamma": 0.99}
    ```
    """
    with usage_as_value_errors():
        named = by_name(experiments)
        read = {
            name: planning.read(name, each, modules) for name, each in named.items()
        }
        root = choose_root(read, directory)
        if retries is not None:
            retries = checks.positive_integer("retries", retries, zero=True)
        several = len(read) > 1
        places = {x: root / planning.file_name(x) if several else root for x in read}
        more = None
        machine = Slots(slots, resources)
        if search is None:
            trials = planning.plan(read, places, seeds, seed)
        else:
            suggestions = Suggestions(read, root, search, seeds, machine)
            trials, more = [], suggestions.more
        return launch(
            trials,
            root,
            machine,
            scheduler=scheduler,
            search=search,
            more=more,
            metric=metric,
            mode=mode,
            retries=retries,
            progress=progress,
            dry_run=dry_run,
        )


def launch(
    trials: list[Trial],
    root: Path,
    slots: Slots,
    *,
    scheduler: Scheduler | None = None,
    search: Searcher | None = None,
    more: Callable[[bool], list[Trial]] | None = None,
    metric: str = METRIC,
    mode: str = "max",
    is_awaited: Callable[[], bool] | None = None,
    retries: int | None = None,
    progress: str = "table",
    dry_run: bool = False,
) -> Results:
    """Run trials that were made.

    Args:
        trials, root, more, is_awaited: as for `Runner`.
        slots: `Slots`.
        scheduler, search, metric, mode, retries, progress, dry_run: as for
            `run_experiments`.
    """
    checks.choice("progress", progress, PROGRESS)
    results = Results([], root, metric, mode)
    # One list: the runner adds to it.
    results.trials = trials
    planning.check(trials, slots)
    if dry_run:
        return results

    root.mkdir(parents=True, exist_ok=True)
    with locked(root), Table(results, progress) as table:
        if trials:
            table.begin()
        Runner(
            trials,
            root,
            slots,
            scheduler=scheduler,
            search=search,
            more=more,
            is_awaited=is_awaited,
            retries=retries,
            metric=metric,
            say=table.say,
            on_change=results.write,
            on_tick=table.update,
        ).run()
        results.write()
    return results


def by_name(experiments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Experiments by their names, also where there is one without a name."""
    checks.mapping("experiments", experiments)
    if not experiments:
        raise ValueError("experiments is empty: give at least one, with run and env.")
    run = experiments.get("run")
    # An experiment may be called "run", too.
    if "run" in experiments and (not isinstance(run, dict) or "grid_search" in run):
        name = run if isinstance(run, str) else getattr(run, "__name__", "experiment")
        env = experiments.get("env")
        name = name.rpartition(":")[2]
        name = "_".join([name, env] if isinstance(env, str) else [name])
        return {planning.file_name(name): experiments}
    for name, each in experiments.items():
        if not isinstance(each, dict):
            raise TypeError(
                f"Received the experiment {name!r} as {each!r}. Expected a dict with "
                "run, env, stop and config."
            )
    return experiments


def choose_root(
    experiments: dict[str, dict[str, Any]], directory: str | Path | None
) -> Path:
    """The directory of all trials, an absolute path."""
    if directory is not None:
        root = Path(directory)
    else:
        homes = {each.get("local_dir") or HOME for each in experiments.values()}
        if len(homes) > 1:
            raise ValueError(
                f"The experiments have different local_dir: {', '.join(sorted(homes))}."
                " Give directory, one for all."
            )
        root = Path(homes.pop()) / planning.file_name("+".join(experiments))[:100]
    root = root.expanduser().absolute()
    for each in (root, *root.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"{root} cannot be a directory: {each} is a file.")
    return root


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Refuse a directory in which another launcher runs; also a killed one does not."""
    with open(root / ".lock", "w", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"Another launcher runs trials in {root}. Wait for it, or choose "
                    "another directory."
                ) from None
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def usage_as_value_errors() -> Iterator[None]:
    """Have what refuses a command's input raise what Python code expects."""
    try:
        yield
    except click.UsageError as error:
        raise ValueError(error.format_message()) from error
