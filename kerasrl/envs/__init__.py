"""How environments come in: making, naming, checking, stepping, autoreset.

Whatever the source, an instance, an id, a function or a vector environment, what comes
out is an `Environments` with the ends of episodes always told the same way. Actions are
converted here from what policies emit, and what environments answer is held against
their spaces. Imports no TensorFlow.
"""

from kerasrl.envs.action_mask import ActionMaskObservation
from kerasrl.envs.actions import clip_actions
from kerasrl.envs.check import check_env
from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.envs.make import make_envs
from kerasrl.envs.preprocessors import register_preprocessor
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.envs.registration import EnvContext, register_env, registered_envs
from kerasrl.envs.serial import SerialEnvironments
from kerasrl.envs.vector import VectorEnvironments

__all__ = [
    "ActionMaskObservation",
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
    "register_preprocessor",
    "registered_envs",
]
