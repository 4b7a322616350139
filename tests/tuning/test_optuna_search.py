"""Optuna: settings asked for and told about, pruning, and a study that goes on."""

import math
import sys

import optuna
import pytest
from fake_runner import make_trials

from kerasrl.tuning import (
    Continue,
    OptunaSearch,
    Stop,
    choice,
    grid_search,
    loguniform,
    normal,
    quniform,
    randint,
    uniform,
)

SPACE = {
    "learning_rate": loguniform(1e-5, 1e-1),
    "gamma": quniform(0.9, 1.0, 0.01),
    "policy": {"hidden_units": choice([[32], [64, 64]]), "activation": "tanh"},
    "num_epochs": randint(1, 4),
    "clip_ratio": choice([0.1, 0.2]),
}


def started(tmp_path, num_seeds=1, **arguments):
    arguments = {"space": SPACE, "num_trials": 30, "sampler": "random", **arguments}
    search = OptunaSearch(**arguments)
    search.start(tmp_path, num_seeds)
    return search


def make_trial(number, settings, seed=0):
    (trial,) = make_trials([settings])
    trial.number, trial.seed, trial.status = number, seed, "running"
    return trial


def report(search, trial, env_steps, value):
    result = {"env_steps": env_steps, "episode_return_mean": value}
    trial.results.append(result)
    return search.on_result(trial, result)


def finish(search, trial, status="finished"):
    trial.status = status
    search.on_end(trial)


def quality(settings):
    return -abs(math.log10(settings["learning_rate"]) + 3)


def complete(search, number):
    trial = make_trial(number, search.suggest(number))
    report(search, trial, 10_000, quality(trial.settings))
    finish(search, trial)
    return trial.settings


def test_settings_are_of_the_space(tmp_path):
    search = started(tmp_path)
    found = [search.suggest(number) for number in range(30)]
    assert search.suggest(30) is None
    assert len({each["learning_rate"] for each in found}) == 30
    assert all(1e-5 <= each["learning_rate"] <= 1e-1 for each in found)
    assert {each["gamma"] for each in found} <= {
        round(0.9 + 0.01 * step, 2) for step in range(11)
    }
    assert {each["num_epochs"] for each in found} == {1, 2, 3}
    units = [each["policy"]["hidden_units"] for each in found]
    assert [32] in units and [64, 64] in units
    assert all(each["policy"]["activation"] == "tanh" for each in found)
    # The same number once more is the same setting.
    assert search.suggest(7) == found[7]


def test_it_learns_where_scores_are_high(tmp_path):
    search = started(tmp_path, space={"learning_rate": loguniform(1e-6, 1)}, seed=1)
    search.study.sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=10)
    found = [complete(search, number) for number in range(30)]
    first = sum(map(quality, found[:10])) / 10
    assert sum(map(quality, found[20:])) / 10 > 0.6 * first
    assert quality(search.study.best_params) == max(map(quality, found))


def test_scores_are_reported_at_the_same_steps_whatever_the_epochs(tmp_path):
    search = started(tmp_path, pruner="none")
    trial = make_trial(0, search.suggest(0))
    for env_steps, value in ((4_000, 1), (9_999, 2), (12_000, 3), (33_000, 4)):
        assert report(search, trial, env_steps, value) == Continue()
    finish(search, trial)
    (told,) = search.study.trials
    assert told.intermediate_values == {1: 3, 2: 4, 3: 4}
    assert told.value == 4


def test_bad_trials_are_pruned(tmp_path):
    search = started(tmp_path)
    for number in range(5):
        trial = make_trial(number, search.suggest(number))
        for count in (1, 2):
            assert report(search, trial, 10_000 * count, 5.0 + number) == Continue()
        finish(search, trial)
    trial = make_trial(5, search.suggest(5))
    assert report(search, trial, 9_000, 0.0) == Continue()
    decision = report(search, trial, 10_500, 0.0)
    assert isinstance(decision, Stop) and "10000 env_steps" in decision.reason
    finish(search, trial, "stopped")
    assert search.study.trials[-1].state == optuna.trial.TrialState.PRUNED


def test_less_may_be_better(tmp_path):
    search = started(tmp_path, mode="min")
    for number, loss in enumerate([3.0, 1.0, 2.0]):
        trial = make_trial(number, search.suggest(number))
        report(search, trial, 1_000, loss)
        finish(search, trial)
    assert search.study.best_trial.user_attrs["number"] == 1


