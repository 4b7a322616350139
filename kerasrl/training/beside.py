"""What gradient steps are given beside the batch of the algorithm. In compiled code.

An update may take many steps, in a loop inside the graph. Each finds its own batch of a
dataset under `"offline"`, whatever the algorithm does with its own.
"""

import contextlib
import contextvars

import tensorflow as tf

OFFLINE = "offline"
#: Batches `[K, N, ...]` of an update, and the number of the step that is taken.
_BATCHES = contextvars.ContextVar("batches", default=None)
_NUMBER = contextvars.ContextVar("number", default=0)


@contextlib.contextmanager
def given(batches):
    """A context of an update, whose steps find a batch each.

    Args:
        batches: Tree of tensors `[K, N, ...]`, or `None`.
    """
    token = _BATCHES.set(batches)
    try:
        yield
    finally:
        _BATCHES.reset(token)


@contextlib.contextmanager
def step(number):
    """A context of one of several gradient steps.

    Args:
        number: Integer or scalar tensor, from 0 on.
    """
    token = _NUMBER.set(number)
    try:
        yield
    finally:
        _NUMBER.reset(token)


def joined(batch):
    """Returns the batch of a gradient step with what there is beside it.

    Args:
        batch: Dict of tensors.
    """
    batches = _BATCHES.get()
    if batches is None:
        return batch
    count = tf.nest.flatten(batches)[0].shape[0]
    # More steps than batches begin with the first again.
    number = tf.math.floormod(_NUMBER.get(), count)
    return {**batch, OFFLINE: tf.nest.map_structure(lambda x: x[number], batches)}
