"""Agents: one algorithm per file, read from its constructor to its loss.

Beside the algorithms are the three base classes, `Agent`, `OnPolicyAgent` and
`OffPolicyAgent`, and the ways of exploring that several share. What they stand on is in
`training`; losses, models and replay buffers are used from their own rooms, and no
algorithm inherits from another.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"kerasrl trains on TensorFlow, but Keras uses {keras.backend.backend()!r}. "
        "Set the environment variable KERAS_BACKEND=tensorflow before importing keras."
    )

from kerasrl.agents.a2c import A2C  # noqa: E402
from kerasrl.agents.a3c import A3C  # noqa: E402
from kerasrl.agents.agent import Agent  # noqa: E402
from kerasrl.agents.apex_ddpg import ApexDDPG  # noqa: E402
from kerasrl.agents.apex_dqn import ApexDQN  # noqa: E402
from kerasrl.agents.appo import APPO  # noqa: E402
from kerasrl.agents.ars import ARS  # noqa: E402
from kerasrl.agents.bc import BC  # noqa: E402
from kerasrl.agents.building import build_agent_class  # noqa: E402
from kerasrl.agents.cql import CQL  # noqa: E402
from kerasrl.agents.ddpg import DDPG  # noqa: E402
from kerasrl.agents.dqn import DQN  # noqa: E402
from kerasrl.agents.es import ES  # noqa: E402
from kerasrl.agents.exploration import epsilon_ladder  # noqa: E402
from kerasrl.agents.impala import IMPALA  # noqa: E402
from kerasrl.agents.iql import IQL  # noqa: E402
from kerasrl.agents.marwil import MARWIL  # noqa: E402
from kerasrl.agents.off_policy import OffPolicyAgent  # noqa: E402
from kerasrl.agents.on_policy import OnPolicyAgent  # noqa: E402
from kerasrl.agents.pg import PG  # noqa: E402
from kerasrl.agents.ppo import PPO  # noqa: E402
from kerasrl.agents.r2d2 import R2D2  # noqa: E402
from kerasrl.agents.sac import SAC  # noqa: E402
from kerasrl.agents.simple_q import SimpleQ  # noqa: E402
from kerasrl.agents.td3 import TD3  # noqa: E402
from kerasrl.agents.td3bc import TD3BC  # noqa: E402
from kerasrl.training.hyperparameters import Hyperparameter  # noqa: E402
from kerasrl.training.passes import forward, next_outputs  # noqa: E402
from kerasrl.training.saving import load  # noqa: E402

__all__ = [
    "A2C",
    "A3C",
    "APPO",
    "ARS",
    "BC",
    "CQL",
    "DDPG",
    "DQN",
    "ES",
    "IMPALA",
    "IQL",
    "MARWIL",
    "PG",
    "PPO",
    "R2D2",
    "SAC",
    "TD3",
    "TD3BC",
    "Agent",
    "ApexDDPG",
    "ApexDQN",
    "Hyperparameter",
    "OffPolicyAgent",
    "OnPolicyAgent",
    "SimpleQ",
    "build_agent_class",
    "epsilon_ladder",
    "forward",
    "load",
    "next_outputs",
]
