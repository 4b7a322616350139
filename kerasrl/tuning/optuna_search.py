"""Settings suggested by Optuna, which learns from what earlier ones reached."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from kerasrl import checks
from kerasrl.tuning import domains
from kerasrl.tuning.decisions import Continue, Decision, Stop
from kerasrl.tuning.schedulers import Measure
from kerasrl.tuning.search_spaces import search_space
from kerasrl.tuning.searchers import Searcher
from kerasrl.tuning.spaces import read_spaces
from kerasrl.tuning.trial import Trial

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "halving", "hyperband", "none")
#: The file of a study, in the directory of its experiment.
STUDY = "study.jsonl"
#: What Optuna takes for a category; others are written as JSON.
_PLAIN = (bool, int, float, str, type(None))


class OptunaSearch(Searcher):
    """Suggests settings by a sampler of Optuna, and stops trials by a pruner.

    Scores are compared at multiples of `report_every`, whatever the length of epochs.
    Where a setting is trained with several seeds, their mean counts, once all of them
    are there. A setting ends with its last score; one whose trial failed, diverged or
    was stopped is pruned, which samplers take for bad.

    The study is a journal in the experiment's directory. An experiment that goes on
    also goes on with its study; settings that were interrupted are asked for anew, with
    the same values. One launcher at a time uses a study. It needs the extra `optuna`:
    `pip install "kerasrl[optuna]"`.

    Args:
        space: nested dict of plain values and distributions, or the name of an
            algorithm for its `search_space`.
        num_trials: positive integer, settings to suggest in all.
        metric: str, name of a number in results.
        mode: `"max"` or `"min"`.
        sampler: `"tpe"`, `"random"` or a sampler of Optuna.
        pruner: `"median"`, `"halving"`, `"hyperband"`, `"none"` or a pruner of Optuna.
            Its steps are counted in reports.
        report_every: positive number in the units of `time_attr`.
        time_attr: str, name of what results count time by.
        storage: None for `study.jsonl` in the experiment's directory, path of another
            such file, or a storage of Optuna.
        name: str, the name of the study.
        seed: integer from 0.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: for what cannot be meant, and for spaces that Optuna cannot draw
            from.

    Example:

    ```python
    search = OptunaSearch({"learning_rate": loguniform(1e-5, 1e-1)}, num_trials=20)
    run_experiments(
        {"run": "PPO", "env": "CartPole-v1", "stop": {"env_steps": 20_000}},
        search=search,
    )
    search.study.best_params  # {"learning_rate": 0.0021}
    ```
    """

    def __init__(
        self,
        space: dict[str, Any] | str,
        num_trials: int,
        metric: str = "episode_return_mean",
        mode: str = "max",
        sampler: Any = "tpe",
        pruner: Any = "median",
        report_every: float = 10_000,
        time_attr: str = "env_steps",
        storage: Any = None,
        name: str = "kerasrl",
        seed: int = 0,
    ) -> None:
        import_optuna()
        if isinstance(space, str):
            space = search_space(space)
        self.space = read_spaces(checks.mapping("space", space))
        self.num_trials = checks.positive_integer("num_trials", num_trials)
        self.measure = Measure(metric, mode, time_attr)
        if isinstance(sampler, str):
            checks.choice("sampler", sampler, SAMPLERS)
        if isinstance(pruner, str):
            checks.choice("pruner", pruner, PRUNERS)
        self.sampler = sampler
        self.pruner = pruner
        self.report_every = checks.positive(
            "report_every", report_every, optional=False
        )
        self.storage = storage
        self.name = name
        self.seed = checks.natural("seed", seed)
        self.num_seeds = 1
        self.study: Any = None
        #: By the numbers of settings: trials of Optuna, and those of earlier launchers.
        self._asked: dict[int, _Asked] = {}
        self._interrupted: dict[int, Any] = {}
        self._told: dict[int, Any] = {}
        check_space(self.space)

    def start(self, directory: Path, num_seeds: int) -> None:
        optuna = import_optuna()
        self.num_seeds = num_seeds
        storage = Path(directory) / STUDY if self.storage is None else self.storage
        if isinstance(storage, str | Path):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            backend = optuna.storages.journal.JournalFileBackend(str(storage))
            storage = optuna.storages.JournalStorage(backend)
        self.study = optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction="maximize",
            load_if_exists=True,
            pruner=self._make_pruner(optuna),
        )
        states = optuna.trial.TrialState
        # What was asked for anew by a launcher that then was killed.
        while self.study.get_trials(deepcopy=False, states=(states.WAITING,)):
            self.study.tell(self.study.ask(), state=states.FAIL)
        earlier = self.study.get_trials(deepcopy=False)
        # Not what the first launcher drew, once more.
        self.study.sampler = self._make_sampler(optuna, self.seed + len(earlier))
        for trial in earlier:
            number = trial.user_attrs.get("number")
            if trial.state == states.RUNNING:
                self.study.tell(trial.number, state=states.FAIL)
            if number is None:
                continue
            # Nothing else is told to have failed.
            if trial.state in (states.RUNNING, states.FAIL):
                self._interrupted[number] = trial
            else:
                self._interrupted.pop(number, None)
                self._told[number] = trial

    def suggest(self, number: int) -> dict[str, Any] | None:
        if self.study is None:
            raise RuntimeError("OptunaSearch needs `start` before `suggest`.")
        if number in self._told:
            return json.loads(self._told[number].user_attrs["settings"])
        if number in self._asked or number in self._interrupted:
            return self._ask(number).settings
        return None if number >= self.num_trials else self._ask(number).settings

    def on_result(self, trial: Trial, result: dict[str, Any]) -> Decision:
        # Says what is wrong with the metric at the first result, not the first report.
        self.measure.score(trial, result)
        if trial.number in self._told:
            return Continue()
        asked = self._ask(trial.number)
        asked.scores[str(trial.seed)] = self._scores(trial)
        self._report(asked)
        if not asked.is_pruned:
            return Continue()
        return Stop(
            f"pruned: its {self.measure.metric} is too low at "
            f"{asked.reported * self.report_every:g} {self.measure.time_attr}"
        )

    def on_end(self, trial: Trial) -> None:
        if trial.number in self._told:
            return
        asked = self._ask(trial.number)
        seed = str(trial.seed)
        asked.scores[seed] = self._scores(trial)
        scores = (self.measure.score(trial, each) for each in trial.results)
        last = [each for each in scores if each is not None][-1:]
        is_good = bool(last) and math.isfinite(last[0]) and trial.status == "finished"
        asked.ends[seed] = last[0] if is_good else None
        # For a launcher that has not seen this seed's results.
        seeds = {"scores": asked.scores, "ends": asked.ends}
        asked.trial.set_user_attr("seeds", json.dumps(seeds))
        self._report(asked)
        if len(asked.ends) == self.num_seeds:
            self._tell(trial.number, asked)

    def _ask(self, number: int) -> "_Asked":
        """The trial of Optuna for a setting, asked for if there is none yet."""
        if number in self._asked:
            return self._asked[number]
        before = self._interrupted.pop(number, None)
        if before is not None:
            self.study.enqueue_trial(before.params)
        trial = self.study.ask()
        settings = suggest_tree(trial, self.space)
        asked = self._asked[number] = _Asked(trial, settings)
        if before is not None and "seeds" in before.user_attrs:
            seeds = json.loads(before.user_attrs["seeds"])
            asked.scores, asked.ends = seeds["scores"], seeds["ends"]
            trial.set_user_attr("seeds", before.user_attrs["seeds"])
        trial.set_user_attr("settings", json.dumps(settings))
        # Last: a trial without a number is nobody's.
        trial.set_user_attr("number", number)
        return asked

    def _scores(self, trial: Trial) -> list[float]:
        """The first score at or after each multiple of `report_every`."""
        found: list[float] = []
        for result in trial.results:
            score = self.measure.score(trial, result)
            count = math.floor(self.measure.time(result) / self.report_every)
            if score is not None:
                found += [score] * (count - len(found))
        return found

    def _report(self, asked: "_Asked") -> None:
        """Report what all seeds have reached since, and ask the pruner."""
        if len(asked.scores) < self.num_seeds or asked.is_pruned:
            return
        for scores in list(zip(*asked.scores.values(), strict=False))[asked.reported :]:
            asked.reported += 1
            mean = math.fsum(scores) / len(scores)
            if not math.isfinite(mean):
                asked.is_pruned = True
                return
            asked.trial.report(mean, asked.reported)
            if asked.trial.should_prune():
                asked.is_pruned = True
                return

    def _tell(self, number: int, asked: "_Asked") -> None:
        """Say how a setting ended, once all of its trials have."""
        optuna = import_optuna()
        ends = [each for each in asked.ends.values() if each is not None]
        if len(ends) == self.num_seeds:
            told = self.study.tell(asked.trial, math.fsum(ends) / len(ends))
        else:
            told = self.study.tell(asked.trial, state=optuna.trial.TrialState.PRUNED)
        self._told[number] = told
        del self._asked[number]

    def _make_sampler(self, optuna: Any, seed: int) -> Any:
        if self.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return self.sampler

    def _make_pruner(self, optuna: Any) -> Any:
        if self.pruner == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5)
        if self.pruner == "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1)
        if self.pruner == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1)
        return optuna.pruners.NopPruner() if self.pruner == "none" else self.pruner


class _Asked:
    """A setting that is being tried: Optuna's trial, and what seeds have reached."""

    def __init__(self, trial: Any, settings: dict[str, Any]) -> None:
        self.trial = trial
        self.settings = settings
        #: By seeds: scores at multiples of `report_every`, and the last of all.
        self.scores: dict[str, list[float]] = {}
        self.ends: dict[str, float | None] = {}
        self.reported = 0
        self.is_pruned = False


