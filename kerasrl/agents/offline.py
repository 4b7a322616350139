"""How agents learn from a dataset: by transitions, or by imitating what was done."""

from functools import partial

import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.training import minibatches, mixing
from kerasrl.training.hyperparameters import Hyperparameter

#: Arguments of agents that imitate.
KINDS = {
    "batch_size": Hyperparameter(checks.positive_integer, "fit"),
    "updates_per_call": Hyperparameter(checks.positive_integer, "fit"),
}


# Transitions --------------------------------------------------------------------


def transition_arguments(agent):
    """Returns how an agent that learns from replay reads a dataset.

    Args:
        agent: An `OffPolicyAgent`, built.

    Raises:
        ValueError: It asks for what only a replay buffer has.
    """
    asked = {
        "n_step": agent.n_step > 1,
        "prioritized": agent.prioritized,
        "hindsight": agent.hindsight is not None,
        "normalize_rewards": agent.normalize_rewards,
        "a policy with memory": agent.policy.is_recurrent,
        f"a policy that reads {agent.previous_inputs}": bool(agent.previous_inputs),
    }
    found = [name for name, is_asked in asked.items() if is_asked]
    if found:
        raise ValueError(
            f"Received {', '.join(found)}. {type(agent).__name__} reads single steps "
            "of a dataset, which do not have it. Leave it out, or put the dataset into "
            "replay: dataset.to_replay(agent)."
        )
    return {"batch_size": agent.batch_size}


def learn_transitions(agent, batches):
    """Takes gradient steps on batches of transitions.

    Args:
        agent: An `OffPolicyAgent`, built.
        batches: Dict of arrays `[K, N, ...]`, as a reader of a dataset has them.

    Returns:
        Dict of floats: the loss and its terms.
    """
    shape = batches["rewards"].shape
    batches = {
        **batches,
        "discounts": np.float32(agent.gamma) * ~batches["terminated"],
        "steps": np.ones(shape, np.int32),
        "weights": np.ones(shape, np.float32),
    }
    numbers = np.arange(agent.updates, agent.updates + len(batches["rewards"]))
    update = agent.compiled_update(agent._updates)
    logs = update(batches, agent.scheduled_values(), agent.due(numbers))
    agent.updates += len(numbers)
    return {**logs, "gradient_steps": float(len(numbers))}


# Imitation ----------------------------------------------------------------------


def learn_imitation(agent, batches):
    """Takes gradient steps on batches of what was done, and perhaps what came of it.

    Args:
        agent: An `Agent` with `imitate(batch, settings)`, built.
        batches: As for `learn_transitions`; `[K, N, L, ...]` for policies with memory.

    Returns:
        Dict of floats: the loss and its terms.
    """
    mask = batches.get("mask", np.ones(batches["rewards"].shape, bool))
    batches = {**batches, "mask": mask.astype(np.float32)}
    if agent.policy.is_recurrent:
        batches = mixing.with_memory(agent.policy, batches)
    update = agent.compiled_update(partial(_imitations, agent))
    return update(batches, agent.scheduled_values())


def _imitations(agent, batches, scheduled_values):
    settings = dict(zip(agent.scheduled, tf.unstack(scheduled_values), strict=True))

    def step(number):
        batch = tf.nest.map_structure(lambda x: x[number], batches)
        return agent.imitate(batch, settings), ()

    return minibatches.repeat(batches["rewards"].shape[0], step)
