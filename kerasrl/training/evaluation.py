"""Whole episodes without learning."""

import numpy as np

from kerasrl.rollouts import Collector
from kerasrl.rollouts.evaluation import play, spread
from kerasrl.training import behavior, origins, progress

_ROLLOUT_LENGTH = 64


def evaluate(agent, envs, episodes, deterministic, seed, verbose, output=None):
    """Implements `Agent.evaluate` on environments."""
    if output is None:
        return _play(agent, envs, episodes, deterministic, seed, verbose)
    asked = agent.records_log_probs
    quotas = spread(episodes, envs.num_envs)
    recorder = behavior.recorder(agent, envs, output, deterministic, quotas)
    try:
        # Within a `fit` that records, acting does so already.
        behavior.ask(agent, asked or not deterministic)
        return _play(agent, envs, episodes, deterministic, seed, verbose, recorder)
    finally:
        behavior.ask(agent, asked)
        recorder.close()


def _play(agent, envs, episodes, deterministic, seed, verbose, recorder=None):
    actor = agent.actor(deterministic)
    actor.refresh()
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
    generators = [np.random.default_rng(seed) for seed in seeds[0]]
    collector = Collector(envs, actor, _ROLLOUT_LENGTH, generators)
    collector.all_finals = recorder is not None
    if not deterministic:
        collector.exploration = agent.exploration_inputs(envs.num_envs)
    origins.apply(agent.policy, envs)
    collector.reset(seeds[1])
    with progress.Evaluation(agent, episodes, verbose) as shown:
        return play(collector, episodes, shown.update, recorder)
