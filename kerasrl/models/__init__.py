"""Policies: `keras.Model`s that agents act with and train.

`Policy` is what all agents rely on, with the hooks `custom_loss` and `custom_metrics`;
beside it are the default networks, their trunks, cells and encoders of observations,
and the layers that they are made of. They use distributions and sums over replicas, and
know no agent and no environment.
"""

from kerasrl.models.action_value_policy import ActionValuePolicy
from kerasrl.models.actor_critic import ActorCritic
from kerasrl.models.by_name import register_model
from kerasrl.models.deterministic_actor_critic import DeterministicActorCritic
from kerasrl.models.encoder import Encoder
from kerasrl.models.impala import ImpalaCNN
from kerasrl.models.implicit_actor_critic import ImplicitActorCritic
from kerasrl.models.initializers import Normc
from kerasrl.models.made import MADE
from kerasrl.models.noisy_dense import NoiseScope, NoisyDense
from kerasrl.models.normalization import RunningNormalization
from kerasrl.models.policy import Policy
from kerasrl.models.q_function import QFunction
from kerasrl.models.q_network import QNetwork
from kerasrl.models.soft_actor_critic import SoftActorCritic
from kerasrl.models.trunks import CNN, MLP, NATURE_FILTERS, MixedTrunk

__all__ = [
    "CNN",
    "MADE",
    "MLP",
    "MixedTrunk",
    "NATURE_FILTERS",
    "ActionValuePolicy",
    "ActorCritic",
    "DeterministicActorCritic",
    "Encoder",
    "ImpalaCNN",
    "ImplicitActorCritic",
    "NoiseScope",
    "NoisyDense",
    "Normc",
    "Policy",
    "QFunction",
    "QNetwork",
    "RunningNormalization",
    "SoftActorCritic",
    "register_model",
]
