"""Whole episodes without learning."""

import numpy as np

from kerasrl.rollouts import Collector
from kerasrl.rollouts.evaluation import play
from kerasrl.training import origins, progress

_ROLLOUT_LENGTH = 64


def evaluate(agent, envs, episodes, deterministic, seed, verbose):
    """Implements `Agent.evaluate` on environments."""
    actor = agent.actor(deterministic)
    actor.refresh()
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
    generators = [np.random.default_rng(seed) for seed in seeds[0]]
    collector = Collector(envs, actor, _ROLLOUT_LENGTH, generators)
    if not deterministic:
        collector.exploration = agent.exploration_inputs(envs.num_envs)
    origins.apply(agent.policy, envs)
    collector.reset(seeds[1])
    with progress.Evaluation(agent, episodes, verbose) as shown:
        return play(collector, episodes, shown.update)
