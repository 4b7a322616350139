"""The variables of an agent that a checkpoint holds, in their order."""

import contextlib

import tensorflow as tf

from kerasrl.checkpoint.archive import CheckpointError


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


def describe_trained(agent):
    """Says which variables are trained, where that is not what is trainable now.

    Layers can be frozen, or no longer be, after optimizers and target network were
    made, which have variables for each that was trained then.

    Args:
        agent: An `Agent` that was built.

    Returns:
        Dict of entries of a configuration, empty where nothing is out of the ordinary.
    """
    target = getattr(agent, "target", None)
    followed = [] if target is None else target.sources
    usual = [] if target is None else agent.target_sources()
    now = [*agent.parts().values(), usual]
    if _ids(now) == _ids([*agent.trained.values(), followed]):
        return {}
    places = {id(v): index for index, v in enumerate(_all(agent))}
    return {
        "trained": {
            part: [places[id(variable)] for variable in variables]
            for part, variables in agent.trained.items()
        },
        "followed": [places[id(variable)] for variable in followed],
    }


def _ids(lists):
    return [[id(variable) for variable in variables] for variables in lists]


def _all(agent):
    """All variables that can be trained, in an order that does not depend on it."""
    known = policy_variables(agent.policy)
    seen = set(map(id, known))
    return known + [v for v in agent.trainable_variables if id(v) not in seen]


def read_trained(path, agent, config):
    """Returns what `describe_trained` described, as variables of an agent.

    Args:
        path: Of the file, for messages.
        agent: An `Agent` whose policy has weights.
        config: Dict, the configuration in the file.

    Returns:
        Tuple of a dict like `agent.trained` and a list of variables, both `None` where
        nothing was out of the ordinary.

    Raises:
        CheckpointError: The entries are damaged.
    """
    if "trained" not in config and "followed" not in config:
        return None, None
    known = _all(agent)

    def find(indices):
        if not all(type(index) is int and 0 <= index < len(known) for index in indices):
            raise CheckpointError(
                f"{path} is damaged: it says that the variables {indices!r:.80} are "
                f"trained. Expected: whole numbers from 0 to {len(known) - 1}."
            )
        return [known[index] for index in indices]

    trained, followed = config["trained"], config["followed"]
    parts = list(agent.parts())
    if not isinstance(trained, dict) or list(trained) != parts:
        raise CheckpointError(
            f"{path} is damaged: trained is {trained!r:.80}. Expected an object with "
            f"the keys {parts}."
        )
    return {part: find(indices) for part, indices in trained.items()}, find(followed)


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
