import csv
import json
import math
import re

import numpy as np
import pytest
from daily import among

import kerasrl
from kerasrl.callbacks import RunLogger, run_logger


def lines(path):
    def refuse(name):
        raise ValueError(name)

    text = (path / "result.json").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in text]


def table(path):
    with open(path / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_result_is_strict_json(agent, tmp_path):
    epochs = [
        {"loss": np.float32(1.5), "episode_return_mean": math.nan},
        {"loss": math.inf, "episode_return_mean": 3},
    ]
    agent.fit([RunLogger(tmp_path)], epochs, iterations=2)
    first, second = lines(tmp_path)
    assert first["loss"] == 1.5 and first["episode_return_mean"] is None
    assert second["loss"] is None and second["episode_return_mean"] == 3
    assert (second["epoch"], second["iterations"], second["env_steps"]) == (1, 4, 40)
    assert 0 < first["time_this_epoch_s"] <= second["time_total_s"]


def test_columns_stay_in_place(agent, tmp_path):
    logger = RunLogger(tmp_path)
    agent.fit([logger], [{"b": 1.0, "a": math.nan}, {"a": 2.0}, {"c": 3.0, "b": 4.0}])
    agent.fit([logger], [{"a": 5.0}])
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert header[:3] == ["epoch", "iterations", "env_steps"] and header[-1] == "c"
    rows = table(tmp_path)
    assert [row["a"] for row in rows] == ["nan", "2.0", "nan", "5.0"]
    assert [row["b"] for row in rows] == ["1.0", "nan", "4.0", "nan"]
    assert [row["c"] for row in rows] == ["nan", "nan", "3.0", "nan"]
    assert [row["env_steps"] for row in rows] == ["10", "20", "30", "40"]


def test_a_new_logger_goes_on_in_the_same_directory(agent, tmp_path):
    agent.fit([RunLogger(tmp_path)], [{"a": 1.0}])
    agent.fit([RunLogger(tmp_path)], [{"z": 2.0}])
    assert [row["z"] for row in table(tmp_path)] == ["nan", "2.0"]
    assert len(lines(tmp_path)) == 2


def test_params(agent, tmp_path):
    agent.fit([RunLogger(tmp_path, extra={"note": "mine"})], [{}])
    params = json.loads((tmp_path / "params.json").read_text())
    assert params["algorithm"] == "ScriptedAgent"
    assert params["env"] == "Scripted/Env-v0"
    assert params["seed"] == 7 and params["note"] == "mine"
    assert params["config"]["policy"] == {"hidden_units": [4, 4]}
    assert params["optimizer"]["class_name"] == "Adam"
    assert {"python", "kerasrl", "keras", "tensorflow"} <= set(params["versions"])


def test_default_directory(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(run_logger, "RESULTS", tmp_path)
    loggers = [RunLogger(), RunLogger()]
    for logger in loggers:
        agent.fit([logger], [{}])
    first, second = (logger.directory.name for logger in loggers)
    assert first != second
    assert re.fullmatch(
        r"ScriptedAgent_Scripted-Env-v0_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", first
    )


def test_directories_of_the_same_second_differ(tmp_path):
    paths = {run_logger.new_run_directory("PPO", "A/B-v0", tmp_path) for _ in range(5)}
    assert len(paths) == 5
    assert all(path.parent == tmp_path and path.is_dir() for path in paths)


@pytest.mark.parametrize("algorithm", among(["PG", "A2C", "PPO"], ["A2C"]))
def test_with_a_real_agent(tmp_path, algorithm):
    agent = getattr(kerasrl, algorithm)(rollout_length=8, seed=0)
    agent.compile(run_eagerly=True)
    agent.fit(
        "CartPole-v1",
        steps=64,
        steps_per_epoch=32,
        num_envs=2,
        callbacks=[RunLogger(tmp_path)],
        verbose=0,
    )
    params = json.loads((tmp_path / "params.json").read_text())
    assert params["config"]["rollout_length"] == 8
    assert (params["steps"], params["num_envs"]) == (64, 2)
    assert [line["env_steps"] for line in lines(tmp_path)] == [32, 64]
    expected = {
        "loss",
        "policy_loss",
        "entropy",
        "episode_return_mean",
        "episode_length_mean",
        "episodes",
        "steps_per_second",
        "learning_rate",
    }
    assert expected <= set(table(tmp_path)[0])


def test_functions_that_cannot_be_saved_are_described(tmp_path):
    agent = kerasrl.A2C({"hidden_units": (4,)}, entropy_coef=lambda progress: 0.1)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps=40, callbacks=[RunLogger(tmp_path)], verbose=0)
    config = json.loads((tmp_path / "params.json").read_text())["config"]
    assert "function" in config["entropy_coef"] and config["gamma"] == 0.99


def test_a_run_that_goes_on_keeps_what_was_written(agent, tmp_path):
    agent.fit([RunLogger(tmp_path, {"note": "first"})], [{"a": 1.0}, {"a": 2.0}])
    first = json.loads((tmp_path / "params.json").read_text())
    for note in ("second", "third"):
        agent.fit([RunLogger(tmp_path, {"note": note})], [{"a": 3.0}])
    again = json.loads((tmp_path / "params.json").read_text())
    resumed = again.pop("resumed")
    assert again == first
    assert [(each["note"], each["env_steps"]) for each in resumed] == [
        *(("second", 20), ("third", 30)),
    ]
    assert [line["epoch"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    # From an earlier checkpoint: what came after it stays, and is not counted.
    agent.env_steps = 10
    agent.fit([RunLogger(tmp_path)], [{"a": 4.0}])
    assert [line["epoch"] for line in lines(tmp_path)] == [0, 1, 2, 3, 1]
    # Another agent in the same directory is another run.
    agent.env_steps = agent.iterations = 0
    agent.fit([RunLogger(tmp_path, {"note": "new"})], [{"a": 4.0}])
    params = json.loads((tmp_path / "params.json").read_text())
    assert params["note"] == "new" and "resumed" not in params
    assert lines(tmp_path)[-1]["epoch"] == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"resumed": 3}', "null\n{"])
def test_files_that_are_broken_do_not_end_a_run(agent, tmp_path, text):
    agent.fit([RunLogger(tmp_path)], [{"a": 1.0}])
    for name in ("params.json", "result.json"):
        (tmp_path / name).write_text(text)
    agent.fit([RunLogger(tmp_path)], [{"a": 1.0}])
    assert json.loads((tmp_path / "params.json").read_text())["seed"] == 7


def test_a_training_in_several_processes_counts_on(agent, tmp_path):
    agent.fit([RunLogger(tmp_path)], [{"a": 1.0}, {"a": 2.0}])
    rows = lines(tmp_path)
    for row in rows:
        row["time_this_epoch_s"] = 100.0
    # What it has taken over had fewer steps.
    agent.env_steps = 5
    agent.gamma = 0.75
    logger = RunLogger(tmp_path)
    logger.rows_before = rows
    agent.fit([logger], [{"a": 3.0}])
    assert logger.row["epoch"] == 2 and 200.0 <= logger.row["time_total_s"] < 300.0
    # And other settings, which are said.
    (again,) = json.loads((tmp_path / "params.json").read_text())["resumed"]
    assert again["config"]["gamma"] == 0.75
    agent.fit([RunLogger(tmp_path)], [{"a": 3.0}])
    params = json.loads((tmp_path / "params.json").read_text())
    assert "config" not in params["resumed"][1] and params["config"]["gamma"] == 0.5
