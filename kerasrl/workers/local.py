"""The worker as functions of the user see it, in another process or in this one."""


class Worker:
    """What `foreach_worker` passes to its function.

    Args:
        worker_index: Integer, from 1; 0 is the learner, when there are no workers.
        num_workers: Integer, 0 if there are none.
        envs: `kerasrl.envs.Environments` of this worker.
        first_index: Integer, index of its first environment among all.
    """

    def __init__(self, worker_index, num_workers, envs, first_index=0):
        self.worker_index = worker_index
        self.num_workers = num_workers
        self.envs = envs
        self.first_index = first_index

    def foreach_env(self, function):
        """Calls `function(env)` on each environment here; returns the results."""
        return self.envs.foreach(function)


class LocalWorkers:
    """The interface of `WorkerPool` when environments live in this process.

    Args:
        envs: `kerasrl.envs.Environments`.
    """

    num_workers = 0

    def __init__(self, envs):
        self._worker = Worker(0, 0, envs)

    def foreach_worker(self, function):
        """Calls `function(worker)` once, on the environments of this process."""
        return [function(self._worker)]

    def foreach_worker_with_index(self, function):
        """Calls `function(worker, 0)`."""
        return [function(self._worker, 0)]

    def foreach_env(self, function):
        """Calls `function(env)` on every environment; returns the results."""
        return self._worker.foreach_env(function)
