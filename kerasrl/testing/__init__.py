"""Probe environments with known answers, to test agents, policies and wrappers.

Each isolates one thing that can go wrong, and says in its docstring what a correct
agent finds. Small enough that seconds of training decide.

Imports no TensorFlow.
"""

from kerasrl.testing.agreement import AgreementEnv
from kerasrl.testing.goals import BitFlippingEnv
from kerasrl.testing.masks import IllegalActionsEnv
from kerasrl.testing.memory import MemoryEnv, StatelessCartPole, StatelessPendulum
from kerasrl.testing.probes import (
    ConstantRewardEnv,
    ContinuousIdentityEnv,
    IdentityEnv,
    TwoRoundEnv,
)
from kerasrl.testing.rules import CountingEnv, NestedEnv, RandomEndsEnv

__all__ = [
    "AgreementEnv",
    "BitFlippingEnv",
    "ConstantRewardEnv",
    "ContinuousIdentityEnv",
    "CountingEnv",
    "IdentityEnv",
    "IllegalActionsEnv",
    "MemoryEnv",
    "NestedEnv",
    "RandomEndsEnv",
    "StatelessCartPole",
    "StatelessPendulum",
    "TwoRoundEnv",
]
