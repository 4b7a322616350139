import glob

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.hparams import plugin_data_pb2

import kerasrl
from kerasrl.callbacks import EnvStepTensorBoard


def read(directory):
    """{tag: [(step, value), ...]} of a directory's event files, and the text tags."""
    scalars, others = {}, set()
    for path in sorted(glob.glob(f"{directory}/events*")):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin == "scalars" or value.tag in scalars:
                    number = float(tf.make_ndarray(value.tensor))
                    scalars.setdefault(value.tag, []).append((event.step, number))
                else:
                    others.add(value.tag)
    return scalars, others


def test_scalars_lie_on_environment_steps(agent, tmp_path):
    epochs = [
        {"loss": 2.0, "episode_return_mean": np.nan, "steps_per_second": 5.0},
        {"loss": 1.0, "episode_return_mean": 30.0, "evaluation_return_mean": 40.0},
    ]
    agent.fit([EnvStepTensorBoard(tmp_path)], epochs, iterations=3, steps=10)
    scalars, others = read(tmp_path)
    assert scalars["train/loss"] == [(30, 2.0), (60, 1.0)]
    assert scalars["episodes/episode_return_mean"] == [(60, 30.0)]
    assert scalars["evaluation/evaluation_return_mean"] == [(60, 40.0)]
    assert scalars["time/steps_per_second"] == [(30, 5.0)]
    assert "config" in others and any("hparams" in tag for tag in others)


def test_batches(agent, tmp_path):
    callback = EnvStepTensorBoard(tmp_path, update_freq="batch", hyperparameters=False)
    losses = [{"loss": float(i)} for i in range(4)]
    agent.fit([callback], [{}, {}], iterations=2, steps=5, batch_logs=losses)
    scalars, others = read(tmp_path)
    assert scalars["iteration/loss"] == [(5, 0.0), (10, 1.0), (15, 2.0), (20, 3.0)]
    assert not others


def test_a_second_fit_goes_on_along_the_axis(tmp_path):
    agent = kerasrl.PPO(rollout_length=16, num_epochs=1, seed=0)
    callback = EnvStepTensorBoard(tmp_path)
    for _ in range(2):
        agent.fit("CartPole-v1", steps=64, num_envs=2, callbacks=[callback], verbose=0)
    scalars, _ = read(tmp_path)
    assert [step for step, _ in scalars["train/loss"]] == [64, 128]
    assert {"train/policy_loss", "train/value_loss", "train/entropy"} <= set(scalars)


def test_bad_update_freq(tmp_path):
    with pytest.raises(ValueError, match="update_freq.*'step'"):
        EnvStepTensorBoard(tmp_path, update_freq="step")


def hyperparameters(directory):
    """{name: value} of the HPARAMS tab."""
    found = {}
    for path in glob.glob(f"{directory}/events*"):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "_hparams_/session_start_info":
                    content = value.metadata.plugin_data.content
                    data = plugin_data_pb2.HParamsPluginData.FromString(content)
                    for name, number in data.session_start_info.hparams.items():
                        found[name] = getattr(number, number.WhichOneof("kind"))
    return found


def test_hyperparameters_are_plain_settings(tmp_path):
    agent = kerasrl.A2C(
        {"hidden_units": (4,)},
        entropy_coef=keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.0),
        seed=3,
    )
    agent.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    callbacks = [EnvStepTensorBoard(tmp_path)]
    agent.fit("CartPole-v1", steps=40, callbacks=callbacks, verbose=0)
    found = hyperparameters(tmp_path)
    expected = {
        "algorithm": "A2C",
        "env": "CartPole-v1",
        "gamma": 0.99,
        "seed": 3.0,
        "policy": "ActorCritic",
        "policy.hidden_units": "[4]",
        "entropy_coef": "PolynomialDecay",
        "entropy_coef.decay_steps": 100.0,
        "optimizer": "SGD",
        "optimizer.learning_rate": 0.5,
    }
    assert {name: found.get(name) for name in expected} == expected
    for name, value in found.items():
        assert not name.endswith(("module", "registered_name", "dtype", ".name")), name
        assert "object at 0x" not in str(value) and "kerasrl.models" not in str(value)


def test_functions_do_not_keep_a_run_from_being_written(tmp_path):
    agent = kerasrl.A2C({"hidden_units": (4,)}, entropy_coef=lambda progress: 0.1)
    agent.compile(jit_compile=False)
    callbacks = [EnvStepTensorBoard(tmp_path)]
    agent.fit("CartPole-v1", steps=40, callbacks=callbacks, verbose=0)
    assert hyperparameters(tmp_path)["entropy_coef"] == "a function"
