"""Sums over the replicas that train together, for code that knows none of them."""

import contextlib
import threading

_scope = threading.local()


@contextlib.contextmanager
def summing_over_replicas(function):
    """Within it, statistics of a batch are those of the batches of all replicas.

    Args:
        function: Sums a float tensor over replicas; see `sum_over_replicas`.
    """
    before = getattr(_scope, "function", None)
    _scope.function = function
    try:
        yield
    finally:
        _scope.function = before


def sum_over_replicas(x):
    """Sums a tensor over the replicas that train together; usually there is just one.

    Losses need it for what is not a mean over entries, such as a standard deviation:
    the means are averaged with the gradients.

    Args:
        x: Float `[...]`.

    Returns:
        Float `[...]`; outside of `summing_over_replicas` `x` itself.
    """
    function = getattr(_scope, "function", None)
    return x if function is None else function(x)
