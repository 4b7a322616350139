"""Agents: one algorithm per file."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"kerasrl trains on TensorFlow, but Keras uses {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
    )

from kerasrl.agents.a2c import A2C  # noqa: E402
from kerasrl.agents.agent import Agent  # noqa: E402
from kerasrl.agents.on_policy import OnPolicyAgent  # noqa: E402
from kerasrl.agents.pg import PG  # noqa: E402
from kerasrl.agents.ppo import PPO  # noqa: E402

__all__ = ["A2C", "PG", "PPO", "Agent", "OnPolicyAgent"]
