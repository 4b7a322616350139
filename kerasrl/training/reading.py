"""What policies read and acting returns, which replay buffers have to keep."""

import logging
import warnings

import numpy as np
import optree
import tensorflow as tf

from kerasrl.losses import IMPOSSIBLE
from kerasrl.rollouts.rollout import BEHAVIOR_LOG_PROBS
from kerasrl.training import acting, graphs

_logger = logging.getLogger(__name__)

# Steps that a return sums over at most, to guess how large it may be.
_LONGEST = 1000


def previous_inputs_read(policy):
    """Returns the names of the previous inputs that what a policy returns depends on.

    Args:
        policy: A `kerasrl.models.Policy` with weights.

    Returns:
        List of some of `"previous_actions"` and `"previous_rewards"`; empty for
        recurrent policies, which learn from sequences that have both.
    """
    if type(policy).__module__.startswith("kerasrl.models."):
        return []  # The built-in ones feed them to a cell only.
    if policy.is_recurrent:
        return []
    example = policy.example_inputs(2)
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), example
    )

    def call(inputs):
        return policy(inputs), policy(inputs, training=True)

    traced = tf.function(call, autograph=False)
    graph = traced.get_concrete_function(specs)
    # Leaves are in the order of sorted names; variables come after them.
    names = [name for name in sorted(specs) for _ in tf.nest.flatten(specs[name])]
    places = zip(names, graph.inputs, strict=False)
    used = graphs.ancestors(graph.outputs)
    read = {name for name, tensor in places if tensor.op in used}
    return sorted(read & {"previous_actions", "previous_rewards"})


def kept(agent):
    """Returns what a replay buffer has to keep besides what all of them do.

    Args:
        agent: An `OffPolicyAgent` with weights.

    Returns:
        Dict of arguments of `kerasrl.replay.ReplayBuffer`, or of
        `kerasrl.replay.SequenceReplayBuffer` if the agent learns from sequences.
    """
    arguments = {"extras_example": extras_example(agent), "keep_infos": True}
    if not agent.learns_sequences:
        arguments["previous_inputs"] = agent.previous_inputs
    return arguments


def refuse_previous_inputs(agent):
    """Raises a ValueError if a policy reads what single steps of a dataset have not.

    Args:
        agent: An `Agent` with weights.
    """
    read = previous_inputs_read(agent.policy)
    if read:
        raise ValueError(
            f"{type(agent.policy).__name__} reads {read}, which single steps of a "
            "dataset do not have. Give it memory (get_initial_state), to learn from "
            "sequences, or leave them out."
        )


def extras_example(agent):
    """Returns what else `act` returns, a dict of trees of arrays of one environment.

    Args:
        agent: An `OffPolicyAgent` with weights.
    """
    if not _acts_in_its_own_way(agent):
        return {}
    actor, inputs = agent.actor(), acting.example_inputs(agent, "stochastic")
    noise = actor.draw([np.random.default_rng(0)], 1)
    outputs = actor(inputs, [array[0] for array in noise])
    extras = {
        name: value
        for name, value in outputs.items()
        if name not in ("actions", "state", BEHAVIOR_LOG_PROBS)
    }
    return optree.tree_map(lambda leaf: np.array(leaf[0]), extras)


def _acts_in_its_own_way(agent):
    # The built-in ones return nothing that a loss reads besides actions and state:
    # what Ape-X's record of values is read when a rollout comes, and not kept.
    is_ours = type(agent).act.__module__.startswith("kerasrl.agents.")
    return acting.records(agent.policy) or not is_ours


def check_kept(agent, rollout):
    """Raises a ValueError if the replay buffer does not keep what is to be learnt from.

    Args:
        agent: An `OffPolicyAgent` with a buffer.
        rollout: A `kerasrl.rollouts.Rollout`.
    """
    wanted = {name: "previous_inputs" for name in agent.previous_inputs}
    if agent.learns_sequences:
        wanted = {}  # These always have them.
    # Others than the agent may have said what it does not ask for.
    if rollout.extras and _acts_in_its_own_way(agent):
        wanted["extras"] = "extras_example"
    for name, argument in wanted.items():
        if not agent.buffer.keeps(name):
            what = "acting returns" if name == "extras" else "the policy reads"
            raise ValueError(
                f"The replay buffer does not keep the {name} that {what}. A "
                f"make_buffer of one's own must pass {argument} on. If the buffer is "
                "older than that, set agent.buffer = None to start with an empty one."
            )


def warn_of_rewards(agent, rewards):
    """Warns once of rewards whose sum would count as the mark of impossible actions.

    Args:
        agent: An `OffPolicyAgent`.
        rewards: Float `[T, B]`.
    """
    scales = agent.reward_scaler is not None or getattr(agent, "rescaling", None)
    if agent.warned_of_rewards or scales:
        return
    least, steps = rewards.min(), min(1 / (1 - agent.gamma + 1e-9), _LONGEST)
    if least * steps <= IMPOSSIBLE:
        agent.warned_of_rewards = True
        warnings.warn(
            f"Received a reward of {least:.3g}. With gamma={agent.gamma}, returns may "
            f"be below {IMPOSSIBLE:.0e}: values so low stand for actions that cannot "
            "be taken, and nothing is learnt from them. Divide rewards in a wrapper "
            "(gymnasium.wrappers.TransformReward), or pass normalize_rewards=True.",
            stacklevel=2,
        )


def warn_of_no_learning(agent, steps):
    """Says so if a `fit` ends before there is enough to learn from.

    Args:
        agent: An `OffPolicyAgent`.
        steps: Integer, environment steps to come.
    """
    if agent.env_steps + steps <= agent.learning_starts:
        _logger.warning(
            "Nothing is learnt yet: this fit ends at %d environment steps, and "
            "learning_starts=%d.",
            agent.env_steps + steps,
            agent.learning_starts,
        )
