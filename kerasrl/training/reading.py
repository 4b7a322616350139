"""What policies read and return, and environments give, that is not learnt from."""

import warnings

import tensorflow as tf

from kerasrl.losses import IMPOSSIBLE

# Steps that a return sums over at most, to guess how large it may be.
_LONGEST = 1000


def previous_inputs_read(policy):
    """Returns the names of the previous inputs that what a policy returns depends on.

    Args:
        policy: A `kerasrl.models.Policy` with weights.

    Returns:
        List of some of `"previous_actions"` and `"previous_rewards"`.
    """
    if type(policy).__module__.startswith("kerasrl.models."):
        return []  # The built-in ones feed them to a cell only.
    example = policy.example_inputs(2)
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), example
    )
    traced = tf.function(lambda inputs: policy(inputs), autograph=False)
    graph = traced.get_concrete_function(specs)
    # Leaves are in the order of sorted names; variables come after them.
    names = [name for name in sorted(specs) for _ in tf.nest.flatten(specs[name])]
    places = zip(names, graph.inputs, strict=False)
    used = _ancestors(graph.outputs)
    read = {name for name, tensor in places if tensor.op in used}
    return sorted(read & {"previous_actions", "previous_rewards"})


def refuse_previous_inputs(agent):
    """Raises a ValueError if an agent could not learn from what its policy acts on.

    Args:
        agent: An `OffPolicyAgent` with weights.
    """
    names = () if agent.learns_sequences else previous_inputs_read(agent.policy)
    if names:
        raise ValueError(
            f"{type(agent.policy).__name__} reads {' and '.join(names)}, which a "
            f"replay buffer of single steps does not keep, so {type(agent).__name__} "
            "cannot learn from what was acted on. Use kerasrl.R2D2 or an on-policy "
            "agent, or make them part of the observations in a wrapper."
        )


def refuse_extras(agent, extras):
    """Raises a ValueError because replay buffers do not keep what else `act` returned.

    Args:
        agent: An `OffPolicyAgent`.
        extras: Dict of what it returned besides actions and state.
    """
    raise ValueError(
        f"{type(agent).__name__}.act returned {', '.join(sorted(extras))} besides "
        '"actions" and "state". Replay buffers do not keep more, so a loss could not '
        "see it: leave it out, or compute it again in the loss."
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


def _ancestors(tensors):
    """All operations that some tensors are computed from."""
    seen, stack = set(), [tensor.op for tensor in tensors]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [tensor.op for tensor in op.inputs]
    return seen
