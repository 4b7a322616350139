import json
import math

import keras
import numpy as np
import pytest

import kerasrl
from kerasrl.callbacks import AgentCheckpoint


def names(path):
    return sorted(each.name for each in path.iterdir())


def test_numbered_ones_and_how_many_are_kept(agent, tmp_path):
    callback = AgentCheckpoint(tmp_path, every=2, keep=2, keep_best=False)
    agent.fit([callback], [{}] * 3, iterations=3)
    assert agent.saved == [f"checkpoint-{i}" for i in (2, 4, 6, 8, 9)]
    assert names(tmp_path) == ["checkpoint-8", "checkpoint-9"]
    assert callback.last_path == tmp_path / "checkpoint-9"


def test_the_last_one_has_the_weights_that_training_ended_with(agent, tmp_path):
    """Callbacks may restore the best ones, optimizers may average them."""

    class Restore(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.set_weights([w + 1 for w in self.model.get_weights()])

    callback = AgentCheckpoint(tmp_path, every=1, keep=2, keep_best=False)
    agent.fit([Restore(), callback], [{}] * 3)
    assert agent.saved == [f"checkpoint-{i}" for i in (1, 2, 3, 3)]
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    agent.fit([callback], [{}])
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_only_its_own_files_are_removed(agent, tmp_path):
    (tmp_path / "checkpoint-1").write_text("another run's")
    agent.iterations = 100
    agent.fit([AgentCheckpoint(tmp_path, every=1, keep=1, keep_best=False)], [{}] * 3)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-103"]


def test_best(agent, tmp_path, returns):
    callback = AgentCheckpoint(tmp_path, every=0)
    agent.fit([callback], returns(math.nan, 5.0, 9.0, math.nan, 8.0))
    assert agent.saved == ["checkpoint-best"] * 2 + ["checkpoint-5"]
    assert callback.best == 9.0
    assert json.loads((tmp_path / "checkpoint-best").read_text())["iterations"] == 3
    record = json.loads((tmp_path / "checkpoint-best.json").read_text())
    assert record["value"] == 9.0 and record["env_steps"] == 30


def test_best_of_a_minimum(agent, tmp_path):
    callback = AgentCheckpoint(tmp_path, every=0, monitor="cost", mode="min")
    agent.fit([callback], [{"cost": value} for value in (3.0, 1.0, 2.0)])
    assert callback.best == 1.0


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_nothing_unsound_is_written(agent, tmp_path, returns, what):
    callback = AgentCheckpoint(tmp_path, every=1, keep=None)
    agent.fit([callback], returns(1.0))
    good = (tmp_path / "checkpoint-best").read_text()
    if what == "weights":
        agent.set_weights([w * np.nan for w in agent.get_weights()])
    losses = [{"loss": math.nan if what == "loss" else 1.0}]
    agent.fit([callback], returns(99.0), batch_logs=losses)
    assert (tmp_path / "checkpoint-best").read_text() == good
    assert callback.best == 1.0
    assert not (tmp_path / "checkpoint-2").exists()


def test_a_resumed_run_keeps_the_best_of_before(agent, tmp_path, returns):
    agent.fit([AgentCheckpoint(tmp_path, every=0)], returns(9.0))
    resumed = AgentCheckpoint(tmp_path, every=0)
    agent.fit([resumed], returns(5.0))
    assert resumed.best == 9.0
    assert json.loads((tmp_path / "checkpoint-best").read_text())["iterations"] == 1


def test_a_fresh_run_in_the_same_place_does_not(agent, tmp_path, returns):
    agent.fit([AgentCheckpoint(tmp_path, every=0)], returns(9.0))
    agent.iterations = 0
    fresh = AgentCheckpoint(tmp_path, every=0)
    agent.fit([fresh], returns(5.0))
    assert fresh.best == 5.0


def test_unknown_monitor(agent, tmp_path, returns):
    with pytest.raises(ValueError, match="'evaluation_return_mean', which is not in"):
        agent.fit(
            [AgentCheckpoint(tmp_path, monitor="evaluation_return_mean")], returns(1.0)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every": -1}, "every"), ({"keep": 0}, "keep"), ({"mode": "best"}, "mode")],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=f"{message} must be"):
        AgentCheckpoint(tmp_path, **arguments)


def test_a_real_agent_goes_on_from_its_checkpoint(tmp_path):
    def fit(agent, steps, callbacks=None):
        agent.fit(
            "CartPole-v1", steps=steps, num_envs=2, callbacks=callbacks, verbose=0
        )

    agent = kerasrl.PPO(rollout_length=16, num_epochs=1, minibatch_size=32, seed=1)
    agent.compile(run_eagerly=True)
    checkpoint = AgentCheckpoint(tmp_path, every=2)
    fit(agent, 128, [checkpoint])
    assert names(tmp_path)[:2] == ["checkpoint-2", "checkpoint-4"]
    loaded = kerasrl.load(tmp_path / "checkpoint-4")
    assert loaded.iterations == 4 and loaded.env_steps == 128
    fit(agent, 64)
    fit(loaded, 64)
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_an_earlier_process_wrote_is_its_own(agent, tmp_path, returns):
    (tmp_path / "checkpoint-99").write_text("of a later moment")
    arguments = {"every": 1, "keep": 2}
    agent.fit([AgentCheckpoint(tmp_path, **arguments)], returns(5.0, 9.0, 5.0))
    # As after taking over what was learnt in fewer iterations.
    agent.iterations = 1
    resumed = AgentCheckpoint(
        tmp_path, **arguments, resumed_from=tmp_path / "checkpoint-1-of-00003-0"
    )
    agent.fit([resumed], returns(5.0))
    assert resumed.best == 9.0
    agent.iterations = 3
    resumed = AgentCheckpoint(
        tmp_path, **arguments, resumed_from=tmp_path / "checkpoint-3"
    )
    agent.fit([resumed], returns(5.0, 5.0))
    kept = ["checkpoint-4", "checkpoint-5", "checkpoint-99"]
    assert names(tmp_path) == [*kept, "checkpoint-best", "checkpoint-best.json"]
