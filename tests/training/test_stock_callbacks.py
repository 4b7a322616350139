"""Every callback that comes with Keras works in `fit`, unchanged."""

import itertools
import json

import keras
import numpy as np
import pytest

import kerasrl


def tensorboard(path):
    return keras.callbacks.TensorBoard(
        path / "logs", histogram_freq=1, update_freq="batch"
    )


CALLBACKS = {
    "TensorBoard": tensorboard,
    "ModelCheckpoint": lambda path: keras.callbacks.ModelCheckpoint(
        path / "best.keras", monitor="loss", save_best_only=True
    ),
    "ModelCheckpointWeights": lambda path: keras.callbacks.ModelCheckpoint(
        path / "{epoch}.weights.h5", save_weights_only=True, save_freq=2
    ),
    "EarlyStopping": lambda path: keras.callbacks.EarlyStopping(
        monitor="env_steps", mode="min", patience=1, restore_best_weights=True
    ),
    "ReduceLROnPlateau": lambda path: keras.callbacks.ReduceLROnPlateau(
        monitor="env_steps", mode="min", factor=0.5, patience=1, min_delta=0.0
    ),
    "LearningRateScheduler": lambda path: keras.callbacks.LearningRateScheduler(
        lambda epoch: 10.0 ** -(epoch + 2)
    ),
    "CSVLogger": lambda path: keras.callbacks.CSVLogger(path / "log.csv"),
    "TerminateOnNaN": lambda path: keras.callbacks.TerminateOnNaN(),
    "BackupAndRestore": lambda path: keras.callbacks.BackupAndRestore(
        path / "backup", delete_checkpoint=False
    ),
    "LambdaCallback": lambda path: keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (path / f"{epoch}.json").write_text(
            json.dumps(logs)
        )
    ),
    "SwapEMAWeights": lambda path: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
    "ProgbarLogger": lambda path: keras.callbacks.ProgbarLogger(),
}


def check(name, path, agent, history, output):
    """What the callback must have done after four epochs."""
    epochs = len(history.epoch)
    if name == "TensorBoard":
        assert list((path / "logs").rglob("events*"))
    elif name == "ModelCheckpoint":
        loaded = keras.models.load_model(path / "best.keras")
        assert len(loaded.get_weights()) == len(agent.get_weights())
    elif name == "ModelCheckpointWeights":
        assert len(list(path.glob("*.weights.h5"))) >= 2
    elif name == "EarlyStopping":
        assert epochs == 2
    elif name == "ReduceLROnPlateau":
        assert history.history["learning_rate"][-1] < 1e-2
    elif name == "LearningRateScheduler":
        np.testing.assert_allclose(
            history.history["learning_rate"], [1e-2, 1e-3, 1e-4, 1e-5], rtol=1e-5
        )
    elif name == "CSVLogger":
        lines = (path / "log.csv").read_text().splitlines()
        assert len(lines) == 5 and "episode_return_mean" in lines[0]
    elif name == "BackupAndRestore":
        assert list((path / "backup").rglob("*.h5"))
    elif name == "LambdaCallback":
        logs = json.loads((path / "3.json").read_text())
        assert logs["env_steps"] == 256
    elif name == "ProgbarLogger":
        assert "Epoch 4/4" in output and "gradient_norm" in output
    if name != "EarlyStopping":
        assert epochs == 4


def ppo():
    return kerasrl.PPO(rollout_length=16, num_epochs=1, minibatch_size=64, seed=1)


def dqn():
    return kerasrl.DQN(
        policy={"hidden_units": (8,)},
        learning_starts=0,
        batch_size=8,
        updates_per_call=16,
        seed=1,
    )


