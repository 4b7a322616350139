"""Trials of experiments: which there are, where they live, in which order they run."""

import copy
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kerasrl import checks
from kerasrl.experiment import find_algorithm, read_stop, split_config
from kerasrl.experiment.reading import check_experiment
from kerasrl.experiment.resources import Resources, split_resources
from kerasrl.tuning.domains import Domain, GridSearch, leaves
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.spaces import read_spaces, variants
from kerasrl.tuning.trial import FILE, Trial

#: Entries of an experiment that trials' processes read, `needs_of`, or the launcher.
_OPTIONS = (
    "checkpoint_freq",
    "steps",
    "modules",
    "eager",
    "eval_freq",
    "eval_episodes",
    "resources_per_trial",
    "max_failures",
)
#: What a single training has no use for.
_ONLY_OF_SWEEPS = ("seeds", "max_failures", "resources_per_trial", "modules")
#: Characters of a directory's name, of which file systems take 255.
_LONGEST = 150


def plan(
    experiments: dict[str, dict[str, Any]],
    directories: dict[str, Path],
    seeds: int | Sequence[int] | None = None,
    seed: int = 0,
) -> list[Trial]:
    """The trials of experiments, in seed-major order.

    Each setting gets its first seed before any gets its second, so that a sweep that
    is ended early has compared all of them.

    Args:
        experiments: dict from names to what `read` returned.
        directories: dict from the same names to where their trials live.
        seeds: as for `run_experiments`, for experiments that do not say.
        seed: int, seed of what is drawn from distributions.

    Returns:
        list of `Trial`. Those that are on disk already have their state.

    Raises:
        ValueError: for what cannot be, or trials on disk that are other ones.
    """
    rounds: list[tuple[int, Trial]] = []
    for name, experiment in experiments.items():
        given = first(experiment.get("seeds"), seeds)
        numbers: dict[str, int] = {}
        counts: dict[str, int] = {}
        for settings, tag in settings_of(experiment, seed):
            own_seed = settings.pop("seed", None)
            key = json.dumps(settings, sort_keys=True, default=str)
            number = numbers.setdefault(key, len(numbers))
            again = counts[key] = counts.get(key, -1) + 1
            # With a seed of its own, it may come again with another.
            pair = f"{key} {own_seed}"
            same = counts[pair] = counts.get(pair, -1) + 1
            chosen = choose_seeds(name, given, own_seed, same)
            for index, each in enumerate(chosen):
                trial = make_trial(
                    name, experiment, settings, tag, number, each, directories[name]
                )
                rounds.append((again * len(chosen) + index, trial))
    # Stable: as they came within a round.
    return [trial for _, trial in sorted(rounds, key=lambda entry: entry[0])]


def settings_of(
    experiment: dict[str, Any], seed: int
) -> Iterator[tuple[dict[str, Any], str]]:
    """All settings of an experiment, with the algorithm and environment in them."""
    config = {**experiment["config"]}
    for name in ("run", "env"):
        # Also these may be a grid.
        if experiment.get(name) is not None:
            config[name] = experiment[name]
    yield from variants(config, experiment.get("num_samples") or 1, seed)


def choose_seeds(
    name: str, given: int | Sequence[int] | None, own: Any, again: int
) -> list[int]:
    """Seeds of the trials of one setting.

    Args:
        name: str, the experiment's.
        given: as for `run_experiments`.
        own: int or None, the seed in the setting.
        again: int, how many times the same setting came before.
    """
    if own is not None:
        if given is not None:
            raise ValueError(
                f"The experiment {name!r} has a seed in its config, and seeds={given}. "
                "Give one of them."
            )
        return [checks.seed(own) + again]
    if given is None or isinstance(given, int):
        count = checks.positive_integer("seeds", 1 if given is None else given)
        return [again * count + index for index in range(count)]
    if again:
        raise ValueError(
            f"The experiment {name!r} has the same setting more than once, and a list "
            "of seeds, which are those of one of them. Give seeds as a number."
        )
    return [checks.seed(each) for each in given]


def make_trial(
    name: str,
    experiment: dict[str, Any],
    settings: dict[str, Any],
    tag: str,
    number: int,
    seed: int,
    directory: Path,
) -> Trial:
    """One trial, with its state on disk if it has one.

    Args:
        name: str, the experiment's.
        experiment: dict, what `read` returned.
        settings: nested dict of plain values, with `run` and `env`.
        tag: str, in which the setting differs from others.
        number: int, of the setting.
        seed: int.
        directory: path of the experiment.

    Raises:
        ValueError: if the directory is that of another trial.
    """
    settings = copy.deepcopy(settings)
    run, env = settings.pop("run"), settings.pop("env", None)
    parts = [run.rpartition(":")[2], env or "", f"{number:05}", tag]
    trial_name = file_name("_".join(filter(None, parts)))[:_LONGEST]
    trial_name += f"_seed={seed}"
    trial = Trial(
        name=trial_name,
        run=run,
        env=env,
        stop=dict(experiment.get("stop") or {}),
        settings=settings,
        seed=seed,
        directory=directory / trial_name,
        number=number,
        tag=tag,
        experiment=name,
        options={x: experiment[x] for x in _OPTIONS if experiment.get(x) is not None},
    )
    check_plain(trial)
    if not (trial.directory / FILE).exists():
        return trial
    return resume(trial, Trial.load(trial.directory))


