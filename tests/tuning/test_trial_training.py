"""What the process of an agent's trial does, in the process of the tests."""

import json

import numpy as np
import pytest

from kerasrl import load
from kerasrl.tuning import training
from kerasrl.tuning.link import Leave
from kerasrl.tuning.taking_over import take_over
from kerasrl.tuning.trial import Trial

SETTINGS = {
    "gamma": 0.9,
    "lr": 1e-3,
    "policy": {"hidden_units": [4]},
    "rollout_length": 16,
    "num_envs": 2,
    "steps_per_epoch": 32,
    "num_epochs": 1,
    "minibatch_size": 16,
}


class Told:
    """A link to nobody, with answers that were written before."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.rows = []
        self.checkpoints = []
        self.started = None

    def start(self, rows):
        self.started = rows

    def result(self, row):
        self.rows.append(row)
        return self.answers.pop(0) if self.answers else "continue"

    def checkpoint(self, path):
        self.checkpoints.append(path and path.name)


def make_trial(directory, **entries):
    arguments = {
        "stop": {"env_steps": 96},
        "settings": SETTINGS,
        "options": {"eager": True, "checkpoint_freq": 0},
        **entries,
    }
    trial = Trial(
        name="a", run="PPO", env="CartPole-v1", seed=3, directory=directory, **arguments
    )
    trial.save()
    return trial


def leave(trial, link):
    """Trains until the launcher says how it ends; returns what it said."""
    with pytest.raises(Leave) as caught:
        training.prepare(trial, link)()
    return caught.value.status


def test_a_pause_changes_nothing(tmp_path):
    whole = make_trial(tmp_path / "whole")
    link = Told()
    assert training.prepare(whole, link)() == "env_steps = 96 reached 96"
    assert link.started == 0 and link.checkpoints == ["checkpoint-3"]
    assert [row["env_steps"] for row in link.rows] == [32, 64, 96]
    parts = make_trial(tmp_path / "parts")
    assert leave(parts, Told("continue", "pause")) == "paused"
    parts.checkpoint = parts.directory / "checkpoint-2"
    # Of a later moment, as a killed process would leave it.
    with open(parts.directory / "result.json", "a") as file:
        file.write(json.dumps({"epoch": 2, "env_steps": 96}) + "\n")
    link = Told()
    training.prepare(parts, link)()
    assert link.started == 2 and link.rows[0]["epoch"] == 2
    lines = (parts.directory / "result.json").read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in lines] == [32, 64, 96]
    table = (parts.directory / "progress.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["epoch", "0", "1", "2"]


def test_a_trial_that_has_all_its_steps_is_finished(tmp_path):
    trial = make_trial(tmp_path / "a", stop={"epochs": 2})
    training.prepare(trial, Told())()
    trial.checkpoint = trial.directory / "checkpoint-2"
    link = Told()
    assert training.prepare(trial, link)() == "epochs reached 2"
    assert not link.rows
    trial.stop = {"env_steps": 64}
    assert training.prepare(trial, Told())() == "all steps are done"


def test_a_trial_that_is_paused_at_its_end_is_finished(tmp_path):
    answers = ("continue", "continue", "pause")
    trial = make_trial(tmp_path / "a")
    assert training.prepare(trial, Told(*answers))() == "env_steps = 96 reached 96"
    trial = make_trial(tmp_path / "b", stop={})
    trial.options["steps"] = 96
    assert training.prepare(trial, Told(*answers))() == "all steps are done"


def test_what_is_exploited_is_the_donors_bit_for_bit(tmp_path):
    donor = make_trial(tmp_path / "donor")
    link = Told("checkpoint", "stop")
    assert leave(donor, link) == "stopped"
    assert link.checkpoints == ["checkpoint-1", "checkpoint-2"]
    donor.checkpoint = donor.directory / "checkpoint-2"
    trial = make_trial(tmp_path / "trial", settings={**SETTINGS, "gamma": 0.5})
    # What it has learnt is given up, and not saved.
    assert leave(trial, Told("exploit")) == "exploit"
    assert not list(trial.directory.glob("checkpoint-?"))
    trial.read_results()
    take_over(trial, donor, {**SETTINGS, "gamma": 0.8, "lr": 4e-3})
    assert trial.checkpoint.read_bytes() == donor.checkpoint.read_bytes()
    # Also a launcher that is killed here finds it so.
    trial = Trial.load(trial.directory)
    agent = load(trial.checkpoint)
    assert agent.gamma == 0.9
    before = agent.policy.get_weights()
    training.take_over(agent, trial, training.find_algorithm("PPO"))
    assert agent.gamma == 0.8
    assert float(agent.policy.optimizer.learning_rate) == pytest.approx(4e-3)
    for old, new in zip(before, agent.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    link = Told()
    training.prepare(trial, link)()
    # Its own rows stay, and the donor's count goes on.
    steps = [row["env_steps"] for row in trial.results]
    assert steps == [32] and link.rows[0]["env_steps"] == 96
    agent = load(trial.directory / "checkpoint-3")
    assert agent.gamma == 0.8 and agent.seed == donor.seed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"policy": {"hidden_units": [8]}}, "policy.hidden_units cannot change"),
        ({"optimizer": {"epsilon": 1e-3}}, "optimizer.epsilon cannot change"),
    ],
)
def test_what_cannot_change_is_refused(changed, message, tmp_path):
    donor = make_trial(tmp_path / "donor", stop={"env_steps": 32})
    training.prepare(donor, Told())()
    donor.checkpoint = donor.directory / "checkpoint-1"
    trial = make_trial(tmp_path / "trial")
    take_over(trial, donor, {**SETTINGS, **changed})
    with pytest.raises(Exception, match=message):
        training.prepare(trial, Told())


def test_training_has_ended_by_the_steps_that_fit_counts():
    class Several:
        counted, env_steps, agent_steps, stop_training = "agent_steps", 5, 10, False

    class Logger:
        row: dict = {}

    reporter = training.Reporter(Told("pause", "pause"), Logger(), None, 10)
    several = Several()
    reporter.set_agent(several)
    reporter.set_model(several)
    reporter.on_epoch_end(0)  # Nothing is left to start again for.
    several.agent_steps = 9
    with pytest.raises(AttributeError, match="save"):
        reporter.on_epoch_end(0)
