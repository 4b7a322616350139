"""Terms of the loss that layers add: `add_loss` and regularizers.

Keras forgets what a forward pass has added when the next one begins, and agents run a
network several times for one loss. What counts is settled here: what layers add in a
`training_pass`, and nothing of targets, of next observations, or of critics that only
pass gradients on.
"""

import contextlib
import contextvars

from kerasrl.training.target_network import replaced

_FOUND = contextvars.ContextVar("terms", default=None)


@contextlib.contextmanager
def collected():
    """A context that gives the list of what layers add within it, in training passes.

    Example:

    ```python
    with terms.collected() as found:
        with terms.training_pass():
            outputs = policy(inputs, training=True)
    loss = loss + sum(keras.ops.sum(term) for term in found)
    ```
    """
    found = []
    token = _FOUND.set(found)
    try:
        yield found
    finally:
        _FOUND.reset(token)


@contextlib.contextmanager
def training_pass():
    """A context for the forward pass of a network, or of critics, that is trained.

    The policy's own is such a pass already when `loss` is called. Where `loss` runs
    another network that it trains, as critics, it does so once within this context.

    Example:

    ```python
    with terms.training_pass():
        values = policy.q_values(observations, actions, training=True)
    ```
    """
    found = _FOUND.get()
    if found is None:
        yield
        return
    with replaced([], collect_losses=True) as scope:
        yield
    found.extend(scope.losses)


def weight_regularization(policy):
    """Returns the list of the regularizers' terms of the weights of a policy."""
    return [
        variable.regularizer(variable)
        for variable in policy.trainable_weights
        if variable.regularizer is not None
    ]
