"""What gradient steps are given beside the batch of the algorithm. In compiled code.

An update may take many steps, in a loop inside the graph. Each finds its own batch of a
dataset under `"offline"`, whatever the algorithm does with its own.
"""

import contextlib
import contextvars

import tensorflow as tf

from kerasrl.training import graphs

OFFLINE = "offline"
#: Batches `[K, N, ...]` of an update, and the number of the step that is taken.
_BATCHES = contextvars.ContextVar("batches", default=None)
_NUMBER = contextvars.ContextVar("number", default=0)
#: Whether each of the losses that were computed depends on its batch.
_READ: contextvars.ContextVar = contextvars.ContextVar("read", default=None)


@contextlib.contextmanager
def given(batches):
    """A context of an update, whose steps find a batch each.

    Args:
        batches: Tree of tensors `[K, N, ...]`, or `None`.

    Raises:
        ValueError: No loss and nothing logged was computed from them.
    """
    read: list = []
    tokens = _BATCHES.set(batches), _READ.set(read)
    try:
        yield
    finally:
        _BATCHES.reset(tokens[0])
        _READ.reset(tokens[1])
    if read and not any(read):
        raise ValueError(
            "Received offline, of which nothing would be learnt: no loss and no "
            "custom_metrics depend on batch['offline']. Add to the loss what "
            "custom_loss computes from it, give offline_ratio to an algorithm with "
            "replay, or leave offline out."
        )


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


def note(batch, results):
    """Notes whether what a gradient step computed depends on what is beside it.

    Args:
        batch: As from `joined`.
        results: List of tensors, and of numbers.
    """
    if _READ.get() is None or OFFLINE not in batch:
        return
    if tf.executing_eagerly():
        _READ.get().append(True)  # Nobody knows.
        return
    computed = graphs.ancestors([x for x in results if tf.is_tensor(x)])
    leaves = tf.nest.flatten(batch[OFFLINE])
    _READ.get().append(any(leaf.op in computed for leaf in leaves))
