"""Optimizers of the parts of an agent: each has its own state and its own norm."""

import collections
import itertools
import re

import keras
import tensorflow as tf


def build(agent, trained=None):
    """Creates the optimizers of an agent that has weights, `agent.optimizers`.

    The first part has that of `compile`. The others have one like it, whose learning
    rate is that of the first: callbacks and schedules act on all of them.

    Args:
        agent: An `Agent` with a compiled policy.
        trained: Dict from the names of parts to the variables that their optimizers
            are made for; `agent.parts()` if `None`.
    """
    first = agent.policy.optimizer
    if first is next(iter(agent.optimizers.values()), None):
        return
    agent.trained = agent.parts() if trained is None else trained
    names = list(agent.trained)
    agent.optimizers = {names[0]: first, **{name: like(first) for name in names[1:]}}
    for name, variables in agent.trained.items():
        if not agent.optimizers[name].built:
            agent.optimizers[name].build(variables)


def like(optimizer):
    """Returns a new optimizer with the arguments of another, in its first state.

    Args:
        optimizer: A Keras optimizer.

    Returns:
        An optimizer of the same class. Its learning rate is a number, to be set.
    """
    config = optimizer.get_config()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        config.pop("inner_optimizer")
        return type(optimizer)(like(optimizer.inner_optimizer), **config)
    # A schedule would count the steps of this part alone. Classes of one's own need not
    # take a learning rate.
    if "learning_rate" in config:
        config["learning_rate"] = 1.0
    return type(optimizer).from_config(config)


def apply(agent, gradients, names=None):
    """Clips the gradients of each part by its norm, and takes one step. Compiled.

    Args:
        agent: The `Agent`.
        gradients: List of the gradients of the variables of all these parts, which the
            optimizer of the first part has scaled.
        names: List of names of parts; all of the agent if `None`.

    Returns:
        Scalar, the global norm of all gradients before clipping.
    """
    first, parts, bound = agent.policy.optimizer, agent.parts(), agent.max_grad_norm
    names = list(parts) if names is None else names
    sizes = [len(parts[name]) for name in names]
    ends = itertools.accumulate(sizes)
    gradients = [gradients[e - n : e] for n, e in zip(sizes, ends, strict=True)]
    # All scales are 1, but in mixed precision.
    loss_scale = first.scale_loss(1.0)
    norms = [global_norm(own) / loss_scale for own in gradients]
    norm = norms[0] if len(norms) == 1 else tf.norm(tf.stack(norms))
    # Read before the first step changes the count that a schedule goes by.
    rate = tf.identity(first.learning_rate)
    skipped = 1.0
    if isinstance(first, keras.optimizers.LossScaleOptimizer):
        # One scale served all: where it was too large for one, it shrinks in all.
        skipped = tf.where(tf.math.is_finite(norm), 1.0, float("nan"))
    for name, own, own_norm in zip(names, gradients, norms, strict=True):
        optimizer = agent.optimizers[name]
        scale = 1.0
        if optimizer is not first:
            optimizer.learning_rate.assign(rate)
            scale = optimizer.scale_loss(1.0) / loss_scale * skipped
        elif len(names) > 1:
            scale = skipped
        if bound is not None:
            scale *= bound / tf.maximum(own_norm, bound)
        if tf.is_tensor(scale):
            own = [gradient * scale for gradient in own]
        agent.replicas.apply(optimizer, own, parts[name])
    return norm


def finish(agent):
    """Makes averages the weights, as Keras's own `fit` ends, where optimizers keep any.

    Args:
        agent: An `Agent`.
    """
    for name, variables in agent.trained.items():
        optimizer = agent.optimizers[name]
        if getattr(optimizer, "use_ema", False):
            optimizer.finalize_variable_values(variables)


def joined(agent, names):
    """Returns the one optimizer of all parts that a checkpoint was written with.

    Args:
        agent: An `Agent` that was built.
        names: List of the names of the variables in the checkpoint.

    Returns:
        Dict like `agent.optimizers`, or `None` if those are what was written.
    """
    if len(agent.optimizers) == 1 or any(
        str(name).startswith("optimizer_") for name in names
    ):
        return None
    first = agent.policy.optimizer
    optimizer = type(first).from_config(first.get_config())
    optimizer.build(agent.trainable_variables)
    return {"all": optimizer}


def separate(agent, optimizers):
    """Gives each part of an agent its share of the state of one optimizer.

    Args:
        agent: An `Agent` that was built.
        optimizers: What `joined` returned.
    """
    (one,) = optimizers.values()
    # Variables may share a path; then they are in the order of what they belong to.
    sources, targets = _by_path(one), {}
    paths, users = {}, collections.Counter()
    for variable in agent.trainable_variables:
        alone = type(one).from_config(one.get_config())
        alone.build([variable])
        paths[id(variable)] = [_name(own) for own in alone.variables]
        users.update(paths[id(variable)])
    counts = {path: len(found) for path, found in sources.items()}
    for name, variables in agent.parts().items():
        targets.update(
            dict.fromkeys(map(id, variables), _by_path(agent.optimizers[name]))
        )
    for variable in agent.trainable_variables:
        for path in paths[id(variable)]:
            source, target = sources[path], targets[id(variable)][path]
            if users[path] > counts[path]:  # Of the optimizer, such as its count.
                target[0].assign(source[0])
            else:
                target.popleft().assign(source.popleft())


def _by_path(optimizer):
    found = collections.defaultdict(collections.deque)
    for variable in optimizer.variables:
        found[_name(variable)].append(variable)
    return found


def _name(variable):
    # Variables that an optimizer gives no name are numbered over all optimizers.
    return re.sub(r"^variable(_\d+)?$", "variable", variable.path)


def global_norm(gradients):
    """Returns the Euclidean norm of all gradients together, a scalar."""
    squares = []
    for gradient in gradients:
        # As products of rows, never joined first: XLA fuses what makes a gradient into
        # the joining, and takes up to thirty times as long for each number of it.
        rows = tf.reshape(gradient, [-1, (1, *gradient.shape)[-1]])
        squares.append(tf.reduce_sum(tf.einsum("ij,ij->i", rows, rows)))
    return tf.sqrt(tf.add_n(squares))
