"""Sweeps of light trials: directories, order, retries, and launchers that end."""

import json
import os
import shutil
import signal
import subprocess
import sys

import light_trials
import pytest
from light_trials import PATH, is_alive, processes_of, wait_until

from kerasrl.tuning import Continue, Pause, Scheduler, Stop, grid_search
from kerasrl.tuning import run_experiments as run
from kerasrl.tuning.decisions import Exploit
from kerasrl.tuning.experiments import locked
from kerasrl.tuning.runner import Runner
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.trial import Trial

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def experiment(function="climb", **entries):
    config = {"speed": grid_search([1.0, 2.0, 3.0, 4.0]), **entries.pop("config", {})}
    return {"run": f"{PATH}:{function}", "env": "Hill", "config": config, **entries}


def sweep(directory, function="climb", slots=2, progress="none", **arguments):
    entries = {x: arguments.pop(x) for x in ("config", "stop") if x in arguments}
    return run(
        experiment(function, **entries),
        directory=directory,
        slots=slots,
        progress=progress,
        **arguments,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four settings and two seeds on two slots, and its directory."""
    directory = tmp_path_factory.mktemp("swept") / "sweep"
    return sweep(directory, seeds=2), directory


def test_a_sweep_has_a_directory_for_each_trial(swept):
    results, directory = swept
    names = [
        f"climb_Hill_{number:05}_speed={speed}_seed={seed}"
        # Every setting has its first seed before any has its second.
        for seed in (0, 1)
        for number, speed in enumerate((1, 2, 3, 4))
    ]
    assert [trial.name for trial in results.trials] == names
    assert sorted(x.name for x in directory.iterdir() if x.is_dir()) == sorted(names)
    for trial in results.trials:
        assert trial.status == "finished" and trial.attempts == 0
        level = 5 * (trial.settings["speed"] + 0.001 * trial.seed)
        assert trial.result["episode_return_mean"] == pytest.approx(level)
        assert [row["epoch"] for row in trial.results] == list(range(5))
        assert Trial.load(trial.directory) == trial
        assert trial.checkpoint == trial.directory / "checkpoint-5"
    assert results.best().name == names[7]
    assert not results.failed


def test_trials_start_in_seed_major_order(swept):
    results, _ = swept
    logs = [trial.directory / "log.txt" for trial in results.trials]
    started = [log.read_text().split("--- started ")[1].split()[0] for log in logs]
    assert started == sorted(started)


def test_the_summary_has_a_row_for_each_trial(swept):
    results, directory = swept
    lines = (directory / "summary.csv").read_text().splitlines()
    header = lines[0].split(",")
    assert len(lines) == 9 and header[:2] == ["trial", "experiment"]
    for name in ("config.speed", "status", "env_steps", "episode_return_mean", "seed"):
        assert name in header
    row = dict(zip(header, lines[8].split(","), strict=True))
    assert row["config.speed"] == "4.0" and row["seed"] == "1"
    assert float(row["episode_return_mean"]) == pytest.approx(20.005)
    assert row["directory"] == str(results.trials[7].directory)


def test_a_second_call_runs_nothing(swept, monkeypatch):
    results, directory = swept
    monkeypatch.setattr("kerasrl.tuning.runner.TrialProcess", None)
    again = sweep(directory, seeds=2)
    assert again.trials == results.trials


def test_more_seeds_run_only_these(swept, tmp_path):
    _, directory = swept
    copy = shutil.copytree(directory, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("result.json")}
    again = sweep(copy, seeds=3)
    assert len(again.trials) == 12
    assert all(trial.status == "finished" for trial in again.trials)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_another_experiment_in_the_same_directory_is_refused(swept):
    _, directory = swept
    with pytest.raises(ValueError, match="holds another trial, with settings"):
        sweep(directory, config={"epochs": 6})


def test_further_training_goes_on(tmp_path):
    config = {"speed": 1.0, "epochs": 6}
    sweep(tmp_path, stop={"env_steps": 200}, config=config)
    results = sweep(tmp_path, stop={"env_steps": 400}, config=config)
    (trial,) = results.trials
    assert [row["env_steps"] for row in trial.results] == [100, 200, 300, 400]


def test_a_trial_that_crashes_is_retried_then_reported(tmp_path, capsys):
    results = sweep(
        tmp_path,
        "crash",
        config={"crashes": grid_search([0, 1, 9]), "speed": 1.0},
        progress="lines",
        retries=1,
    )
    assert [x.status for x in results.trials] == ["finished", "finished", "failed"]
    healed, failed = results.trials[1:]
    assert (healed.attempts, failed.attempts) == (1, 2)
    # Two epochs before the crash, the rest from that checkpoint: no gap, no repetition.
    assert [row["epoch"] for row in healed.results] == list(range(5))
    assert healed.result["episode_return_mean"] == pytest.approx(5)
    assert healed.error == "" and "the motor burnt out" in failed.error
    output = capsys.readouterr().out
    assert "goes on from checkpoint-2: attempt 2" in output
    assert "    RuntimeError: the motor burnt out" in output
    assert str(failed.directory / "log.txt") in output
    assert results.failed == [failed]
    # Another call tries it again.
    assert (
        sweep(
            tmp_path,
            "crash",
            config={"crashes": grid_search([0, 1, 9]), "speed": 1.0},
            retries=0,
        )
        .failed[0]
        .attempts
        == 1
    )


def test_what_was_reported_after_the_last_checkpoint_comes_again(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "def train(context):\n"
        "    start = int(context.checkpoint.name[-1]) if context.checkpoint else 0\n"
        "    for i in range(start, 5):\n"
        "        kept = context.directory / f'checkpoint-{i + 1}'\n"
        "        if i % 2: kept.write_text('')\n"
        "        context.report({'value': i}, kept if i % 2 else None)\n"
        "        if i == 2 and not start: raise RuntimeError\n"
    )
    experiment = {"run": f"{path}:train", "config": {}}
    results = run(experiment, directory=tmp_path / "run", progress="none")
    (trial,) = results.trials
    assert [row["value"] for row in trial.results] == [0, 1, 2, 3, 4]
    assert trial.attempts == 1


def test_what_is_refused_is_not_retried(tmp_path):
    results = run(
        {"run": f"{PATH}:nothing", "config": {}}, directory=tmp_path, progress="none"
    )
    (trial,) = results.failed
    assert trial.attempts == 0 and "has no function or class 'nothing'" in trial.error


LAUNCHER = """
import signal, sys
# Also where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {places!r}
from test_runner import sweep
sweep({directory!r}, "fork", config={{"pause": 0.1, "epochs": 8}}, seeds=2)
"""


def start_launcher(directory):
    """A launcher in a process, once each of its two slots has results."""
    places = [str(PATH.parent), str(PATH.parent / "tuning")]
    code = LAUNCHER.format(places=places, directory=str(directory))
    launcher = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: len(list(directory.glob("*/checkpoint-2"))) >= 2)
    children = [int(path.read_text()) for path in directory.glob("*/child")]
    running = processes_of(directory)
    assert len(running) == 2 and len(children) >= 2
    return launcher, children + running


@linux
def test_a_killed_launcher_leaves_no_process_and_is_gone_on_with(tmp_path):
    launcher, others = start_launcher(tmp_path)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(map(is_alive, others)), 5)
    started = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert 2 <= len(started) < 8
    results = sweep(tmp_path, "fork", config={"pause": 0.1, "epochs": 8}, seeds=2)
    for trial in results.trials:
        assert trial.status == "finished" and trial.attempts == 0
        assert [row["epoch"] for row in trial.results] == list(range(8))
        starts = (trial.directory / "log.txt").read_text().count("--- started")
        assert starts == 1 or trial.name in started
    assert any(
        (trial.directory / "log.txt").read_text().count("--- started") == 2
        for trial in results.trials
    )
    children = [int(path.read_text()) for path in tmp_path.glob("*/child")]
    # What a trial leaves in its group ends with it.
    wait_until(lambda: not any(map(is_alive, children)), 5)
    assert not processes_of(tmp_path)


@linux
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_an_interrupted_launcher_ends_its_trials(number, code, tmp_path):
    launcher, others = start_launcher(tmp_path)
    launcher.send_signal(number)
    assert launcher.wait(20) == code
    wait_until(lambda: not any(map(is_alive, others)), 5)
    states = [Trial.load(path.parent) for path in tmp_path.glob("*/trial.json")]
    assert {state.status for state in states} <= {"pending", "finished"}


def test_two_launchers_do_not_share_a_directory(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="Another launcher"):
        sweep(tmp_path)


def test_each_experiment_says_how_often_its_trials_may_crash(tmp_path):
    crashing = {"config": {"crashes": 9, "speed": 1.0}}
    named = {
        "never": {**experiment("crash", **crashing), "max_failures": 0},
        "twice": {**experiment("crash", **crashing), "max_failures": 2},
        "once": experiment("crash", **crashing),
    }
    found = run(named, directory=tmp_path / "a", slots=3, progress="none").trials
    assert {x.experiment: x.attempts for x in found} == {
        "never": 1,
        "twice": 3,
        "once": 2,
    }


def test_what_was_stopped_stays_so_when_its_launcher_is_interrupted(tmp_path):
    trial = Trial("a", "toy", None, {}, {}, seed=0, directory=tmp_path / "a")

    class Leaving:
        """A process that has said that it was stopped, and is about to exit."""

        end = {"status": "stopped"}
        has_exited = signal = staticmethod(lambda number=0: True)
        messages = close = staticmethod(lambda: [])

    process = Leaving()
    process.trial = trial
    nothing = {"say": print, "on_change": list, "on_tick": list}
    runner = Runner([trial], tmp_path, Slots(1), **nothing)
    runner.running = [process]
    runner._end()
    assert Trial.load(trial.directory).status == "stopped"


# Schedulers -------------------------------------------------------------------


class Recorded(Scheduler):
    """Does what a function of trial and result says, and keeps the calls."""

    def __init__(self, decide):
        self.decide = decide
        self.ended = []
        self.state = {}

    def on_result(self, trial, result, trials):
        return self.decide(trial, result, trials)

    def on_end(self, trial, trials):
        self.ended.append((trial.name, trial.status))

    def get_state(self):
        return {"ended": len(self.ended)}

    def set_state(self, state):
        self.state = state


def test_a_scheduler_stops_trials(tmp_path, capsys):
    def decide(trial, result, trials):
        assert len(trials) == 4 and trial.result == result
        slow = result["episode_return_mean"] < 5 and result["env_steps"] >= 200
        return Stop("too slow") if slow else Continue()

    scheduler = Recorded(decide)
    results = sweep(tmp_path, scheduler=scheduler, progress="lines")
    assert [x.status for x in results.trials] == ["stopped"] * 2 + ["finished"] * 2
    assert [len(x.results) for x in results.trials] == [2, 2, 5, 5]
    assert (
        "stopped after 200 steps, episode_return_mean 4.00: too slow"
        in capsys.readouterr().out
    )
    assert sorted(scheduler.ended) == sorted((x.name, x.status) for x in results.trials)
    assert json.loads((tmp_path / "scheduler.json").read_text()) == {"ended": 4}
    # What was stopped is over.
    again = Recorded(decide)
    assert sweep(tmp_path, scheduler=again).trials == results.trials
    assert again.state == {"ended": 4} and not again.ended


def test_a_paused_trial_goes_on_where_it_was(tmp_path):
    seen = []

    def decide(trial, result, trials):
        seen.append(trial.number)
        return Pause() if result["env_steps"] in (100, 300) else Continue()

    results = sweep(tmp_path, slots=1, scheduler=Recorded(decide))
    for trial in results.trials:
        assert trial.status == "finished" and trial.attempts == 0
        assert [row["env_steps"] for row in trial.results] == [100, 200, 300, 400, 500]
        log = (trial.directory / "log.txt").read_text()
        assert log.count("--- started") == 3
    assert len(seen) == 20


def test_a_trial_that_is_paused_at_its_end_has_ended(tmp_path):
    scheduler = Recorded(lambda trial, result, trials: Pause())
    (trial,) = sweep(
        tmp_path, config={"speed": 1.0}, stop={"env_steps": 200}, scheduler=scheduler
    ).trials
    assert trial.status == "finished" and len(trial.results) == 2
    assert (trial.directory / "log.txt").read_text().count("--- started") == 2


def test_a_trial_goes_on_from_a_copy_of_anothers_checkpoint(tmp_path):
    def decide(trial, result, trials):
        donor = trials[3]
        if trial is donor:
            return Continue(checkpoint=True)
        if trial.number == 0 and result["env_steps"] == 300:
            return Exploit(donor, {**donor.settings, "speed": 10.0})
        return Continue()

    class LastFirst(Recorded):
        def choose(self, trials):
            return super().choose(list(reversed(trials)))

    results = sweep(tmp_path, slots=1, scheduler=LastFirst(decide))
    trial, donor = results.trials[0], results.trials[3]
    assert trial.settings["speed"] == 10.0 and trial.status == "finished"
    (entry,) = trial.lineage
    assert (entry["donor"], entry["rows"]) == (donor.name, 3)
    assert entry["settings_before"]["speed"] == 1.0
    # The donor had finished: nothing was left to do, and its rows stay its own.
    assert [row["env_steps"] for row in trial.results] == [100, 200, 300]
    (copy,) = trial.directory.glob("checkpoint-*")
    assert copy.name == "checkpoint-5-of-00003-0" and trial.checkpoint == copy
    assert copy.read_bytes() == donor.checkpoint.read_bytes()
    (line,) = (tmp_path / "pbt.jsonl").read_text().splitlines()
    assert json.loads(line) == entry
    # A second call knows what the settings were at first.
    assert sweep(tmp_path, slots=1, scheduler=LastFirst(decide)).trials[0] == trial


def test_a_scheduler_that_chooses_nothing_is_named(tmp_path):
    class Nothing(Scheduler):
        def choose(self, trials):
            return None

    with pytest.raises(RuntimeError, match="4 trials wait and the scheduler"):
        sweep(tmp_path, scheduler=Nothing())


# Functions --------------------------------------------------------------------


def test_a_slot_sets_variables_of_its_trials(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr("kerasrl.tuning.slots.available_cores", lambda: 6)
    config = {"num_gpus": grid_search([0, 1, 2]), "speed": 1.0}
    results = sweep(tmp_path, "show_environment", config=config)
    found = [
        json.loads((trial.directory / "environment.json").read_text())
        for trial in results.trials
    ]
    assert {each["OMP_NUM_THREADS"] for each in found} == {"3"}
    assert found[0]["CUDA_VISIBLE_DEVICES"] == ""
    assert found[1]["CUDA_VISIBLE_DEVICES"] in ("4", "7")
    assert found[2]["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_a_criterion_that_is_not_reported_is_refused(tmp_path):
    config = {"speed": 1.0}
    stop = {"episode_retrun_mean": 3}
    results = sweep(tmp_path, config=config, stop=stop, retries=0)
    assert "Did you mean 'episode_return_mean'" in results.failed[0].error


def test_a_function_of_this_module_is_found(tmp_path):
    results = run(
        {"run": light_trials.without_checkpoint, "stop": {"env_steps": 1}},
        directory=tmp_path,
        progress="none",
    )
    (trial,) = results.trials
    assert trial.run == "light_trials:without_checkpoint"
    assert [row["env_steps"] for row in trial.results] == [0, 1]
    assert trial.checkpoint is None


@pytest.mark.parametrize("run_", [lambda context: None, 3])
def test_what_trials_cannot_import_is_refused(run_, tmp_path):
    with pytest.raises((TypeError, ValueError), match="run"):
        run({"run": run_, "config": {}}, directory=tmp_path)


def test_importing_imports_no_tensorflow():
    code = (
        "import sys\n"
        "from kerasrl.tuning import run_experiments, trial_process, queue_file\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'matplotlib', 'optuna', 'ray'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert result.returncode == 0, result.stderr
