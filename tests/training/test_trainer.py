"""Training one iteration at a time, and what reaches it from environments."""

import gc
import logging
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from envs.for_workers import Long
from tiny import make

import kerasrl
from kerasrl import testing
from kerasrl.training import loop


class Noting(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)

    def on_train_end(self, logs=None):
        self.seen.append("end")


def weights(agent):
    return [keras.ops.convert_to_numpy(x) for x in agent.policy.variables]


@pytest.mark.parametrize(
    "name, num_workers",
    [("A2C", 2), pytest.param("DQN", 0, marks=pytest.mark.slow)],
)
def test_iterating_is_fitting(name, num_workers):
    arguments = {
        "steps": 160,
        "steps_per_epoch": 60,
        "num_envs": 2,
        "num_workers": num_workers,
        "verbose": 0,
    }
    fitted, iterated = make(name), make(name)
    fitted.compile(run_eagerly=True)
    iterated.compile(run_eagerly=True)
    history = fitted.fit("CartPole-v1", **arguments)
    callback, results = Noting(), []
    for result in iterated.iterate("CartPole-v1", callbacks=callback, **arguments):
        results.append(result)
        iterated.workers.foreach_worker(lambda worker: None)
    for a, b in zip(weights(fitted), weights(iterated), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(results) == iterated.iterations == fitted.iterations
    assert [x["iterations"] for x in results] == list(range(1, len(results) + 1))
    assert results[-1]["env_steps"] == history.history["env_steps"][-1]
    assert (
        results[-1]["episode_return_mean"]
        == (history.history["episode_return_mean"][-1])
    )
    assert "loss" in results[-1]
    assert callback.seen == ["begin", *history.epoch, "end"]
    assert iterated.envs is None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_episodes_and_environments_live_on_between_iterations(num_workers):
    agent = make("PPO", rollout_length=8)
    agent.compile(run_eagerly=True)
    run = agent.iterate(Long, steps=160, num_envs=2, num_workers=num_workers, verbose=0)
    with pytest.raises(RuntimeError, match="iterate"):
        agent.workers  # noqa: B018  (nothing has begun)
    for number, result in enumerate(run, 1):
        assert (
            agent.foreach_env(lambda env: env.unwrapped.time) == [8 * number % 50] * 2
        )
        assert sum(agent.workers.foreach_worker(lambda w: w.envs.num_envs)) == 2
        assert result["episodes"] == 2 * (8 * number // 50)
    assert result["episode_length_mean"] == 50.0


def test_callbacks_see_the_end_of_an_epoch_before_its_last_result():
    agent, callback = make("PPO", rollout_length=8), Noting()
    agent.compile(run_eagerly=True)
    run = agent.iterate(
        Long, epochs=2, steps_per_epoch=32, num_envs=2, callbacks=callback, verbose=0
    )
    next(run)
    assert callback.seen == ["begin"]
    next(run)
    assert callback.seen == ["begin", 0]
    run.close()
    assert callback.seen == ["begin", 0, "end"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def leave_by_close(run):
    run.close()


def leave_by_collection(run):
    del run
    gc.collect()


def leave_by_error(run):
    with pytest.raises(ZeroDivisionError):
        run.throw(ZeroDivisionError)


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_collection, leave_by_error])
def test_leaving_ends_everything(leave):
    agent, callback = make("A2C"), Noting()
    agent.compile(run_eagerly=True)
    runs = [
        agent.iterate(
            Long, 200, num_envs=2, num_workers=1, callbacks=callback, verbose=0
        )
    ]
    next(runs[0])
    pids = agent.workers.pids
    assert all(map(alive, pids))
    with pytest.raises(RuntimeError, match="trained already"):
        agent.fit(Long, 10, verbose=0)
    leave(runs.pop())
    assert agent.envs is None and not any(map(alive, pids))
    assert callback.seen == ["begin", "end"]
    agent.fit(Long, 10, num_envs=1, verbose=0)


def test_nothing_begins_before_the_first_iteration():
    envs = []

    def make_env():
        envs.append(Long())
        return envs[-1]

    agent = make("A2C")
    agent.iterate(make_env, 200, num_envs=2, verbose=0).close()
    assert not envs
    run = agent.iterate(make_env, 200, num_envs=2, verbose=0)
    agent.compile(run_eagerly=True)
    next(run)
    run.close()
    assert len(envs) == 2 and all(env.closed for env in envs)


def test_weights_that_are_set_between_iterations_act():
    agent = make("A2C")
    agent.compile("sgd", run_eagerly=True)
    agent.policy.optimizer.learning_rate = 0.0
    run = agent.iterate(testing.RandomEndsEnv, 40, num_envs=2, verbose=0)
    next(run)
    zeros = [np.zeros_like(x) for x in agent.get_weights()]
    for variable, zero in zip(agent.policy.weights, zeros, strict=True):
        variable.assign(zero)
    next(run)
    program = agent.actor().program
    assert not any(np.any(array) for array in program.weights)


def test_speed_is_that_of_training(monkeypatch):
    """Not of what is done between iterations."""
    agent, callback, away = make("A2C"), Noting(), 0.0
    agent.compile(run_eagerly=True)
    clock = time.perf_counter
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock() + away)
    arguments = {"steps": 60, "steps_per_epoch": 20, "num_envs": 2, "verbose": 0}
    for _ in agent.iterate(Long, callbacks=callback, **arguments):
        away += 1e6
    speeds = agent.policy.history.history["steps_per_second"]
    assert len(speeds) == 3 and min(speeds) > 0.01


