"""Sweeps from the command line."""

import csv
import pathlib

import pytest
from commands import error, kerasrl
from light_trials import PATH

GRID = (
    "hill:\n  run: " + f"{PATH}:climb" + "\n  env: Hill\n"
    "  config: {speed: {grid_search: [1, 2]}}\n"
)
SMALL = {
    "rollout_length": 16,
    "num_epochs": 1,
    "minibatch_size": 16,
    "num_envs": 2,
    "policy.hidden_units": [4],
}


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def rows(directory):
    with open(directory / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_with_a_grid_becomes_a_sweep(grid, tmp_path):
    directory = tmp_path / "run"
    arguments = ("-f", grid, "--logdir", directory, "--slots", 2)
    dry = kerasrl("train", *arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.output.splitlines()[-1] == "2 trials. Nothing was run."
    assert not directory.exists()
    result = kerasrl("train", *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.output.splitlines()
    assert lines[0] == f"2 trials, in {directory}"
    assert sum("finished" in line for line in lines) == 2
    assert lines[-1] == f"Compare: kerasrl results {directory}"
    assert [row["config.speed"] for row in rows(directory)] == ["1", "2"]
    again = kerasrl("tune", *arguments, "--seeds", "0,4")
    assert "4 trials, of which 2 have ended already" in again.output
    assert [row["seed"] for row in rows(directory)] == ["0", "0", "4", "4"]


def test_results_are_compared_and_drawn(grid, tmp_path):
    directory = tmp_path / "run"
    kerasrl("tune", "-f", grid, "--logdir", directory, "--seeds", 2)
    result = kerasrl("results", directory)
    assert result.exit_code == 0, (result.output, result.exception)
    header, first, second, picture = result.output.splitlines()
    assert header.split()[:3] == ["setting", "seeds", "episode_return_mean"]
    assert first.split()[:3] == ["speed=2", "2", "10.0"]
    assert second.split()[:3] == ["speed=1", "2", "5.00"]
    assert picture == f"Learning curves: {directory / 'learning_curves.png'}"
    assert (directory / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "There are no trials" in error("results", tmp_path / "nowhere")


def test_a_trial_that_fails_ends_the_command_with_1(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        GRID.replace(":climb", ":crash").replace("{speed:", "{crashes: 9, speed:")
    )
    result = kerasrl(
        *("tune", "-f", path, "--logdir", tmp_path / "run", "--max-failures", 0)
    )
    assert result.exit_code == 1
    assert "Error: 2 trials failed: crash_Hill_00000_speed=1_seed=0" in result.output
    assert "    RuntimeError: the motor burnt out" in result.output
    shown = kerasrl("results", tmp_path / "run", "--plot", tmp_path / "a.png").output
    assert shown.count("Failed: ") == 2


def test_ppo_is_trained_on_two_slots_and_goes_on(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "a:\n  run: PPO\n  env: CartPole-v1\n  checkpoint_freq: 2\n  eager: true\n"
        "  stop: {timesteps_total: 96, training_iteration: 2}\n"
        "  config: {gamma: {grid_search: [0.9, 0.99]}, steps_per_epoch: 32}\n"
    )
    settings = [f"--set={name}={value}" for name, value in SMALL.items()]
    arguments = ("-f", path, "--logdir", tmp_path / "run", "--slots", 2, *settings)
    result = kerasrl("train", *arguments, "--progress", "none")
    assert result.exit_code == 0, (result.output, result.exception)
    found = rows(tmp_path / "run")
    assert [row["status"] for row in found] == ["finished"] * 2
    assert [row["env_steps"] for row in found] == ["64", "64"]
    for row in found:
        directory = pathlib.Path(row["directory"])
        names = {each.name for each in directory.iterdir()}
        expected = ("params.json", "result.json", "progress.csv", "trial.json")
        assert names.issuperset((*expected, "checkpoint-2", "log.txt"))
    # With more to do, it goes on from there: to three epochs, of 96 steps.
    stop = '{"timesteps_total": 96, "training_iteration": 9}'
    result = kerasrl("train", *arguments, "--stop", stop, "--progress", "none")
    assert result.exit_code == 0, (result.output, result.exception)
    for row in rows(tmp_path / "run"):
        assert row["env_steps"] == "96" and row["epochs"] == "3"
        table = pathlib.Path(row["directory"], "progress.csv").read_text()
        assert [line.split(",")[0] for line in table.splitlines()[1:]] == [
            "0",
            "1",
            "2",
        ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("tune",), "Which algorithm?"),
        (("tune", "PPPO", "CartPole-v1"), "Did you mean 'PPO'"),
        (("tune", "PPO", "CartPole-v1", "--set", "gama=1"), "Did you mean 'gamma'"),
        (("tune", "PPO", "CartPole-v1", "--slots", 0), "an integer from 1"),
        (("tune", "PPO", "CartPole-v1", "--seeds", "a"), "Invalid value for '--seeds'"),
        (("tune", "PPO", "CartPole-v1", "--scheduler", "x"), "Unknown scheduler 'x'"),
        (("tune", "PPO", "E", "--scheduler-config", "{}"), "which is not given"),
        (("tune", "PPO", "E", "--set", "gamma={uniform: [1]}"), "uniform"),
        (("train", "PPO", "CartPole-v1", "--slots", 2), "--slots is for a sweep"),
        (("train", "PPO", "CartPole-v1", "--dry-run"), "--dry-run is for a sweep"),
        (("train", "-f", "{grid}", "--resume", "x"), "--resume is for one training"),
        (("train", "-f", "{grid}", "--elastic"), "--elastic is for one training"),
        (("train", "PPO", "E", "--set", "num_gpus=99"), "but there are"),
        (("train", "PPO", "E", "--set", "num_gpus_per_worker=1"), "act in NumPy"),
        (("train", "PPO", "E", "--set", "num_cpus_per_worker=2"), "kerasrl tune"),
        (("launch", "{missing}"), "cannot be read as YAML"),
        (("train", "-f", "{grid}", "--data", "x"), "--data is for one training"),
        (("train", "-f", "{grid}", "--output", "x"), "--output is for one training"),
        (("train", "-f", "{grid}", "--tuned"), "--tuned is for one training"),
        (("train", "-f", "{grid}", "--offline", "x"), "--offline is for one training"),
        (("tune", "-f", "{grid}", "--eval-episodes", 5), "give --eval-freq"),
        (("train", "-f", "{grid}", "--eval-episodes", 5), "give --eval-freq"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, expected, grid, tmp_path):
    places = {"{grid}": grid, "{missing}": tmp_path / "missing.yaml"}
    arguments = [places.get(each, each) for each in arguments]
    assert expected in error(*arguments)


def test_options_go_before_what_a_file_says(tmp_path, monkeypatch):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID + "  eval_freq: 100\n  eval_episodes: 3\n  modules: [json]\n")
    seen = {}
    monkeypatch.setattr(
        "kerasrl.tuning.experiments.launch",
        lambda trials, *args, **kwargs: seen.update(
            trials=trials, scheduler=kwargs["scheduler"]
        ),
    )
    monkeypatch.setattr("kerasrl.cli.sweeping.conclude", lambda *args: None)
    pbt = '{"mutations": {"speed": [1, 2]}, "interval": 100}'
    result = kerasrl(
        *("tune", "-f", path, "--eval-episodes", 7, "--import", "csv", "--seed", 4),
        *("--scheduler", "pbt", "--scheduler-config", pbt),
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert seen["scheduler"].seed == 4
    for trial in seen["trials"]:
        assert trial.options["eval_freq"] == 100
        assert trial.options["eval_episodes"] == 7
        assert trial.options["modules"] == ["csv", "json"]
