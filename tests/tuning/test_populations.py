"""Populations of real processes, also after their launcher was killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import json, math, os, sys
from kerasrl.tuning import (
    PopulationBasedTraining, grid_search, loguniform, run_experiments,
)

def train(context):
    state = {"env_steps": 0, "level": 0.0}
    if context.checkpoint is not None:
        state = json.loads(context.checkpoint.read_text())
    while state["env_steps"] < 40:
        for _ in range(5):
            distance = math.log(context.settings["aim"]) - state["env_steps"] / 40
            state["level"] += math.exp(-distance**2)
            state["env_steps"] += 1
        path = context.directory / f"state-{state['env_steps']}"
        path.write_text(json.dumps(state))
        context.report(state, checkpoint=path)

if __name__ == "__main__":
    directory, slots = sys.argv[1:]
    run_experiments(
        {"toy": {"run": train, "config": {"aim": grid_search([0.2, 0.5, 1.0, 9.0])}}},
        slots=int(slots),
        directory=directory,
        scheduler=PopulationBasedTraining(
            {"aim": loguniform(0.1, 10.0)},
            interval=10,
            metric="level",
            synchronous=True,
        ),
        metric="level",
        progress="none",
    )
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(PROGRAM)

    def start(directory, slots):
        return subprocess.Popen(
            [sys.executable, str(path), str(tmp_path / directory), str(slots)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    return start


def lines(path):
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    # Times and, after a kill, the order of those of one barrier may differ.
    kept = ("trial", "donor", "donor_env_steps", "rows", "settings_before", "settings")
    rows = [{name: row[name] for name in kept} for row in rows]
    return sorted(rows, key=lambda row: (row["donor_env_steps"], row["trial"]))


def test_a_killed_launcher_goes_on_with_the_same_schedule(program, tmp_path):
    assert program("whole", 4).wait(60) == 0
    launcher = program("killed", 2)
    deadline = time.monotonic() + 60
    path = tmp_path / "killed" / "pbt.jsonl"
    while not lines(path):
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert program("killed", 2).wait(60) == 0
    schedule = lines(tmp_path / "whole" / "pbt.jsonl")
    assert len(schedule) >= 3
    assert lines(path) == schedule
