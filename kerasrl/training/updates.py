"""From gradients to weights: what runs inside the one compiled call per iteration."""

import keras
import numpy as np
import optree
import tensorflow as tf

from kerasrl.logs import LOGGED
from kerasrl.models import Policy
from kerasrl.models.policy import merge_time
from kerasrl.rollouts.rollout import POLICY_INPUTS
from kerasrl.training import optimizing, terms

_MAX_METRICS = 64


def gradient_step(agent, batch, settings, loss=None, parts=None):
    """Takes one optimizer step on the loss of a batch.

    The order is: gradients, their mean over replicas, clipping by the global norm of
    each part, optimizer of each part.

    Args:
        agent, batch, settings, loss, parts: As for `gradients`.

    Returns:
        Dict of scalars: `"loss"`, what `loss` logs, `"gradient_norm"` (before
        clipping) and the policy's custom metrics.
    """
    parts = list(agent.parts()) if parts is None else parts
    found, metrics = gradients(agent, batch, settings, loss, parts)
    # TensorFlow's optimizer of graphs drops the order of reads before writes: a target
    # could be computed from weights that were already updated.
    read = [x for x in (*found, *metrics.values()) if tf.is_tensor(x)]
    with tf.control_dependencies(read):
        norm = optimizing.apply(agent, found, parts)
    return {**metrics, "gradient_norm": norm}


