import math
import time

import keras
import pytest

import kerasrl
from kerasrl.callbacks import PeriodicEvaluation, StopOn


def test_a_value_of_the_logs(agent, returns):
    stop = StopOn({"episode_return_mean": 10})
    history = agent.fit([stop], returns(math.nan, 9.0, 10.0, 11.0))
    assert len(history.epoch) == 3
    assert stop.reason == "episode_return_mean = 10 reached 10"


def test_steps_are_looked_at_after_every_iteration(agent):
    agent.fit([StopOn({"env_steps": 25})], [{}] * 3, iterations=100, steps=10)
    assert agent.env_steps == 30


def test_epochs_count_those_of_this_fit(agent):
    stop = StopOn({"epochs": 2})
    for _ in range(2):
        assert len(agent.fit([stop], [{}] * 5).epoch) == 2


def test_time(agent):
    class Wait(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            time.sleep(0.02)

    agent.fit([Wait(), StopOn({"time_total_s": 0.05})], [{}] * 100)
    assert 2 <= agent.iterations <= 10


def test_whichever_comes_first(agent, returns):
    stop = StopOn({"episode_return_mean": 1000, "iterations": 2})
    agent.fit([stop], returns(1.0, 2.0, 3.0))
    assert stop.reason.startswith("iterations")


def test_unknown_name_gets_the_nearest(agent, returns):
    with pytest.raises(ValueError, match="Did you mean 'episode_return_mean'"):
        agent.fit([StopOn({"episode_reward_mean": 1})], returns(1.0))


def test_values_of_other_callbacks(agent):
    agent.returns = [1.0, 7.0, 9.0]
    callbacks = [
        PeriodicEvaluation("Env", every_epochs=1),
        StopOn({"evaluation_return_mean": 5}),
    ]
    assert len(agent.fit(callbacks, [{}] * 3).epoch) == 2


@pytest.mark.parametrize("criteria", [None, 475, {"env_steps": "many"}, {"loss": True}])
def test_not_numbers(criteria):
    with pytest.raises(TypeError, match="Received"):
        StopOn(criteria)


def test_nothing_to_stop_on():
    with pytest.raises(ValueError, match="empty"):
        StopOn({})


def test_in_a_real_fit():
    agent = kerasrl.PPO(rollout_length=16, num_epochs=1, seed=0)
    agent.fit(
        "CartPole-v1",
        steps=10_000,
        num_envs=2,
        callbacks=[StopOn({"env_steps": 90})],
        verbose=0,
    )
    assert agent.env_steps == 96
