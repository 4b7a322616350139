"""A rollout of zeros, to try on what learns from rollouts."""

import numpy as np
import optree

from kerasrl.rollouts import Rollout
from kerasrl.training import acting


def example_rollout(agent, num_steps, num_envs):
    """Makes a rollout in which nothing happens.

    Args:
        agent: An `Agent` that was built.
        num_steps, num_envs: Integers `T` and `B`.

    Returns:
        A `kerasrl.rollouts.Rollout`, with the extras that acting returns.
    """
    actor = agent.actor()
    inputs = optree.tree_map(
        lambda x: np.repeat(x, num_envs, axis=0),
        acting.example_inputs(agent, "stochastic"),
    )
    generators = [np.random.default_rng(0) for _ in range(num_envs)]
    acted = actor(inputs, [noise[0] for noise in actor.draw(generators, 1)])

    def over_time(tree):
        return optree.tree_map(lambda x: np.repeat(x[None], num_steps, axis=0), tree)

    names = ("observations", "previous_actions", "previous_rewards")
    seen = {name: inputs[name] for name in names}
    never = np.zeros((num_steps, num_envs), bool)
    starts = never.copy()
    starts[0] = True
    return Rollout(
        **over_time(seen),
        actions=over_time(acted.pop("actions")),
        rewards=np.zeros(never.shape, np.float32),
        terminated=never,
        truncated=never.copy(),
        valid=~never,
        episode_starts=starts,
        state=inputs["state"],
        next_inputs={**seen, "episode_starts": never[0]},
        extras=over_time({k: v for k, v in acted.items() if k != "state"}),
    )
