import math

import keras
import numpy as np
import pytest

import kerasrl
from kerasrl.callbacks import PeriodicEvaluation


def test_every_so_many_epochs(agent):
    agent.returns = [1.0, 2.0]
    callback = PeriodicEvaluation("Env", every_epochs=2, episodes=3, seed=5)
    history = agent.fit([callback], [{}] * 5).history
    assert [call[0] for call in agent.evaluations] == [20, 40]
    _, env, kwargs = agent.evaluations[0]
    assert env == "Env" and kwargs["episodes"] == 3 and kwargs["seed"] == 5
    np.testing.assert_array_equal(
        history["evaluation_return_mean"], [np.nan, 1.0, np.nan, 2.0, np.nan]
    )
    assert len(history["evaluation_return_std"]) == 5
    assert callback.results[1]["env_steps"] == 40


@pytest.mark.parametrize(
    ("every_steps", "expected"), [(20, [20, 40, 60]), (25, [30, 50]), (5, [10, 20, 30])]
)
def test_every_so_many_steps(agent, every_steps, expected):
    agent.returns = [1.0] * 6
    agent.fit([PeriodicEvaluation("Env", every_steps=every_steps)], [{}] * 6)
    assert [call[0] for call in agent.evaluations][: len(expected)] == expected


def test_steps_count_from_the_start_of_this_fit(agent):
    agent.env_steps = 1000
    agent.returns = [1.0]
    agent.fit([PeriodicEvaluation("Env", every_steps=30)], [{}] * 3)
    assert [call[0] for call in agent.evaluations] == [1030]


def test_keeps_the_best(agent, tmp_path):
    agent.returns = [1.0, 5.0, 3.0]
    seen = []

    class Drift(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            weights = [w + 1.0 for w in agent.get_weights()]
            agent.set_weights(weights)
            seen.append(weights)

    callback = PeriodicEvaluation(
        "Env",
        every_epochs=1,
        best_path=tmp_path / "deep" / "best.kerasrl",
        restore_best_weights=True,
    )
    agent.fit([Drift(), callback], [{}] * 3)
    assert callback.best == 5.0 and callback.best_env_steps == 20
    assert agent.saved == ["best.kerasrl"] * 2
    for restored, best in zip(agent.get_weights(), seen[1], strict=True):
        np.testing.assert_array_equal(restored, best)


def test_early_stopping_monitors_it(agent):
    agent.returns = [1.0, 3.0, 2.0, 1.0]
    early = keras.callbacks.EarlyStopping(
        "evaluation_return_mean", mode="max", patience=2
    )
    history = agent.fit([PeriodicEvaluation("Env", every_epochs=1), early], [{}] * 4)
    assert len(history.epoch) == 4 and agent.policy.stop_training


def test_bad_arguments():
    with pytest.raises(ValueError, match="not both"):
        PeriodicEvaluation("Env", every_epochs=1, every_steps=1)
    with pytest.raises(ValueError, match="episodes must be at least 1. Received: 0"):
        PeriodicEvaluation("Env", episodes=0)


def test_with_a_real_agent_leaves_training_alone():
    def train(callbacks):
        agent = kerasrl.PPO(rollout_length=16, num_epochs=1, seed=3)
        agent.compile(run_eagerly=True)
        history = agent.fit(
            "CartPole-v1",
            steps=128,
            steps_per_epoch=32,
            num_envs=2,
            callbacks=callbacks,
            verbose=0,
        )
        return agent.get_weights(), history.history

    plain, _ = train([])
    evaluated, history = train([PeriodicEvaluation("CartPole-v1", every_steps=64)])
    for a, b in zip(plain, evaluated, strict=True):
        np.testing.assert_array_equal(a, b)
    values = history["evaluation_return_mean"]
    assert [math.isnan(value) for value in values] == [True, False, True, False]
    assert max(value for value in values if not math.isnan(value)) >= 8


def test_it_goes_on_as_if_training_had_not_been_interrupted(agent):
    agent.returns = [1.0] * 9
    agent.fit([PeriodicEvaluation("Env", every_steps=25)], [{}] * 8)
    whole = [call[0] for call in agent.evaluations]
    agent.evaluations.clear()
    agent.env_steps = 0
    for epochs in (1, 2, 5):
        callback = PeriodicEvaluation("Env", every_steps=25)
        callback.counts_from = agent.env_steps
        agent.fit([callback], [{}] * epochs)
    assert [call[0] for call in agent.evaluations] == whole == [30, 50, 80]