def import_optuna() -> Any:
    """Optuna, quieter than it is by default.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            'OptunaSearch needs the extra `optuna`: pip install "kerasrl[optuna]"'
        ) from error
    if optuna.logging.get_verbosity() == logging.INFO:
        # A line for each trial would stand in the table of the launcher.
        optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def check_space(space: Any) -> None:
    """Raise a ValueError for what Optuna has no distribution for."""
    for path, value in domains.leaves(space):
        name = ".".join(map(str, path))
        if isinstance(value, domains.GridSearch):
            raise ValueError(
                f"Received a grid_search for {name!r}. A searcher draws: give "
                f"choice({list(value.values)})."
            )
        if isinstance(value, domains.Normal | domains.SampleFrom):
            raise ValueError(
                f"Received {value!r} for {name!r}, which Optuna cannot draw from. "
                "Expected uniform, loguniform, quniform, randint, choice, or a value."
            )


def suggest_tree(trial: Any, space: Any, path: tuple[str, ...] = ()) -> Any:
    """Plain values for the distributions of a tree, suggested by a trial of Optuna.

    Args:
        trial: trial of Optuna.
        space: tree of dicts and lists with plain values and distributions.
        path: tuple of str, where the tree stands; names of parameters are joined by
            dots.

    Returns:
        the tree with values.
    """
    if isinstance(space, dict):
        return {
            key: suggest_tree(trial, value, (*path, str(key)))
            for key, value in space.items()
        }
    if isinstance(space, list):
        return [
            suggest_tree(trial, value, (*path, str(index)))
            for index, value in enumerate(space)
        ]
    name = ".".join(path)
    if isinstance(space, domains.QUniform):
        # In whole steps: multiples of 0.1 are no exact floats.
        count = trial.suggest_int(name, space.first, space.last)
        return space.clip(count * space.step)
    if isinstance(space, domains.Uniform):
        is_log = isinstance(space, domains.LogUniform)
        return trial.suggest_float(name, space.low, space.high, log=is_log)
    if isinstance(space, domains.RandInt):
        return trial.suggest_int(name, space.low, space.high - 1)
    if isinstance(space, domains.Choice):
        if all(isinstance(each, _PLAIN) for each in space.values):
            return trial.suggest_categorical(name, list(space.values))
        texts = [json.dumps(each) for each in space.values]
        return json.loads(trial.suggest_categorical(name, texts))
    return space
