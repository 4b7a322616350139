"""The variables of an agent that a checkpoint holds, in their order."""

import contextlib

import tensorflow as tf


def variables(agent, optimizers=None):
    """Returns all variables that a checkpoint holds, pairs of a name and a variable.

    Args:
        agent: An `Agent`.
        optimizers: Dict from parts of the agent to optimizers; `agent.optimizers` if
            `None`.
    """
    optimizers = agent.optimizers if optimizers is None else optimizers
    named = [(f"policy/{v.path}", v) for v in policy_variables(agent.policy)]
    for number, (part, optimizer) in enumerate(optimizers.items()):
        prefix = f"optimizer_{part}" if number else "optimizer"
        named += [(f"{prefix}/{v.path}", v) for v in optimizer.variables]
    named += [(f"agent/{v.path}", v) for v in agent.own_variables]
    return named


def policy_variables(policy):
    """Returns the variables of a policy, without those of its metrics."""
    metrics = {id(v) for metric in policy.metrics for v in metric.variables}
    # `variables` rather than `weights`: states of random generators are among them.
    return [v for v in policy.variables if id(v) not in metrics]


def describe_misfit(received, expected):
    """What is wrong with the shapes of variables, for a message.

    Args:
        received: List of shapes in the file.
        expected: List of shapes of the policy that the file describes.
    """
    text = (
        "does not fit the policy it describes: "
        f"{len(received)} variables, expected {len(expected)}. "
    )
    for index, (left, right) in enumerate(zip(received, expected, strict=False)):
        if left != right:
            text = (
                f"does not fit the policy it describes: variable {index} has shape "
                f"{left}, expected {right}. "
            )
            break
    return text + (
        "If a class of your own was changed, or its get_config does not return every "
        "argument of __init__, mend that."
    )


@contextlib.contextmanager
def nameless():
    """Within it, TensorFlow's variables have one name; those of Keras keep theirs.

    TensorFlow keeps 35 kB for every name that a variable ever had, and Keras counts
    names on: without this, loading in a loop would take ever more memory.
    """

    def create(next_creator, **kwargs):
        with tf.name_scope("checkpoint/"):
            return next_creator(**{**kwargs, "name": "variable"})

    with tf.variable_creator_scope(create):
        yield
