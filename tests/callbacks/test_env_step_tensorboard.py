import glob

import numpy as np
import pytest
import tensorflow as tf

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
