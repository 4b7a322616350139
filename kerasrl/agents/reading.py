"""What policies read and return that a replay buffer does not keep."""

import tensorflow as tf


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


def _ancestors(tensors):
    """All operations that some tensors are computed from."""
    seen, stack = set(), [tensor.op for tensor in tensors]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [tensor.op for tensor in op.inputs]
    return seen