def test_epochs_end_under_a_strategy():
    """Whose variables, the learning rate among them, are no numbers of Python's."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        agent = make("A2C")
        agent.compile(keras.optimizers.RMSprop(0.25), run_eagerly=False)
    history = agent.fit("CartPole-v1", steps=20, num_envs=2, verbose=0).history
    assert history["learning_rate"] == [0.25]


def test_metrics_that_a_callback_compiles_are_logged():
    class Compile(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                agent.compile(metrics=["mae"], run_eagerly=True)

    agent, seen = make("A2C"), []
    agent.compile(run_eagerly=True)
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, x: seen.append(x))
    callbacks = [Compile(), after]
    sizes = {"steps": 60, "steps_per_epoch": 20, "num_envs": 2}
    agent.fit("CartPole-v1", callbacks=callbacks, verbose=0, **sizes)
    assert ["mae" in logs for logs in seen] == [False, True, True]


def test_scaling_rewards_leaves_the_rollout_of_callbacks_alone():
    class Keep(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            kept.append((rollout, rollout.rewards.copy()))

    kept = []
    agent = make("A2C", normalize_rewards=True)
    agent.compile(run_eagerly=True)
    agent.fit(testing.RandomEndsEnv, 40, num_envs=2, callbacks=[Keep()], verbose=0)
    for rollout, rewards in kept:
        np.testing.assert_array_equal(rollout.rewards, rewards)
    assert agent.reward_scaler.count > 0


class Extra(kerasrl.PPO):
    """Records what it acted by, and learns with that and with infos."""

    def act(self, inputs, deterministic):
        outputs = super().act(inputs, deterministic)
        first = inputs["observations"][:, 0]
        return {**outputs, "first": first, "twice": {"value": 2.0 * first}}

    def targets(self, rollout):
        targets = super().targets(rollout)
        return {**targets, "again": rollout["extras"]["first"]}

    def loss(self, batch, outputs, settings):
        loss, metrics = super().loss(batch, outputs, settings)
        first, extras = batch["observations"][:, 0], batch["extras"]
        difference = abs(first - extras["first"]) + abs(first - batch["again"])
        difference += abs(2.0 * first - extras["twice"]["value"])
        return loss, {
            **metrics,
            "difference": keras.ops.max(difference),
            "time": keras.ops.max(batch["infos"]["time"] / 50 - first),
            "pair": keras.ops.mean(batch["infos"]["pair"][:, 1]),
        }


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_acting_and_environments_say_reaches_the_loss(num_workers):
    seen = []

    class Rollouts(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            seen.append(rollout.infos)

    agent = Extra(rollout_length=8, num_epochs=1, minibatch_size=16, seed=0)
    agent.compile(run_eagerly=True)
    logs = agent.fit(
        Long,
        steps=32,
        num_envs=2,
        num_workers=num_workers,
        info_keys=("time", "name", "pair"),
        callbacks=Rollouts(),
        verbose=0,
    ).history
    assert logs["difference"] == [0.0]
    assert logs["time"][0] == pytest.approx(1 / 50)
    assert logs["pair"] == [2.0]
    assert seen[0]["time"][:, 0].tolist() == list(range(1, 9))
    assert seen[0]["name"].tolist() == [["long", "long"]] * 8


def test_info_keys_are_names():
    for value in ("time", 3, [1]):
        with pytest.raises(ValueError, match="info_keys"):
            make("A2C").fit(Long, 10, info_keys=value, verbose=0)


def test_what_goes_on_is_logged(caplog, tmp_path):
    caplog.set_level(logging.INFO, "kerasrl")
    agent = make("DQN", learning_starts=0)
    agent.fit("CartPole-v1", steps=32, num_envs=2, num_workers=1, verbose=0)
    kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    text = caplog.text
    for message in (
        "Training DQN on CartPole-v1: 32 environment steps in 2 environments",
        "It runs in numpy",
        "Traced the update of DQN",
        "Started workers",
        "Saved",
        "Loaded",
    ):
        assert message in text, message
    assert "Nothing is learnt" not in text
    make("DQN").fit("CartPole-v1", steps=32, num_envs=2, verbose=0)
    assert "Nothing is learnt yet: this fit ends at 32" in caplog.text