@pytest.mark.parametrize("status", ["failed", "stopped", "diverged"])
def test_what_ends_badly_counts_as_pruned(tmp_path, status):
    search = started(tmp_path)
    trial = make_trial(0, search.suggest(0))
    report(search, trial, 10_000, 1.0)
    if status == "diverged":
        report(search, trial, 11_000, None)
    finish(search, trial, "finished" if status == "diverged" else status)
    assert search.study.trials[0].state == optuna.trial.TrialState.PRUNED


def test_seeds_of_a_setting_count_as_one(tmp_path):
    search = started(tmp_path, num_seeds=2)
    settings = search.suggest(0)
    first, second = (make_trial(0, settings, seed) for seed in (0, 1))
    report(search, first, 20_000, 1.0)
    assert not search.study.trials[0].intermediate_values
    report(search, second, 10_000, 3.0)
    assert search.study.trials[0].intermediate_values == {1: 2.0}
    finish(search, first)
    report(search, second, 20_000, 5.0)
    finish(search, second)
    (told,) = search.study.trials
    assert told.intermediate_values == {1: 2.0, 2: 3.0}
    assert told.value == 3.0


def test_a_study_goes_on(tmp_path):
    search = started(tmp_path, num_seeds=1)
    found = [complete(search, number) for number in range(3)]
    interrupted = [search.suggest(number) for number in (3, 4)]
    again = started(tmp_path)
    # What was told is known, what was interrupted is the same.
    assert [again.suggest(number) for number in range(5)] == found + interrupted
    assert len(again.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 3
    trial = make_trial(4, interrupted[1])
    report(again, trial, 10_000, 7.0)
    finish(again, trial)
    # Another kill, before the other was even asked for.
    last = started(tmp_path)
    assert last.suggest(3) == interrupted[0]
    assert last.study.best_value == 7.0
    assert last.suggest(4) == interrupted[1]
    # Not what the first launcher drew, once more.
    assert last.suggest(5) not in found + interrupted
    # Of trials that had ended, nothing more is heard.
    assert report(last, trial, 20_000, 0.0) == Continue()
    finish(last, trial)
    assert last.study.best_value == 7.0


def test_a_seed_that_had_ended_counts_after_a_restart(tmp_path):
    search = started(tmp_path, num_seeds=2)
    settings = search.suggest(0)
    first, second = (make_trial(0, settings, seed) for seed in (0, 1))
    report(search, first, 10_000, 1.0)
    finish(search, first)
    again = started(tmp_path, num_seeds=2)
    report(again, second, 10_000, 3.0)
    finish(again, second)
    assert again.study.best_value == 2.0
    assert again.study.best_trial.intermediate_values == {1: 2.0}


def test_a_waiting_trial_of_another_launcher_is_not_taken_for_another_setting(tmp_path):
    search = started(tmp_path)
    search.study.enqueue_trial({"learning_rate": 1e-5})
    again = started(tmp_path)
    assert again.suggest(0)["learning_rate"] != 1e-5


def test_a_storage_of_its_own(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    search = started(tmp_path, storage=storage)
    complete(search, 0)
    assert not list(tmp_path.iterdir())
    assert len(started(tmp_path, storage=storage).study.trials) == 1
    started(tmp_path, storage=tmp_path / "studies" / "mine.jsonl").suggest(0)
    assert (tmp_path / "studies" / "mine.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"x": grid_search([1, 2])}}, r"choice\(\[1, 2\]\)"),
        ({"space": {"policy": {"x": normal(0, 1)}}}, "'policy.x'"),
        ({"space": "PPOO"}, "Did you mean 'PPO'"),
        ({"sampler": "bayes"}, "sampler"),
        ({"pruner": "bayes"}, "pruner"),
        ({"mode": "most"}, "mode"),
        ({"num_trials": 0}, "num_trials"),
        ({"report_every": 0}, "report_every"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OptunaSearch(**{"space": {"x": uniform(0, 1)}, "num_trials": 2, **arguments})


def test_a_metric_that_nobody_reports_is_refused(tmp_path):
    search = started(tmp_path, metric="episode_reward")
    trial = make_trial(0, search.suggest(0))
    with pytest.raises(ValueError, match="Did you mean"):
        report(search, trial, 1, 0.0)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"kerasrl\[optuna\]"):
        OptunaSearch(SPACE, num_trials=1)


def test_it_starts_first():
    with pytest.raises(RuntimeError, match="start"):
        OptunaSearch(SPACE, num_trials=1).suggest(0)