#: Those that change what a compiled update reads; the others only see the loop.
OF_UPDATES = {"EarlyStopping", "BackupAndRestore", "SwapEMAWeights"}
OF_UPDATES |= {"LearningRateScheduler"}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param(
            *each,
            marks=() if each[1] is ppo or each[0] in OF_UPDATES else pytest.mark.slow,
        )
        for each in itertools.product(CALLBACKS, (ppo, dqn))
    ],
)
def test_stock_callback(name, make, tmp_path, capsys):
    agent = make()
    agent.compile(
        keras.optimizers.Adam(1e-2, use_ema=name == "SwapEMAWeights"),
        jit_compile=False,
        # Compiled where they change what that reads: it takes longer than the updates.
        run_eagerly=name not in OF_UPDATES,
    )
    history = agent.fit(
        "CartPole-v1",
        epochs=4,
        steps_per_epoch=64,
        num_envs=4,
        callbacks=[CALLBACKS[name](tmp_path)],
        verbose=int(name == "ProgbarLogger"),
    )
    check(name, tmp_path, agent, history, capsys.readouterr().out)


def test_backup_and_restore_goes_on_after_the_last_finished_epoch(tmp_path):
    def run(callbacks):
        agent = kerasrl.A2C(seed=1)
        agent.compile(run_eagerly=True)
        return agent, agent.fit(
            "CartPole-v1",
            epochs=4,
            steps_per_epoch=40,
            callbacks=[
                keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False),
                *callbacks,
            ],
            verbose=0,
        )

    def crash(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([keras.callbacks.LambdaCallback(on_epoch_end=crash)])
    _, history = run([])
    assert history.epoch == [3]


def test_terminate_on_nan_stops_quietly():
    agent = kerasrl.PPO(rollout_length=16, seed=1)
    agent.compile(keras.optimizers.SGD(float("inf")))
    history = agent.fit(
        "CartPole-v1",
        epochs=10,
        steps_per_epoch=128,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )
    assert len(history.epoch) < 10


class TestMonitorsOfWhatHasNoValueYet:
    """Pendulum's episodes are longer than the first epochs of these runs."""

    @staticmethod
    def fit(*callbacks, epochs=6):
        agent = kerasrl.A2C({"hidden_units": (4,)}, rollout_length=25, seed=0)
        agent.compile(run_eagerly=True)
        return agent.fit(
            "Pendulum-v1",
            epochs=epochs,
            steps_per_epoch=100,
            num_envs=1,
            callbacks=list(callbacks),
            verbose=0,
        ).history

    def test_early_stopping(self):
        stop = keras.callbacks.EarlyStopping(
            "episode_return_mean", mode="max", patience=1, restore_best_weights=True
        )
        history = self.fit(stop)
        returns = history["episode_return_mean"]
        assert np.isnan(returns[0]) and np.isfinite(returns[1])
        # Two epochs have the same last episode: the second is no improvement.
        assert len(returns) == 3
        assert stop.best == returns[1] and stop.best_epoch == 1

    def test_model_checkpoint(self, tmp_path):
        save = keras.callbacks.ModelCheckpoint(
            tmp_path / "{epoch}.keras",
            monitor="episode_return_mean",
            mode="max",
            save_best_only=True,
        )
        self.fit(save, epochs=3)
        assert [path.name for path in tmp_path.iterdir()] == ["2.keras"]

    def test_reduce_learning_rate(self):
        reduce = keras.callbacks.ReduceLROnPlateau(
            "evaluation_return_mean", mode="max", patience=1, factor=0.1
        )
        evaluation = kerasrl.callbacks.PeriodicEvaluation(
            "Pendulum-v1", every_epochs=5, episodes=1
        )
        rates = self.fit(evaluation, reduce, epochs=6)["learning_rate"]
        np.testing.assert_allclose(rates, 7e-4, rtol=1e-4)

    def test_tables_have_their_columns(self, tmp_path):
        self.fit(keras.callbacks.CSVLogger(tmp_path / "log.csv"), epochs=2)
        head, first, second = (tmp_path / "log.csv").read_text().splitlines()
        column = head.split(",").index("episode_return_mean")
        assert first.split(",")[column] == "nan"
        assert float(second.split(",")[column]) < 0
