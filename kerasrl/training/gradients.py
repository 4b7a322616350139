"""One gradient step: loss, gradients, optimizer. Runs in the compiled call."""

import contextlib

import keras
import tensorflow as tf

from kerasrl.logs import LOGGED
from kerasrl.training import beside, optimizing, passes, terms
from kerasrl.training.parts import Replaceable
from kerasrl.training.target_network import replaced

#: What losses return that is not logged: the weight of a mean, and priorities.
_MEANT = ("count", "td_errors")


def gradient_step(agent, batch, settings, loss=None, parts=None, at=None):
    """Takes one optimizer step on the loss of a batch.

    The order is: gradients, their mean over replicas, the agent's `step_gradients`,
    clipping by the global norm of each part, optimizer of each part, `after_step`.

    Args:
        agent, batch, settings, loss, parts, at: As for `compute_gradients`.

    Returns:
        Dict of scalars: `"loss"`, what `loss` logs, `"gradient_norm"` (before
        clipping) and the policy's custom metrics.
    """
    parts = list(agent.parts()) if parts is None else parts
    found, metrics = compute_gradients(agent, batch, settings, loss, parts, at)
    metrics["gradient_norm"] = take_step(agent, found, batch, parts, metrics.values())
    return metrics


def take_step(agent, found, batch, parts=None, read=()):
    """Takes one optimizer step along gradients, however they were found.

    Args:
        agent: The `Agent`.
        found: List of tensors, as `compute_gradients` returns them.
        batch: What they were found on, for `after_step`.
        parts: As for `compute_gradients`.
        read: Tensors that are computed before weights change.

    Returns:
        Scalar, the global norm of the gradients before clipping.
    """
    parts = list(agent.parts()) if parts is None else parts
    found = _changed(agent, found, parts)
    # TensorFlow's optimizer of graphs drops the order of reads before writes: a target
    # could be computed from weights that were already updated.
    read = [x for x in (*found, *read) if tf.is_tensor(x)]
    with tf.control_dependencies(read):
        norm = optimizing.apply(agent, found, parts)
    agent.after_step(batch)
    return norm


def _changed(agent, found, parts):
    """Gradients as the agent's `step_gradients` wants them."""
    if type(agent).step_gradients is Replaceable.step_gradients:
        return found
    trained = agent.parts()
    variables = [variable for name in parts for variable in trained[name]]
    # 1, but in mixed precision.
    scale = agent.policy.optimizer.scale_loss(1.0)
    # Those of embeddings are sparse.
    unscaled = [tf.convert_to_tensor(each) / scale for each in found]
    changed = list(agent.step_gradients(unscaled, variables))
    received = [tuple(getattr(each, "shape", ())) for each in changed]
    expected = [tuple(each.shape) for each in found]
    if received != expected:
        raise ValueError(
            f"{type(agent).__name__}.step_gradients returned gradients of shapes "
            f"{received}. Expected one for each variable, in their order: {expected}."
        )
    if isinstance(agent.policy.optimizer, keras.optimizers.LossScaleOptimizer):
        # What was too large for the scale is no gradient, whatever became of it: the
        # optimizer skips the step, and halves the scale.
        norm = optimizing.global_norm(unscaled)
        scale = tf.where(tf.math.is_finite(norm), scale, float("nan"))
    return [each * scale for each in changed]


def compute_gradients(agent, batch, settings, loss=None, parts=None, at=None):
    """Computes the gradients of the loss of a batch, and applies them to nothing.

    Args:
        agent: The `Agent`.
        batch: Dict of tensors with a leading sample axis.
        settings: Dict of scalars, see `OnPolicyAgent.loss`.
        loss: Function like `OnPolicyAgent.loss`; that of the agent if `None`.
        parts: List of names of the parts to train, see `Agent.parts`; all of the
            agent if `None`.
        at: List of tensors, one for each variable of these parts: where to compute the
            gradients, if not at the present values.

    Returns:
        Tuple of the list of gradients, means over replicas, one for each variable of
        these parts in their order, and a dict of scalars, `"loss"` and what is logged.
        `optimizing.apply` takes them. In mixed precision they are scaled by what the
        optimizer divides them by, see `keras.optimizers.Optimizer.scale_loss`.

    Example:

    ```python
    found, metrics = gradients.compute_gradients(agent, batch, settings)
    found = [keras.ops.sign(gradient) for gradient in found]
    optimizing.apply(agent, found)
    ```
    """
    policy = agent.policy
    batch = beside.joined(batch)
    trained = agent.parts()
    parts = list(trained) if parts is None else parts
    variables = [variable for name in parts for variable in trained[name]]
    values = [variable.value for variable in variables] if at is None else at
    # 1, but in mixed precision: the optimizer divides by it what was multiplied, so
    # that small gradients are not rounded to zero.
    loss_scale = policy.optimizer.scale_loss(1.0)

    def place():
        pairs = zip(variables, values, strict=True)
        return contextlib.nullcontext() if at is None else replaced(list(pairs))

    def compute(batch):
        with place(), tf.GradientTape() as tape:
            # TensorFlow passes over what was frozen when it was made.
            tape.watch(values)
            total, metrics = compute_loss(agent, batch, settings, loss or agent.loss)
            scaled = total * loss_scale
        found = tape.gradient(
            scaled, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return found, {"loss": total, **metrics}

    return agent.replicas.gradients(compute, batch)


def compute_loss(agent, batch, settings, loss):
    """Returns the loss to minimize on a batch, and scalars to log.

    Adds regularizers and `add_loss` terms of the policy to the algorithm's loss, then
    gives the policy's `custom_loss` the last word.

    Args:
        agent, batch, settings, loss: As for `compute_gradients`.

    Returns:
        Tuple of a scalar and a dict of scalars.
    """
    policy = agent.policy
    with terms.collected() as added:
        with terms.training_pass():
            outputs = passes.forward(policy, batch, training=True)
        found = loss(batch, outputs, settings)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"The loss of {type(agent).__name__} returned {found!r}. Expected a tuple "
            "of a scalar and a dict of scalars to log."
        )
    total, metrics = found
    for term in (*added, *terms.weight_regularization(policy)):
        total = total + keras.ops.sum(term)
    batch = {**batch, "outputs": outputs}
    total = policy.custom_loss(total, batch)
    _check_scalar("custom_loss returned", total)
    for source, custom in (
        ("custom_metrics", policy.custom_metrics(batch)),
        ("step_metrics", agent.step_metrics(batch, outputs, settings)),
    ):
        if not isinstance(custom, dict):
            raise TypeError(
                f"{source} returned {custom!r}. Expected a dict of scalars."
            )
        for name, value in custom.items():
            _check_scalar(f"{source} returned {name}=", value)
            if name in metrics or name in LOGGED or name in _MEANT:
                raise ValueError(
                    f"{source} returned {name!r}, which is logged already or means "
                    "something to updates. Choose another name."
                )
        metrics = {**metrics, **custom}
    beside.note(batch, [total, *metrics.values()])
    return total, metrics


def _check_scalar(what, value):
    if value is None or keras.ops.ndim(value) != 0:
        raise ValueError(f"{what} {value!r}. Expected a scalar, such as a mean.")
