"""Learning from replayed sequences: their buffer, their number, their burn-in."""

import keras

from kerasrl import checks
from kerasrl.agents import buffers
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.replay import SequenceReplayBuffer
from kerasrl.rollouts.rollout import POLICY_INPUTS
from kerasrl.training import gradients, passes, reading
from kerasrl.training.hyperparameters import Hyperparameter

#: Arguments of agents that learn from sequences.
KINDS = {
    "burn_in": Hyperparameter(checks.natural, "replay"),
    "sequence_length": Hyperparameter(checks.positive_integer, "replay"),
    "period": Hyperparameter(checks.positive_integer, "replay"),
}


#: Their values where nothing else is said.
DEFAULTS = {"burn_in": 10, "sequence_length": 20, "period": 10}


def are_learnt(agent):
    """Returns whether an agent learns from sequences, because its policy remembers."""
    return agent.policy.is_recurrent


def make_buffer(agent, num_envs):
    """Makes an empty buffer, of sequences where those are learnt from.

    Args:
        agent: An `OffPolicyAgent` with the arguments of `KINDS`.
        num_envs: Integer, the environments that it will be filled from.

    Returns:
        A `kerasrl.replay.SequenceReplayBuffer`, or as from `buffers.make`.

    Raises:
        ValueError: Nothing remembers, and yet there is something said of sequences.
    """
    if not agent.learns_sequences:
        given = {name: getattr(agent, name) for name in DEFAULTS}
        if given != DEFAULTS:
            said = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ValueError(
                f"Received {said} and a policy without memory, which learns from "
                "single steps. Give the policy a cell, or leave these out."
            )
        return buffers.make(agent, num_envs)
    options = dict(agent.replay or {})
    exponent = options.pop("priority_exponent", 0.9)
    state = keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(x)[0], agent.policy.get_initial_state(1)
    )
    given = {
        "capacity": agent.buffer_size,
        "observation_space": agent.policy.observation_space,
        "action_space": agent.policy.action_space,
        "num_envs": num_envs,
        # One more row, to bootstrap from.
        "sequence_length": agent.burn_in + agent.sequence_length + 1,
        "period": agent.period,
        "state_example": state,
        "priority_exponent": exponent if agent.prioritized else None,
        **reading.kept(agent),
        **buffers.stacking(agent),
    }
    options = checks.keywords("replay", options, SequenceReplayBuffer, given)
    return SequenceReplayBuffer(**given, **options)


def per_batch(agent):
    """Returns how many samples make a batch: sequences, if those are learnt from."""
    if not agent.learns_sequences:
        return agent.batch_size
    return max(1, agent.batch_size // agent.sequence_length)


def iteration_length(agent, num_envs):
    """Returns the steps of an iteration in each environment.

    Args:
        agent: As for `make_buffer`.
        num_envs: Integer.
    """
    if not agent.learns_sequences:
        return OffPolicyAgent.iteration_length(agent, num_envs)
    return agent.period


def num_updates(agent, num_envs):
    """Returns how many gradient steps one compiled call takes.

    Args:
        agent, num_envs: As for `iteration_length`.
    """
    if not agent.learns_sequences:
        return OffPolicyAgent.num_updates(agent, num_envs)
    steps = agent.period * num_envs * agent.gradient_steps
    return max(agent.updates_per_call, steps // agent.train_every)


def prepared(agent, batch):
    """Runs the target network over sequences, and then leaves out their burn-in.

    Args:
        agent: As for `make_buffer`, in an update.
        batch: Dict of sequences `[N, L, ...]`, with `"state"` `[N, ...]`.

    Returns:
        Single steps as they are. Of sequences, the batch of the rows behind the burn-in
        and the state before them, by the policy itself, with `"target_outputs"`, the
        outputs of the target network. No gradient reaches what came before.
    """
    if not agent.learns_sequences:
        return batch
    with agent.target.scope():
        batch = {**batch, "target_outputs": passes.forward(agent.policy, batch)}
    if not agent.burn_in:
        return batch
    names = (*POLICY_INPUTS, "episode_starts")
    rows = passes.swap({name: batch[name] for name in names})
    rows = keras.tree.map_structure(lambda x: x[: agent.burn_in], rows)
    starts = rows.pop("episode_starts")
    state = agent.policy.unroll(rows, batch["state"], starts)["state"]
    batch = {
        # What is one number for a sequence stays.
        name: value
        if name == "state"
        else keras.tree.map_structure(
            lambda x: x if len(x.shape) == 1 else x[:, agent.burn_in :], value
        )
        for name, value in batch.items()
    }
    state = keras.tree.map_structure(keras.ops.stop_gradient, state)
    return {**batch, "state": state}


def update(agent, batch, settings):
    """Takes one gradient step, as `OffPolicyAgent.update`."""
    return gradients.gradient_step(agent, prepared(agent, batch), settings)
