import csv
import math

import pytest

from kerasrl.tuning import Results
from kerasrl.tuning.trial import Trial, append_line


@pytest.fixture
def results(tmp_path):
    """Two settings with two seeds each; one has failed before its first result."""
    for number, (gamma, values) in enumerate([(0.9, [1, 3]), (0.99, [5, None])]):
        for seed in (0, 1):
            name = f"{number}-{seed}"
            trial = Trial(
                *(
                    name,
                    "PPO",
                    "CartPole-v1",
                    {},
                    {"gamma": gamma, "model": {"a": [1]}},
                ),
                *(seed, tmp_path / name),
                number=number,
                tag=f"gamma={gamma}",
                status="finished",
            )
            trial.save()
            if values[seed] is None:
                trial.status, trial.error = "failed", "exit code 1\nmore"
                trial.save()
                continue
            for epoch in range(3):
                row = {
                    "env_steps": 100 * (epoch + 1),
                    "episode_return_mean": None if epoch == 0 else values[seed] * epoch,
                    "time_this_epoch_s": 0.5,
                }
                append_line(trial.directory / "result.json", row)
    return Results.load(tmp_path)


def test_the_best_trial(results):
    assert results.best().name == "1-0"
    assert results.best(mode="min").name == "0-0"
    assert results.best("env_steps").name == "0-0"
    with pytest.raises(ValueError, match="No trial has a result 'reward'"):
        results.best("reward")
    assert [trial.name for trial in results.failed] == ["1-1"]


def test_settings_are_compared_over_seeds(results):
    first, second = results.compare()
    assert first["setting"] == "gamma=0.99" and first["seeds"] == 1
    assert first["mean"] == 10 and math.isnan(first["half_width"])
    assert first["status"] == "1 finished, 1 failed"
    assert second["mean"] == 4 and second["seeds"] == 2
    # Student's quantile for one degree of freedom, deviation 2.83 of 2 and 6.
    assert second["half_width"] == pytest.approx(12.706 * 2, rel=1e-3)
    assert second["env_steps"] == 300 and second["seconds"] == 3
    results.mode = "min"
    assert results.compare()[0]["setting"] == "gamma=0.9"


def test_curves_leave_out_what_is_not_known(results):
    curves = results.curves()
    assert list(curves) == ["gamma=0.99", "gamma=0.9"]
    band = curves["gamma=0.9"]
    assert band.seeds == 2 and band.steps[[0, -1]].tolist() == [200, 300]
    assert band.mean[[0, -1]].tolist() == [2, 4]


def test_the_summary(results):
    with open(results.write(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[0]["config.gamma"] == "0.9" and rows[0]["config.model.a"] == "[1]"
    assert rows[1]["episode_return_mean_best"] == "6.0"
    assert rows[3]["status"] == "failed" and rows[3]["error"] == "exit code 1"
    assert rows[3]["episode_return_mean"] == ""
    assert not list(results.directory.glob(".*.tmp"))


def test_a_picture_is_drawn(results, tmp_path):
    path = results.plot(tmp_path / "new" / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw"):
        results.plot(tmp_path / "curves.png", metric="reward")


def test_without_matplotlib_the_extra_is_named(results, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setitem(
        __import__("sys").modules, "matplotlib.backends.backend_agg", None
    )
    with pytest.raises(ImportError, match=r"kerasrl\[plot\]"):
        results.plot(tmp_path / "curves.png")


def test_an_empty_directory_holds_no_trials(tmp_path):
    with pytest.raises(ValueError, match="There are no trials"):
        Results.load(tmp_path)


def test_the_latest_evaluation_counts(results):
    (trial, *_) = results.trials
    for value in (7.0, None):
        trial.results.append({"env_steps": 9, "evaluation_return_mean": value})
    results.metric = "evaluation_return_mean"
    assert results.best() is trial
    assert results.compare()[0]["mean"] == 7.0
    values = [row["evaluation_return_mean"] for row in results.to_rows()]
    assert values == [7.0, None, None, None]
