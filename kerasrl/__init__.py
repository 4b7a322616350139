"""kerasrl: reinforcement learning with Keras 3 policies on TensorFlow.

Public names are resolved on first use, so that `import kerasrl.envs` or
`import kerasrl.rollouts` in a worker process never imports TensorFlow.

Example:

```python
import kerasrl

agent = kerasrl.PPO()
agent.fit("CartPole-v1", steps=100_000)
agent.evaluate("CartPole-v1", episodes=100)
```
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kerasrl.agents import (
        A2C,
        A3C,
        APPO,
        ARS,
        BC,
        CQL,
        DDPG,
        DQN,
        ES,
        IMPALA,
        IQL,
        MARWIL,
        PG,
        PPO,
        R2D2,
        SAC,
        TD3,
        TD3BC,
        Agent,
        ApexDDPG,
        ApexDQN,
        OffPolicyAgent,
        OnPolicyAgent,
        SimpleQ,
        build_agent_class,
        load,
    )
    from kerasrl.distributions import register_distribution
    from kerasrl.envs import check_env, make_envs, register_env, register_preprocessor
    from kerasrl.experiment.tuned_settings import tuned
    from kerasrl.models import register_model
    from kerasrl.multi_agent import QMIX, VDN, MultiAgent
    from kerasrl.rollouts import ScriptedPolicy, evaluate
    from kerasrl.workers import RayCluster, SharedValue

_PUBLIC = {
    "Agent": "kerasrl.agents",
    "OnPolicyAgent": "kerasrl.agents",
    "OffPolicyAgent": "kerasrl.agents",
    "DQN": "kerasrl.agents",
    "DDPG": "kerasrl.agents",
    "TD3": "kerasrl.agents",
    "SAC": "kerasrl.agents",
    "R2D2": "kerasrl.agents",
    "SimpleQ": "kerasrl.agents",
    "PG": "kerasrl.agents",
    "A2C": "kerasrl.agents",
    "PPO": "kerasrl.agents",
    "ES": "kerasrl.agents",
    "ARS": "kerasrl.agents",
    "A3C": "kerasrl.agents",
    "IMPALA": "kerasrl.agents",
    "APPO": "kerasrl.agents",
    "BC": "kerasrl.agents",
    "CQL": "kerasrl.agents",
    "IQL": "kerasrl.agents",
    "TD3BC": "kerasrl.agents",
    "MARWIL": "kerasrl.agents",
    "ApexDQN": "kerasrl.agents",
    "ApexDDPG": "kerasrl.agents",
    "build_agent_class": "kerasrl.agents",
    # Which knows all that can be in a file.
    "load": "kerasrl.multi_agent",
    "MultiAgent": "kerasrl.multi_agent",
    "QMIX": "kerasrl.multi_agent",
    "VDN": "kerasrl.multi_agent",
    "check_env": "kerasrl.envs",
    "make_envs": "kerasrl.envs",
    "ScriptedPolicy": "kerasrl.rollouts",
    "RayCluster": "kerasrl.workers",
    "SharedValue": "kerasrl.workers",
    "evaluate": "kerasrl.rollouts",
    "register_distribution": "kerasrl.distributions",
    "register_env": "kerasrl.envs",
    "register_model": "kerasrl.models",
    "register_preprocessor": "kerasrl.envs",
    "tuned": "kerasrl.experiment.tuned_settings",
}
_MODULES = (
    "actors",
    "agents",
    "callbacks",
    "checkpoint",
    "distribute",
    "distributions",
    "envs",
    "estimates",
    "execution",
    "losses",
    "models",
    "multi_agent",
    "offline",
    "optimizers",
    "plotting",
    "replay",
    "rollouts",
    "testing",
    "training",
    "tuning",
    "workers",
)

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
    "MultiAgent",
    "PG",
    "PPO",
    "QMIX",
    "R2D2",
    "SAC",
    "TD3",
    "TD3BC",
    "VDN",
    "Agent",
    "ApexDDPG",
    "ApexDQN",
    "OffPolicyAgent",
    "OnPolicyAgent",
    "ScriptedPolicy",
    "RayCluster",
    "SharedValue",
    "SimpleQ",
    "build_agent_class",
    "check_env",
    "evaluate",
    "load",
    "make_envs",
    "register_distribution",
    "register_env",
    "register_model",
    "register_preprocessor",
    "tuned",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"kerasrl.{name}")
    raise AttributeError(f"module 'kerasrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])
