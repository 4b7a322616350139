"""`kerasrl tune` and `kerasrl launch`, and files of `kerasrl train` with grids."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kerasrl.cli.common import (
    SEED,
    Command,
    FailedRun,
    WholeNumber,
    choose,
    common_options,
    run,
    start,
)
from kerasrl.experiment import (
    import_module,
    parse_assignments,
    parse_json,
    read_experiments,
    refuse,
)
from kerasrl.tuning import experiments, planning
from kerasrl.tuning.queue_file import QueueFile
from kerasrl.tuning.results import METRIC, Results
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.spaces import read_spaces
from kerasrl.tuning.table import PROGRESS

#: What `--progress` of `kerasrl train` means to a sweep.
_PROGRESS_OF_TRAIN = {"bar": "table", "lines": "lines", "none": "none"}
#: Options of `kerasrl train` that are about one training.
_OF_ONE = (
    *("resume", "elastic", "distribute", "data", "output", "tuned"),
    *("offline", "offline_batch_size", "offline_ratio"),
)


class Seeds(click.ParamType):
    """How many seeds, or which: 3 or 0,1,5."""

    name = "seeds"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if "," not in value:
            return WholeNumber(1).convert(value, param, ctx)
        return [SEED.convert(each, param, ctx) for each in value.split(",") if each]


def sweep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: options of the commands that run trials."""
    for option in (
        click.option(
            "--dry-run", is_flag=True, help="Show the trials, and run nothing."
        ),
        click.option(
            "--progress",
            type=click.Choice(PROGRESS),
            default="table",
            show_default=True,
            help="How to show trials: a live table (in a pipe, a line for each event), "
            "lines, or not.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["max", "min"]),
            default="max",
            show_default=True,
            help="Which values of the metric are good.",
        ),
        click.option(
            "--metric",
            default=METRIC,
            show_default=True,
            help="The result that counts.",
        ),
        click.option(
            "--resources",
            metavar="JSON",
            help="How much there is of what trials ask for besides cores and GPUs.",
        ),
        click.option(
            "--max-failures",
            "retries",
            type=WholeNumber(0),
            help="Crashes of a trial that are followed by another attempt. Default: "
            "what its experiment says, or 1.",
        ),
        click.option(
            "--seeds", type=Seeds(), help="Seeds of each setting: 3, or 0,1,5."
        ),
        click.option("--logdir", metavar="DIR", help="Directory of the sweep."),
        click.option(
            "--slots",
            type=WholeNumber(1),
            help="Trials at once. Default: as many as there are cores for.",
        ),
    ):
        function = option(function)
    return function


@click.command(cls=Command)
@click.argument("algorithm", required=False, metavar="[ALGO]")
@click.argument("environment", required=False, metavar="[ENV]")
@click.option(
    "-f", "--file", metavar="FILE.yaml", help="Experiments in RLlib's layout."
)
@click.option("--steps", type=WholeNumber(1), help="Environment steps of each trial.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A hyperparameter, a grid or a distribution, such as "
    "gamma='{grid_search: [0.98, 0.99]}' or "
    "learning_rate='{loguniform: [1e-5, 1e-2]}'. Repeatable.",
)
@click.option("--config", metavar="JSON", help="Hyperparameters as a JSON object.")
@click.option("--stop", metavar="JSON", help="Stop criteria, as for `kerasrl train`.")
@click.option(
    "--num-samples",
    type=WholeNumber(1),
    help="Draws from distributions, for each combination of the grids.",
)
@click.option(
    "--num-envs", type=WholeNumber(1), help="Environments at once, in a trial."
)
@click.option("--num-workers", type=WholeNumber(0), help="Processes of a trial's.")
@click.option("--env-config", metavar="JSON", help="Arguments of the environment.")
@click.option("--checkpoint-freq", type=WholeNumber(0), help="As for `kerasrl train`.")
@click.option("--eval-freq", type=WholeNumber(0), help="As for `kerasrl train`.")
@click.option("--eval-episodes", type=WholeNumber(1), help="As for `kerasrl train`.")
@click.option(
    "--seed",
    type=SEED,
    default=0,
    help="Seed of what is drawn, also by --scheduler and --search. Default: 0.",
)
@click.option(
    "--scheduler",
    metavar="NAME",
    help="What ends trials early: median, halving (successive) or pbt (population).",
)
@click.option(
    "--scheduler-config", metavar="JSON", help="Arguments of the scheduler's class."
)
@click.option("--search", metavar="NAME", help="What suggests settings: optuna.")
@click.option(
    "--search-config", metavar="JSON", help="Arguments of the search's class."
)
@sweep_options
@common_options
def tune(verbosity: int, **options: Any) -> None:
    """Train ALGO on ENV with many settings and seeds, several at once.

    \b
    kerasrl tune PPO CartPole-v1 --set gamma='{grid_search: [0.98, 0.99]}' --seeds 3
    kerasrl tune -f grid.yaml --slots 2

    The same command again skips what has finished, and goes on with the rest.
    """
    start(verbosity)
    run(lambda: tune_command(**options), verbosity)


