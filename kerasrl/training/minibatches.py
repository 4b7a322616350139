"""Many gradient steps in one compiled call, and the minibatches they are taken on."""

import numpy as np
import optree
import tensorflow as tf

from kerasrl.training import beside
from kerasrl.training.gradients import gradient_step

_MAX_METRICS = 64


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
        with beside.step(number):
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


def rows(tree, rows):
    """Returns some rows of the first axis of every leaf."""
    return optree.tree_map(lambda x: x[rows], tree)
