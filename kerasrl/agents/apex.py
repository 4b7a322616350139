"""What the Ape-X agents have in common: many actors, all curious to another degree."""

import math

import numpy as np

from kerasrl import checks
from kerasrl.agents.exploration import epsilon_ladder
from kerasrl.agents.off_policy import OffPolicyAgent
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

# How many times `n_step` a fragment is at least. The last `n_step` steps of it have
# nothing to bootstrap from yet, so that three of four are known.
_LEAST = 4


def records_values(agent):
    """Returns whether acting records what it thinks of actions, for `first_errors`.

    Args:
        agent: An `OffPolicyAgent` with `initial_priorities`.
    """
    return agent.initial_priorities and agent.prioritized


def iteration_length(agent, num_envs):
    """Returns the steps of an iteration in each environment.

    As of `OffPolicyAgent`, or a multiple of that where first priorities would hardly be
    known.

    Args:
        agent: An `OffPolicyAgent` with `initial_priorities`.
        num_envs: Integer `B`.
    """
    length = OffPolicyAgent.iteration_length(agent, num_envs)
    if not records_values(agent):
        return length
    return length * math.ceil(_LEAST * agent.n_step / length)


def num_updates(agent, num_envs):
    """Returns how many gradient steps one compiled call takes: more make more calls.

    Args:
        agent, num_envs: As for `iteration_length`.
    """
    steps = OffPolicyAgent.iteration_length(agent, num_envs) * num_envs
    return steps * agent.gradient_steps // agent.train_every


def first_errors(agent, rollout):
    """Computes first priorities from the values that acting recorded.

    Args:
        agent: An `OffPolicyAgent` with `initial_priorities`.
        rollout: A `kerasrl.rollouts.Rollout` `[T, B, ...]`.

    Returns:
        Float `[T, B]`, means over critics, NaN where they are not known; `None` if they
        are not wanted, or whoever acted did not record values.
    """
    if not records_values(agent):
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


def log_bands(agent, rates):
    """Has returns logged apart of environments with much, some and little exploration.

    Args:
        agent: An `Agent`. Where it does not act, in rollouts of others, nobody knows.
        rates: How much they explore: `None` for `epsilon_ladder` over the environments
            of all ranks, a list, or what is the same for all, whose returns are not
            logged apart.
    """
    names = None
    if agent.envs is not None:
        num_ranks, num_envs = agent.replicas.num_ranks, agent.envs.num_envs
        if rates is None:
            names = bands(epsilon_ladder(num_ranks * num_envs))
        elif isinstance(rates, list):
            names = bands(np.resize(rates, num_envs))
            names = names and names * num_ranks
    agent.statistics.group(names)


def bands(rates):
    """Returns the band of each environment, by the order of how much they explore.

    Args:
        rates: Floats, one for each environment.

    Returns:
        List of some of `BANDS`; `None` if all explore alike.
    """
    order = np.argsort(-np.asarray(rates), kind="stable").tolist()
    if rates[order[0]] == rates[order[-1]]:
        return None
    names = [""] * len(order)
    for place, env in enumerate(order):
        # Thirds, as even as can be: of two environments one is of either end.
        names[env] = BANDS[3 * (2 * place + 1) // (2 * len(order))]
    return names
