"""Which replicas the agents made now belong to."""

import threading

import tensorflow as tf

from kerasrl.distribute.replicas import Replicas

_entered = threading.local()


def enter(replicas):
    """Begins a context in which agents belong to `replicas`."""
    stack = _stack()
    if stack or tf.distribute.has_strategy():
        raise RuntimeError(
            "Contexts of replicas do not nest: leave the other one first."
        )
    stack.append(replicas)


def leave(replicas):
    """Ends the context that `enter` began."""
    _stack().remove(replicas)


def current():
    """Returns the replicas of the context: of Horovod, tf.distribute, or just one."""
    stack = _stack()
    if stack:
        return stack[-1]
    if tf.distribute.has_strategy():
        from kerasrl.distribute.tf_distribute import TfDistribute

        return TfDistribute(tf.distribute.get_strategy())
    return Replicas()


def check(replicas):
    """Raises a ValueError if the context is not that in which an agent was made."""
    now = current()
    if now != replicas and type(now) is not Replicas:
        made_for = type(replicas).__name__
        if type(replicas) is Replicas:
            made_for = "one process by itself"
        raise ValueError(
            f"This agent was made for {made_for}, but is used in the "
            f"context of {type(now).__name__}. Make the agent within that context too: "
            "its variables and random generators depend on it."
        )


def _stack():
    if not hasattr(_entered, "stack"):
        _entered.stack = []
    return _entered.stack
