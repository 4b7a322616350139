"""How experience is made: actors, rollouts and collectors, without TensorFlow."""

from kerasrl.rollouts.actor import Actor, build_actor
from kerasrl.rollouts.collector import Collector
from kerasrl.rollouts.episodes import Episode, EpisodeRecord
from kerasrl.rollouts.reward_scaling import RewardScaler
from kerasrl.rollouts.rollout import Rollout

__all__ = [
    "Actor",
    "Collector",
    "Episode",
    "EpisodeRecord",
    "RewardScaler",
    "Rollout",
    "build_actor",
]