def gradients(agent, batch, settings, loss=None, parts=None):
    """Computes the gradients of the loss of a batch, and applies them to nothing.

    Args:
        agent: The `Agent`.
        batch: Dict of tensors with a leading sample axis.
        settings: Dict of scalars, see `OnPolicyAgent.loss`.
        loss: Function like `OnPolicyAgent.loss`; that of the agent if `None`.
        parts: List of names of the parts to train, see `Agent.parts`; all of the
            agent if `None`.

    Returns:
        Tuple of the list of gradients, means over replicas, one for each variable of
        these parts in their order, and a dict of scalars, `"loss"` and what is logged.
        `optimizing.apply` takes them. In mixed precision they are scaled by what the
        optimizer divides them by, see `keras.optimizers.Optimizer.scale_loss`.

    Example:

    ```python
    found, metrics = updates.gradients(agent, batch, settings)
    found = [keras.ops.sign(gradient) for gradient in found]
    optimizing.apply(agent, found)
    ```
    """
    policy = agent.policy
    trained = agent.parts()
    parts = list(trained) if parts is None else parts
    values = [variable.value for name in parts for variable in trained[name]]
    # 1, but in mixed precision: the optimizer divides by it what was multiplied, so
    # that small gradients are not rounded to zero.
    loss_scale = policy.optimizer.scale_loss(1.0)

    def compute(batch):
        with tf.GradientTape() as tape:
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
        agent, batch, settings, loss: As for `gradients`.

    Returns:
        Tuple of a scalar and a dict of scalars.
    """
    policy = agent.policy
    with terms.collected() as added:
        with terms.training_pass():
            outputs = forward(policy, batch, training=True)
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
    custom = policy.custom_metrics(batch)
    if not isinstance(custom, dict):
        raise TypeError(
            f"custom_metrics returned {custom!r}. Expected a dict of scalars."
        )
    for name, value in custom.items():
        _check_scalar(f"custom_metrics returned {name}=", value)
        if name in metrics or name in LOGGED:
            raise ValueError(
                f"custom_metrics returned {name!r}, a name of the agents' own. Choose "
                "another name."
            )
    return total, {**metrics, **custom}


def _check_scalar(what, value):
    if value is None or keras.ops.ndim(value) != 0:
        raise ValueError(f"{what} {value!r}. Expected a scalar, such as a mean.")


def minibatch_steps(agent, batch, settings, minibatches, stop=None):
    """Takes one gradient step per minibatch, in a loop inside the graph.

    Args:
        agent, batch, settings: As for `gradient_step`.
        minibatches: Dict of `"indices"`, int32 `[K, size]` into the sample axis,
            `"weights"`, float32 `[K, size]`, 0 where an index only fills up a row, and
            `"count"`, int32, how many of the K to use.
        stop: `None`, or a function of the dict of metrics of a minibatch that returns
            a bool scalar: whether that step is to be the last.

    Returns:
        Dict of scalars, means over the steps taken, and `"gradient_steps"`.
    """
    indices, weights = minibatches["indices"], minibatches["weights"]

    def step(number):
        chosen, weight = indices[number], weights[number]
        minibatch = tf.nest.map_structure(lambda x: tf.gather(x, chosen), batch)
        shape = (-1,) + (1,) * (len(minibatch["mask"].shape) - 1)
        minibatch["mask"] *= tf.reshape(weight, shape)
        return gradient_step(agent, minibatch, settings), ()

    return repeat(minibatches["count"], step, stop)[0]


def repeat(count, step, stop=None, keep_shape=None):
    """Takes several gradient steps, in a loop inside the graph.

    Args:
        count: Integer, or scalar tensor without `keep_shape`, the most steps to take.
        step: Function of the number of a step. Returns a dict of scalars and a float32
            tensor of shape `keep_shape`, or anything where that is `None`.
        stop: `None`, or a function of the dict of scalars of a step that returns a bool
            scalar: whether that step is to be the last.
        keep_shape: Tuple of integers, or `None`.

    Returns:
        Tuple of a dict of scalars, means over the steps taken, and `"gradient_steps"`;
        and the tensors of all steps, `[count, *keep_shape]`, or `()`.
    """
    names = []

    def body(number, _, totals, kept):
        metrics, keep = step(number)
        # Line by line, steps of several kinds may name them in another order.
        names[:] = names or metrics
        # A loop in the graph needs a fixed shape before its body is known.
        if len(metrics) > _MAX_METRICS:
            raise ValueError(
                f"Received {len(metrics)} metrics from the loss and custom_metrics. "
                f"Expected at most {_MAX_METRICS}."
            )
        values = tf.stack([tf.cast(metrics[name], "float32") for name in names])
        padded = tf.pad(values, [[0, _MAX_METRICS - len(metrics)]])
        stopped = tf.constant(False) if stop is None else stop(metrics)
        if keep_shape is not None:
            kept = kept.write(number, keep)
        return number + 1, stopped, totals + padded, kept

    kept = ()
    if keep_shape is not None:
        kept = tf.TensorArray("float32", count, element_shape=keep_shape)
    taken, _, totals, kept = tf.while_loop(
        lambda number, stopped, *_: (number < count) & ~stopped,
        body,
        (tf.constant(0), tf.constant(False), tf.zeros(_MAX_METRICS), kept),
    )
    means = tf.unstack(totals / tf.cast(taken, "float32"))[: len(names)]
    metrics = {**dict(zip(names, means, strict=True)), "gradient_steps": taken}
    return metrics, () if keep_shape is None else kept.stack()


def draw_minibatches(rng, valid, size, num_epochs):
    """Shuffles samples into minibatches of equal shape.

    Minibatches without a single valid sample come last and are not counted: a step of
    an optimizer with momentum moves the weights by no gradient, too.

    Args:
        rng: `numpy.random.Generator`.
        valid: bool `[num_samples]`, whether there is anything to learn from a sample.
        size: Integer, samples per minibatch, at most `num_samples`.
        num_epochs: Integer, times that every sample is used.

    Returns:
        Dict as `minibatch_steps` takes it. If `size` does not divide `num_samples`,
        the last minibatch of an epoch is filled up with samples of weight 0.
    """
    num_samples = len(valid)
    per_epoch = -(-num_samples // size)
    padding = per_epoch * size - num_samples
    orders = [rng.permutation(num_samples) for _ in range(num_epochs)]
    indices = np.array([np.concatenate([o, o[:padding]]) for o in orders], np.int32)
    weights = np.ones(indices.shape, np.float32)
    weights[:, num_samples:] = 0.0
    indices, weights = indices.reshape(-1, size), weights.reshape(-1, size)
    is_used = (valid[indices] & (weights > 0)).any(axis=1)
    if not is_used.all():
        order = np.argsort(~is_used, kind="stable")
        indices, weights = indices[order], weights[order]
    count = np.array(np.count_nonzero(is_used), np.int32)
    return {"indices": indices, "weights": weights, "count": count}


def forward(policy, batch, training=False):
    """Runs a policy on a batch of samples or of whole sequences.

    Args:
        policy: A `Policy`.
        batch: Dict with `POLICY_INPUTS`, `[N, ...]`; for a recurrent policy `[B, T,
            ...]`, with `"state"` `[B, ...]` and `"episode_starts"` `[B, T]`.
        training: Bool, as in Keras.

    Returns:
        Dict as from `policy.call`, with the leading axes of the batch.
    """
    inputs = _inputs(policy, batch)
    if not policy.is_recurrent:
        return policy(inputs, training=training)
    outputs = policy.unroll(
        swap(inputs), batch["state"], swap(batch["episode_starts"]), training=training
    )
    return swap({name: value for name, value in outputs.items() if name != "state"})


def next_outputs(policy, batch):
    """Runs a policy on what followed the steps of a batch, to compute targets.

    Args:
        policy: A `Policy` without recurrent state.
        batch: Dict of tensors `[N, ...]` from a replay buffer, with
            `"next_observations"` and what else the policy reads of that time,
            `"next_previous_actions"` and `"next_previous_rewards"`.

    Returns:
        Dict as from `policy.call`, `[N, ...]`.

    Example:

    ```python
    with self.target.scope():
        next_outputs = kerasrl.agents.next_outputs(self.policy, batch)
    ```
    """
    return policy(_inputs(policy, batch, "next_"))


def _inputs(policy, batch, prefix=""):
    """What a policy is given of a batch."""
    inputs = {
        name: batch[prefix + name] for name in POLICY_INPUTS if prefix + name in batch
    }
    missing = [name for name in POLICY_INPUTS if name not in inputs]
    if missing and not policy.is_recurrent:
        # What replay does not keep is not read, and yet it may be looked up.
        size = keras.ops.shape(keras.tree.flatten(inputs["observations"])[0])[0]
        examples = policy.example_inputs(1)
        for name in missing:
            inputs[name] = keras.tree.map_structure(
                lambda x: tf.zeros((size, *x.shape[1:]), x.dtype), examples[name]
            )
    return inputs


def rollout_outputs(policy, rollout):
    """Runs a policy over a rollout and one step beyond.

    Args:
        policy: A `Policy`.
        rollout: Dict of tensors `[T, B, ...]`, see `Agent.targets`.

    Returns:
        Tuple of the outputs `[T, B, ...]` and the values `[T, B]` of the observations
        that follow each action *before any reset*: at a truncation that is the value
        of the final observation. At a termination it is of no use and not used.
    """
    steps = {name: rollout[name] for name in (*POLICY_INPUTS, "episode_starts")}
    steps = tf.nest.map_structure(
        lambda x, last: tf.concat([x, last[None]], axis=0),
        steps,
        {name: rollout["next_inputs"][name] for name in steps},
    )
    starts = steps.pop("episode_starts")
    outputs = policy.unroll(steps, rollout["state"], starts)
    outputs = {name: value for name, value in outputs.items() if name != "state"}
    next_values = tf.where(
        rollout["truncated"], rollout["truncation_values"], outputs["values"][1:]
    )
    return tf.nest.map_structure(lambda x: x[:-1], outputs), next_values


def normalizer(agent):
    """Returns how statistics of observations are learnt from rollouts.

    Args:
        agent: An `Agent` with a policy that was built.

    Returns:
        Function of a `Rollout`.
    """
    policy = agent.policy
    default = type(policy).update_normalization is Policy.update_normalization
    if default or not getattr(policy, "normalize_observations", True):
        return lambda rollout: None

    @tf.function
    def normalize(observations, mask):
        with agent.replicas.summing():
            policy.update_normalization(merge_time(observations), merge_time(mask))

    def learn(rollout):
        normalize(rollout.observations, rollout.valid)

    return learn


def build_metrics(policy):
    """Creates the variables of metrics, which must not happen inside the graph."""
    if any(not metric.variables for metric in policy.metrics):
        zeros = keras.ops.zeros((1, 1))
        policy.compute_metrics(None, zeros, zeros, keras.ops.zeros(1))
        policy.reset_metrics()


def policy_metrics(policy):
    """Returns the results of the Keras metrics of a policy, as floats."""
    if len(policy.metrics) <= 1:  # Only Keras's own tracker of the loss.
        return {}
    results = policy.get_metrics_result()
    results.pop("loss", None)
    return {name: float(value) for name, value in results.items()}


def rows(tree, rows):
    """Returns some rows of the first axis of every leaf."""
    return optree.tree_map(lambda x: x[rows], tree)


def swap(tree):
    """Exchanges the first two axes of every leaf."""

    def transpose(x):
        return tf.transpose(x, [1, 0, *range(2, len(x.shape))])

    return tf.nest.map_structure(transpose, tree)


def to_samples(batch, is_recurrent):
    """Gives a batch `[T, B, ...]` one leading axis of samples to draw from.

    Samples are steps, `[T * B, ...]`, or, for recurrent policies, whole sequences,
    `[B, T, ...]`; the entry `"state"` is `[B, ...]` already.
    """
    state = batch["state"]
    steps = {name: value for name, value in batch.items() if name != "state"}
    if is_recurrent:
        return {**swap(steps), "state": state}
    return merge_time(steps)