def tune_command(seed: int, **options: Any) -> None:
    """Put together what files and options say, and run it."""
    found = read_experiments(options["file"]) if options["file"] else {}
    run_name, env = options["algorithm"], options["environment"]
    if not found:
        if run_name is None:
            refuse("Which algorithm? `kerasrl tune ALGO ENV`, or -f FILE.yaml.")
        name = "_".join(filter(None, (run_name.rpartition(":")[2], env)))
        found = {planning.file_name(name): {}}
    sweep(
        with_options(found, run_name, env, options),
        {**options, "seed": seed},
        scheduler=make_scheduler({**options, "seed": seed}),
        search=make_search({**options, "seed": seed}),
    )


def train_sweep(found: dict[str, dict[str, Any]], options: dict[str, Any]) -> None:
    """Run the experiments of a file that `kerasrl train` was given.

    Args:
        found: dict, what `read_experiments` returned.
        options: dict of the options of `kerasrl train`.
    """
    for name in _OF_ONE:
        if options[name]:
            refuse(
                f"--{name.replace('_', '-')} is for one training, and "
                f"{options['file']} holds several."
                + (
                    " The same command again goes on with a sweep."
                    if name in ("resume", "elastic")
                    else ""
                )
            )
    if options["eager"]:
        found = {name: {**each, "eager": True} for name, each in found.items()}
    run_name = choose("ALGO", options["algorithm"], options["run_name"], None)
    env = choose("ENV", options["environment"], options["env_name"], None)
    own_seed, options = options["seed"], {**options, "seed": 0}
    found = with_options(found, run_name, env, options)
    if own_seed is not None:
        for each in found.values():
            each["config"]["seed"] = own_seed
    options["progress"] = _PROGRESS_OF_TRAIN[options["progress"]]
    defaults = {"seeds": None, "retries": None, "metric": METRIC, "mode": "max"}
    sweep(found, {**defaults, "resources": None, **options})


