"""How experience is made: rollouts, and collectors that make them in this process.

An actor chooses, environments answer, and the collector writes down both with the ends
of episodes kept apart. It uses environments and spaces, and never TensorFlow.
"""

import importlib

from kerasrl.rollouts.collector import Collector
from kerasrl.rollouts.episodes import Episode, EpisodeRecord
from kerasrl.rollouts.evaluation import evaluate
from kerasrl.rollouts.reward_scaling import RewardScaler
from kerasrl.rollouts.rollout import Rollout
from kerasrl.rollouts.scripted import ScriptedPolicy

__all__ = [
    "Collector",
    "Episode",
    "EpisodeRecord",
    "RewardScaler",
    "Rollout",
    "ScriptedPolicy",
    "evaluate",
]

#: Where they live that once lived here.
_MOVED = {
    "Actor": ("kerasrl.actors", "Actor"),
    "build_actor": ("kerasrl.actors", "build_actor"),
    "workers": ("kerasrl.workers", None),
}


def __getattr__(name):
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _MOVED[name]
    module = importlib.import_module(module)
    return module if attribute is None else getattr(module, attribute)
