"""What generators of this package do with the one before them."""

import contextlib


@contextlib.contextmanager
def reading(stream):
    """A context in which a stream is read, and after which it is closed.

    Args:
        stream: Iterable; one that has no `close` is left as it is.
    """
    try:
        yield iter(stream)
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def check_running(agent, name):
    """Raises a RuntimeError unless rollouts of an agent are being made.

    Args:
        agent: The `Agent`.
        name: Of the function that needs them.
    """
    if agent.source is None:
        raise RuntimeError(
            f"{name} received something to learn from, but nothing acts for this "
            f"{type(agent).__name__}. Expected what parallel_rollouts(agent, ...) of "
            "the same agent yields, while it is open. To learn from rollouts of "
            "others, use agent.iterate(rollouts)."
        )
