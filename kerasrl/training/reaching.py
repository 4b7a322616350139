"""How the environments of a running training are reached from outside."""

from kerasrl import workers


class Reaching:
    """The side of `kerasrl.Agent` that reaches the environments of `fit`."""

    #: `kerasrl.envs.Environments` while `fit` runs.
    envs = None

    def foreach_env(self, function):
        """Calls a function on every environment of the running `fit` or `iterate`.

        Args:
            function: Called with a `gymnasium.Env`.

        Returns:
            List of what it returned, one per environment.

        Raises:
            RuntimeError: No `fit` is running.
        """
        return self._running_envs().foreach(function)

    def call_envs(self, name, *args, **kwargs):
        """Calls a method of every environment of the running `fit` by its name."""
        return self._running_envs().call(name, *args, **kwargs)

    @property
    def workers(self):
        """The workers of the running `fit`, for their `foreach_worker(function)`.

        A `kerasrl.workers.WorkerPool`; with `num_workers=0` an object that
        calls functions in this process.
        """
        return workers.get_workers(self._running_envs())

    def _running_envs(self):
        if self.envs is None:
            raise RuntimeError(
                "There are no environments outside fit. Call this from a callback, or "
                "between the iterations of agent.iterate."
            )
        return self.envs