def resume(trial: Trial, saved: Trial) -> Trial:
    """The trial on disk, if it is the same one; it does what is left to do.

    Raises:
        ValueError: if it is another one.
    """
    first_settings = saved.settings
    if saved.lineage:
        first_settings = saved.lineage[0]["settings_before"]
    for name, old, new in (
        ("run", saved.run, trial.run),
        ("env", saved.env, trial.env),
        ("settings", first_settings, json.loads(json.dumps(trial.settings))),
        ("seed", saved.seed, trial.seed),
    ):
        if old != new:
            raise ValueError(
                f"{trial.directory} holds another trial, with {name} {old!r} instead "
                f"of {new!r}. Choose another directory, or remove this one."
            )
    saved.experiment, saved.tag = trial.experiment, trial.tag
    is_longer = (saved.stop, saved.options.get("steps")) != (
        trial.stop,
        trial.options.get("steps"),
    )
    saved.stop, saved.options = trial.stop, trial.options
    if saved.status == "failed" or (saved.status == "finished" and is_longer):
        # Whatever was wrong may have been mended.
        saved.status, saved.attempts = "pending", 0
    if saved.status == "running":
        # Its launcher was killed.
        saved.status = "pending"
    return saved


def read(
    name: str, experiment: dict[str, Any], modules: Sequence[str] = ()
) -> dict[str, Any]:
    """An experiment, checked, with grids and distributions as objects.

    Args:
        name: str, for messages.
        experiment: dict in RLlib's shape.
        modules: names of modules that trials import first.

    Raises:
        click.UsageError, ValueError, TypeError: for what makes no sense.
    """
    found = check_experiment(f"The experiment {name!r}: ", dict(experiment))
    config = read_spaces(dict(found.get("config") or {}))
    in_config = config.pop("env", None)
    if in_config is not None:
        found["env"] = first(found.get("env"), in_config)
    for entry in ("run", "env"):
        found[entry] = read_spaces(found.get(entry))
    run = found["run"]
    if run is None:
        raise ValueError(
            f"The experiment {name!r} names no algorithm. Give one: run: PPO"
        )
    if not isinstance(run, GridSearch | Domain | str):
        found["run"] = name_of(run)
    if found["env"] is not None and not isinstance(
        found["env"], GridSearch | Domain | str
    ):
        raise TypeError(
            f"The experiment {name!r} has env={found['env']!r}. Expected a name: "
            "trials make environments in processes of their own. Use "
            "kerasrl.register_env in a module of `modules`."
        )
    read_stop(found.get("stop") or {})
    found["config"] = config
    if modules:
        # Those of the experiment may need them.
        own = found.get("modules") or ()
        found["modules"] = list(dict.fromkeys([*modules, *own]))
    return found


def name_of(run: Callable[..., Any]) -> str:
    """The name under which a trial's process finds a class or a function.

    Raises:
        TypeError: if it has none.
    """
    module = getattr(run, "__module__", None)
    name = getattr(run, "__qualname__", "<")
    if module is None or not callable(run) or "<" in name or "." in name:
        raise TypeError(
            f"Received run={run!r}. Expected the name of an algorithm, or a class or "
            "function at the top level of a module, which trials import."
        )
    if module.startswith("kerasrl.agents."):
        return name
    if module != "__main__":
        return f"{module}:{name}"
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or inspect.isclass(run):
        raise TypeError(
            f"Received run={run!r}, which trials cannot import: put it into a module."
        )
    return f"{Path(path).resolve()}:{name}"


def is_sweep(experiments: dict[str, dict[str, Any]]) -> bool:
    """Whether experiments of a file are more than one training.

    Args:
        experiments: dict from names to dicts in RLlib's shape.
    """
    if len(experiments) > 1:
        return True
    for experiment in experiments.values():
        if (experiment.get("num_samples") or 1) != 1:
            return True
        if any(experiment.get(name) is not None for name in _ONLY_OF_SWEEPS):
            return True
        tree = [experiment.get(name) for name in ("config", "run", "env")]
        if any(
            isinstance(x, GridSearch | Domain) for _, x in leaves(read_spaces(tree))
        ):
            return True
    return False


def needs_of(trial: Trial) -> Resources:
    """What a trial asks of the machine.

    Raises:
        click.UsageError: for an amount that makes no sense.
    """
    _, asked = split_resources(trial.settings)
    given = dict(trial.options.get("resources_per_trial") or {})
    cores = given.pop("cpu", asked.cores)
    gpus = given.pop("gpu", asked.gpus)
    return Resources(float(cores), gpus, {**asked.custom, **given})


def check(trials: Sequence[Trial], slots: Slots) -> None:
    """Refuse what is misspelt, or cannot run here, before the first trial starts.

    Raises:
        click.UsageError: for a setting that the algorithm does not have.
        ValueError: for what a trial asks of the machine.
    """
    find = functools.cache(find_algorithm)
    for trial in trials:
        # Those of users' modules are imported by their processes alone.
        if ":" not in trial.run and not trial.has_ended:
            split_config(split_resources(trial.settings)[0], find(trial.run))
            if trial.env is None:
                raise ValueError(
                    f"The experiment {trial.experiment!r} names no environment: env."
                )
        slots.check(needs_of(trial))


def check_plain(trial: Trial) -> None:
    """Raise a TypeError if a setting is not what JSON can hold."""
    for path, value in leaves(trial.settings):
        if value is not None and not isinstance(value, bool | int | float | str):
            name = ".".join(map(str, path))
            raise TypeError(
                f"The setting {name!r} is {value!r}. Expected numbers, texts, lists "
                "and dicts: trials read their settings from files. Register objects "
                "of your own and give their names."
            )


def file_name(text: str) -> str:
    """A text as the name of a file or a folder."""
    return re.sub(r"[^\w.,=+\[\]-]+", "-", text)


def first(*values: Any) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)
