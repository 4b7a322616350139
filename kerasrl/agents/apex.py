"""What the Ape-X agents have in common: many actors, all curious to another degree."""

import numpy as np

from kerasrl import checks
from kerasrl.replay import first_errors as errors_of_one
from kerasrl.training.hyperparameters import Hyperparameter

#: Arguments of agents of this kind.
KINDS = {
    "initial_priorities": Hyperparameter(checks.flag, "act"),
    "synchronous": Hyperparameter(checks.flag, "fit"),
    "lag": Hyperparameter(checks.natural, "fit"),
}

#: Names of the bands that returns are logged of, from curious to greedy.
BANDS = ("exploring", "middle", "greedy")


def first_errors(agent, rollout):
    """Computes first priorities from the values that acting recorded.

    Args:
        agent: An `OffPolicyAgent` with `initial_priorities`.
        rollout: A `kerasrl.rollouts.Rollout` `[T, B, ...]`.

    Returns:
        Float `[T, B]`, means over critics, NaN where they are not known; `None` if they
        are not wanted, or whoever acted did not record values.
    """
    if not (agent.initial_priorities and agent.prioritized):
        return None
    if not {"taken_values", "best_values"} <= set(rollout.extras):
        return None
    rewards = rollout.rewards
    if agent.reward_scaler is not None:
        rewards = agent.reward_scaler.scale(rewards)
    best = rollout.extras["best_values"]
    errors = [
        errors_of_one(rollout, rewards, values, best, agent.n_step, agent.gamma)
        for values in np.moveaxis(rollout.extras["taken_values"], -1, 0)
    ]
    return np.mean(errors, axis=0)


def log_bands(agent, rates, num_envs):
    """Has returns logged apart of environments with much, some and little exploration.

    Args:
        agent: An `Agent`.
        rates: How much they explore: `None` for `epsilon_ladder`, a list, or what is
            the same for all, whose returns are not logged apart.
        num_envs: Integer `B`.
    """
    if rates is None:
        order = np.arange(num_envs)
    elif isinstance(rates, list):
        order = np.argsort(-np.resize(rates, num_envs), kind="stable")
    else:
        agent.statistics.group(None)
        return
    names = [""] * num_envs
    for place, env in enumerate(order.tolist()):
        # Thirds, as even as can be: of two environments one is of either end.
        names[env] = BANDS[3 * (2 * place + 1) // (2 * num_envs)]
    agent.statistics.group(names)