def with_options(
    found: dict[str, dict[str, Any]],
    run_name: str | None,
    env: str | None,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Experiments, in which options go before what they say."""
    config = parse_json("--config", options["config"])
    config.update(parse_assignments(options["assignments"]))
    for name in ("num_envs", "num_workers"):
        if options[name] is not None:
            config[name] = options[name]
    if options["env_config"] is not None:
        config["env_config"] = parse_json("--env-config", options["env_config"])
    entries = {
        "run": run_name,
        "env": env,
        "stop": parse_json("--stop", options["stop"]) or None,
    }
    for name in (
        *("steps", "num_samples", "checkpoint_freq", "seeds"),
        *("eval_freq", "eval_episodes"),
    ):
        entries[name] = options.get(name)
    entries = {name: value for name, value in entries.items() if value is not None}
    for name, each in found.items():
        if options["eval_episodes"] and not {**each, **entries}.get("eval_freq"):
            refuse(
                f"--eval-episodes is for evaluations while training, and {name} asks "
                "for none: give --eval-freq."
            )
    return {
        name: {**each, **entries, "config": {**(each.get("config") or {}), **config}}
        for name, each in found.items()
    }


def sweep(found: dict[str, Any], options: dict[str, Any], **deciders: Any) -> None:
    """Run experiments, show what came out, and end with 1 if some of it failed."""
    for module in options["modules"]:
        # Misspelt ones are refused at once.
        import_module(module)
    results = experiments.run_experiments(
        found,
        slots=options["slots"],
        directory=options["logdir"],
        metric=options["metric"],
        mode=options["mode"],
        retries=options["retries"],
        seeds=options["seeds"],
        seed=options["seed"],
        resources=parse_json("--resources", options["resources"]),
        modules=options["modules"],
        progress=options["progress"],
        dry_run=options["dry_run"],
        **deciders,
    )
    conclude(results, options)


def conclude(results: Results, options: dict[str, Any]) -> None:
    """Say what came out, where it is, and how to see more of it."""
    if options["dry_run"]:
        for trial in results.trials:
            click.echo(f"{trial.status:<9} {trial.directory}")
        click.echo(f"{len(results.trials)} trials. Nothing was run.")
        return
    click.echo(f"Summary: {results.directory / 'summary.csv'}")
    click.echo(f"Compare: kerasrl results {results.directory}")
    if results.failed:
        names = ", ".join(trial.name for trial in results.failed)
        raise FailedRun(f"{len(results.failed)} trials failed: {names}")


@click.command(cls=Command)
@click.argument("file", metavar="QUEUE.yaml")
@sweep_options
@common_options
def launch(file: str, verbosity: int, **options: Any) -> None:
    """Run the experiments of QUEUE.yaml, which may grow meanwhile.

    Experiments that are added to the file, in RLlib's layout, join the end of the
    queue. The command ends when all of them have.
    """
    start(verbosity)
    run(lambda: launch_command(file, **options), verbosity)


def launch_command(file: str, **options: Any) -> None:
    """Run what is in the file by now, and what comes into it."""
    for module in options["modules"]:
        import_module(module)
    read_experiments(file)
    root = experiments.choose_root({Path(file).stem: {}}, options["logdir"])
    slots = Slots(options["slots"], parse_json("--resources", options["resources"]))
    queue = QueueFile(
        file,
        root,
        say=lambda text: click.echo(text) if options["progress"] != "none" else None,
        check=lambda trials: planning.check(trials, slots),
        seeds=options["seeds"],
        modules=options["modules"],
    )
    with experiments.usage_as_value_errors():
        results = experiments.launch(
            queue.more(False) if options["dry_run"] else [],
            root,
            slots,
            more=queue.more,
            is_awaited=lambda: queue.is_broken,
            metric=options["metric"],
            mode=options["mode"],
            retries=options["retries"],
            progress=options["progress"],
            dry_run=options["dry_run"],
        )
    conclude(results, options)


def make_scheduler(options: dict[str, Any]) -> Any:
    """The scheduler of `--scheduler`, or None."""
    from kerasrl import tuning

    classes = {
        "median": "MedianStopping",
        "halving": "SuccessiveHalving",
        "pbt": "PopulationBasedTraining",
    }
    return make_named(tuning, classes, "scheduler", options)


def make_search(options: dict[str, Any]) -> Any:
    """The searcher of `--search`, or None."""
    from kerasrl import tuning

    return make_named(tuning, {"optuna": "OptunaSearch"}, "search", options)


def make_named(
    module: Any, classes: dict[str, str], what: str, options: dict[str, Any]
) -> Any:
    """An object of a class by its short name, with arguments as JSON says them."""
    name, text = options[what], options[f"{what}_config"]
    arguments = read_spaces(parse_json(f"--{what}-config", text))
    if name is None:
        if text is not None:
            refuse(f"--{what}-config is for --{what}, which is not given.")
        return None
    if name not in classes:
        refuse(f"Unknown {what} {name!r}. Expected one of: {', '.join(classes)}.")
    cls = getattr(module, classes[name])
    known = inspect.signature(cls).parameters
    shared = {x: options[x] for x in ("metric", "mode", "seed") if x in known}
    return cls(**{**shared, **arguments})
