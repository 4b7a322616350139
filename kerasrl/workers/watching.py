"""Noticing that a worker hangs."""

import time

#: Seconds for a process to start and to import what environments need.
_START_SECONDS = 60.0


class Watch:
    """Looks, while the learner waits, at whether a worker still does something.

    Args:
        pool: `WorkerPool` with an `env_timeout`.
        index: Integer, which worker.
    """

    def __init__(self, pool, index):
        self._pool, self._index = pool, index
        self._seen, self._since = pool.heartbeat(index)[0], time.monotonic()

    def rest(self):
        """Says that the worker has done what it was asked for."""
        self._since = time.monotonic()

    def check(self, error_class):
        """Raises an error if nothing has happened for too long.

        Args:
            error_class: Called with a message and the index of the worker.
        """
        seen, number = self._pool.heartbeat(self._index)
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
            return
        seconds = self._patience()
        if time.monotonic() - self._since >= seconds:
            raise error_class(self._describe(number, seconds), self._index)

    def _patience(self):
        timeout = self._pool.env_timeout
        if self._seen == 0:  # It does not make environments yet.
            return max(_START_SECONDS, timeout)
        if self._seen == 1:
            own = self._pool.slices[self._index]
            return timeout * (own.stop - own.start)
        return timeout

    def _describe(self, number, seconds):
        pool, index = self._pool, self._index
        worker = pool.describe(index)
        who = f"Worker {index + 1}"
        if self._seen > 1 and number >= 0:
            who = f"Environment {pool.slices[index].start + number} in w{who[1:]}"
        where = pool.stack(index)
        return (
            f"{who} ({worker}) hangs: nothing happened for {seconds:g} seconds "
            f"(env_timeout={pool.env_timeout}). Its stack: {where or 'not available'}\n"
        )
