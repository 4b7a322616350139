"""A search with trials in processes, which goes on with its study."""

import optuna

from kerasrl.tuning import (
    OptunaSearch,
    Searcher,
    choice,
    planning,
    run_experiments,
    uniform,
)
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.suggestions import Suggestions

PROGRAM = """
def train(context):
    level = -abs(context.settings["x"] - 0.3) - context.settings["nested"]["y"]
    for step in range(1, 4):
        context.report({"env_steps": 10 * step, "level": level * step})
"""


def search(tmp_path, num_trials):
    path = tmp_path / "toy.py"
    path.write_text(PROGRAM)
    searcher = OptunaSearch(
        {"x": uniform(0, 1), "nested": {"y": choice([0, 1])}},
        num_trials=num_trials,
        metric="level",
        report_every=10,
        pruner="none",
    )
    results = run_experiments(
        {"run": f"{path}:train", "config": {"z": 1}},
        slots=2,
        directory=tmp_path / "study",
        search=searcher,
        metric="level",
        progress="none",
    )
    return searcher.study, results


def test_a_study_of_trials_in_processes_goes_on(tmp_path):
    study, results = search(tmp_path, num_trials=3)
    assert [trial.status for trial in results.trials] == ["finished"] * 3
    assert all(trial.settings["z"] == 1 for trial in results.trials)
    assert study.best_value == results.best("level").result["level"]
    assert study.trials[0].intermediate_values.keys() == {1, 2, 3}
    before = [(trial.settings, trial.results) for trial in results.trials]
    study, results = search(tmp_path, num_trials=5)
    assert [(x.settings, x.results) for x in results.trials[:3]] == before
    assert len(results.trials) == 5
    states = [trial.state for trial in study.trials]
    assert states == [optuna.trial.TrialState.COMPLETE] * 5
    found = {str(trial.user_attrs["settings"]) for trial in study.trials}
    assert len(found) == 5


def test_a_search_hears_of_what_had_ended_before_its_launcher_was_killed(tmp_path):
    class Listens(Searcher):
        ended = ()

        def suggest(self, number):
            return {"x": number} if number < 2 else None

        def on_end(self, trial):
            self.ended = (*self.ended, trial.number)

    read = {"toy": planning.read("toy", {"run": "toy.py:train"})}

    def suggestions():
        return Suggestions(read, tmp_path, Listens(), None, Slots(1))

    (trial,) = suggestions().more(False)
    trial.status = "finished"
    trial.save()
    again = suggestions()
    assert [again.more(False)[0].status for _ in range(2)] == ["finished", "pending"]
    assert again.search.ended == (0,)
