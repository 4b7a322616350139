"""A scripted agent: callbacks are shown exactly the logs that a test wants."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasrl.callbacks import Callback
from kerasrl.distribute import Replicas


class ScriptedAgent:
    """Has an agent's public face; `fit` plays a list of epoch logs to the callbacks."""

    def __init__(self):
        self.policy = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        self.policy.observation_space = None
        self.policy.compile(optimizer=keras.optimizers.Adam(1e-3))
        self.env_name = "Scripted/Env-v0"
        self.seed = 7
        self.gamma = 0.5
        self.value_clip = None
        self.normalize_rewards = False
        self.env_steps = self.iterations = self.episodes = 0
        self.evaluations = []
        self.env_calls = []
        self.saved = []
        self.jit_compile = "auto"
        self.replicas = Replicas()

    def hyperparameters(self):
        return ["gamma", "seed"]

    @classmethod
    def from_config(cls, config):
        return cls()

    def get_config(self):
        return {"gamma": self.gamma, "policy": {"hidden_units": [4, 4]}, "seed": 7}

    def check_savable(self, path):
        """Whatever it is, it is only played."""

    def get_weights(self):
        return self.policy.get_weights()

    def set_weights(self, weights):
        self.policy.set_weights(weights)

    def save(self, path):
        path = Path(path)
        path.write_text(json.dumps({"iterations": self.iterations}))
        self.saved.append(path.name)
        return path

    def evaluate(self, env, **kwargs):
        self.evaluations.append((self.env_steps, env, kwargs))
        return {
            "return_mean": self.returns.pop(0),
            "return_std": 0.5,
            "length_mean": 9.0,
            "episodes": kwargs["episodes"],
        }

    def call_envs(self, name, *args):
        self.env_calls.append((name, *args))

    def fit(
        self, callbacks, epochs, iterations=1, steps=10, batch_logs=(), rollouts=()
    ):
        """Play `epochs` (a list of logs) with `iterations` of `steps` steps each."""
        rollouts, batch_logs = list(rollouts), list(batch_logs)
        hooks = keras.callbacks.CallbackList(
            callbacks, model=self.policy, add_history=True, epochs=len(epochs)
        )
        ours = [each for each in callbacks if isinstance(each, Callback)]
        for callback in ours:
            callback.set_agent(self)
        self.policy.stop_training = False
        hooks.on_train_begin()
        for epoch, logs in enumerate(epochs):
            hooks.on_epoch_begin(epoch)
            for iteration in range(iterations):
                hooks.on_train_batch_begin(iteration)
                if rollouts:
                    rollout = rollouts.pop(0)
                    for callback in ours:
                        callback.on_rollout_end(rollout)
                self.env_steps += steps
                self.iterations += 1
                losses = batch_logs.pop(0) if batch_logs else {"loss": 1.0}
                hooks.on_train_batch_end(iteration, losses)
                if self.policy.stop_training:
                    break
            hooks.on_epoch_end(epoch, dict(logs))
            if self.policy.stop_training:
                break
        hooks.on_train_end()
        return self.policy.history


@pytest.fixture
def agent():
    keras.utils.set_random_seed(0)
    return ScriptedAgent()


@pytest.fixture
def returns():
    """Epoch logs with these episode returns."""
    return lambda *values: [
        {"loss": 1.0, "episode_return_mean": np.float32(value)} for value in values
    ]
