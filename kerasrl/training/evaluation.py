"""Whole episodes without learning."""

import numpy as np

from kerasrl.rollouts import Collector
from kerasrl.training import origins, progress
from kerasrl.training.statistics import spread

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
    wanted = spread(episodes, envs.num_envs)
    records = []
    with progress.Evaluation(agent, episodes, verbose) as shown:
        while any(wanted):
            collector.collect()
            for record in collector.drain_episodes():
                if wanted[record.env_index]:
                    wanted[record.env_index] -= 1
                    records.append(record)
            shown.update(records)
    returns = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
    }
