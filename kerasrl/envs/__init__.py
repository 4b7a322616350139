"""How environments come in: making, naming, spaces, autoreset.

Imports no TensorFlow.
"""

from kerasrl.envs.check import check_env
from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.envs.make import make_envs
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.envs.registration import EnvContext, register_env, registered_envs
from kerasrl.envs.serial import SerialEnvironments
from kerasrl.envs.spaces import clip_actions
from kerasrl.envs.vector import VectorEnvironments

__all__ = [
    "EnvContext",
    "EnvProtocolError",
    "EnvStep",
    "Environments",
    "SerialEnvironments",
    "VectorEnvironments",
    "check_env",
    "clip_actions",
    "make_envs",
    "register_env",
    "registered_envs",
]
