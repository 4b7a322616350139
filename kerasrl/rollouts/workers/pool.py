"""Starting worker processes, talking to them, and replacing those that fail."""

import itertools
import signal
import time
import warnings
import weakref

import numpy as np

from kerasrl.envs.registration import WorkerShare
from kerasrl.rollouts.workers import channel, stacks
from kerasrl.rollouts.workers.channel import Disconnected
from kerasrl.rollouts.workers.launching import (
    WorkerProcess,
    check_env,
    close_all,
    raise_remote,
    setup_message,
)
from kerasrl.rollouts.workers.settings import check_settings
from kerasrl.rollouts.workers.shared_arrays import SharedArrays

#: A worker that is lost this often, and never did anything between, stays lost.
_MAX_LOSSES = 3


class WorkerLost(Exception):
    """A worker ended, or hangs, and cannot answer."""


class WorkerPool:
    """N processes, each with some of B environments.

    The processes start with `python -m`, so they neither import nor run the program of
    the learner: it works from notebooks, and from scripts that train without
    `if __name__ == "__main__"`. What they need is sent to them.

    Args:
        env, num_envs, env_config: As for `kerasrl.envs.make_envs`; `num_envs` over all
            workers.
        num_workers: Integer, N.
        env_timeout: Float, seconds after which an environment that neither answers a
            `step` nor a `reset` counts as hanging, or `None` to wait for ever.

    Attributes:
        num_workers: N.
        num_envs: B.
        slices: List of N slices, which of the B environments each worker has.
        descriptions: List of dicts, what each worker says of its environments.

    Raises:
        ValueError: Fewer environments than workers, or whatever makes an environment
            impossible.
        TypeError: An environment that exists already, or cannot be sent.

    Example:

    ```python
    pool = WorkerPool("CartPole-v1", num_workers=2)
    pool.foreach_env(lambda env: env.spec.id)
    pool.close()
    ```
    """

    def __init__(
        self, env, num_workers, num_envs=None, env_config=None, env_timeout=None
    ):
        check_env(env)
        self.num_envs = check_settings(num_envs, num_workers, None, env_timeout)
        if num_workers < 1:
            raise ValueError("A pool has one worker or more. Received: num_workers=0.")
        stacks.register()
        self.num_workers = num_workers
        self.env_timeout = env_timeout
        bounds = np.linspace(0, self.num_envs, num_workers + 1).round().astype(int)
        bounds = bounds.tolist()
        self.slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        #: Whether workers are at work and cannot be asked for anything else.
        self.busy = False
        self._setup = setup_message(env, env_config)
        self._remembered = {}
        # Rows of a cache line: one worker's writing does not slow the others down.
        self._heartbeats = SharedArrays.like(np.zeros((num_workers, 8), np.int64))
        self._workers = []
        self._finalizer = weakref.finalize(self, close_all, self._workers)
        try:
            for index in range(num_workers):
                self._workers.append(WorkerProcess())
                self._send_setup(index)
            self.descriptions = [
                self._setup_reply(index) for index in range(num_workers)
            ]
        except BaseException:
            self.close()
            raise

    @property
    def pids(self):
        """The ids of the processes."""
        return [worker.process.pid for worker in self._workers]

    @property
    def generations(self):
        """How often each worker has been replaced."""
        return [worker.generation for worker in self._workers]

    # What users call ----------------------------------------------------------

    def foreach_worker(self, function):
        """Calls `function(worker)` in every worker.

        Args:
            function: Is sent to the workers with `cloudpickle`, and given an object
                with `worker_index` (from 1), `num_workers`, `envs` and
                `foreach_env(function)`.

        Returns:
            List of what it returned, one per worker.
        """
        return [value for (value,) in self.request_all("foreach_worker", function)]

    def foreach_worker_with_index(self, function):
        """Calls `function(worker, index)` in every worker; indices are from 1."""
        return self.foreach_worker(lambda worker: function(worker, worker.worker_index))

    def foreach_env(self, function):
        """Calls `function(env)` on every environment.

        Returns:
            List of what it returned, in the order of environments.
        """
        return sum(self.request_all("foreach_env", function), [])

    # Requests -----------------------------------------------------------------

    def request_all(self, name, *arguments, workers=None):
        """Has workers do something at the same time, and waits for all.

        A worker that is lost meanwhile is replaced, and its replacement asked.

        Args:
            name: Name of a method of `process.WorkerServer`.
            *arguments: Its arguments, the same for all.
            workers: Indices of workers; `None` for all.

        Returns:
            List of what they answered.
        """
        workers = range(self.num_workers) if workers is None else workers
        message = (name, *arguments)
        sent = [self._try(self.send, index, message) for index in workers]
        answers, errors = [], []
        # All are waited for, also if one fails: later answers must not be taken for
        # those to later requests.
        for index, was_sent in zip(workers, sent, strict=True):
            try:
                answers.append(self._answer(index, message, was_sent))
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def request(self, index, name, *arguments, descriptor=None):
        """Has one worker do something; see `request_all`."""
        message = (name, *arguments)
        sent = self._try(self.send, index, message, descriptor)
        return self._answer(index, message, sent, descriptor)

    def remember(self, key, name, *arguments):
        """Notes a request to be repeated in workers that replace others."""
        self._remembered[key] = (name, *arguments)

    def send(self, index, message, descriptor=None):
        """Sends a request; raises `WorkerLost`, as do all methods below."""
        if self.busy:
            raise RuntimeError(
                "Workers are collecting: ask them for something else before `start` or "
                "after `finish`."
            )
        try:
            self._workers[index].channel.send(message, descriptor=descriptor)
        except (ConnectionError, ValueError):  # Closed by them, or by us.
            raise WorkerLost(self._explain(index)) from None

    def signal(self, index, kind):
        """Sends a single byte."""
        try:
            self._workers[index].channel.signal(kind)
        except (ConnectionError, ValueError):  # Closed by them, or by us.
            raise WorkerLost(self._explain(index)) from None

    def receive(self, index, watched=True):
        """Waits for a worker.

        Args:
            index: Integer, which worker.
            watched: Whether `env_timeout` holds.

        Returns:
            What it sent, `None` if only a signal.

        Raises:
            WorkerLost: It ended or hangs.
            Exception: Whatever was raised in the worker.
        """
        worker = self._workers[index]
        if watched and self.env_timeout is not None:
            kind = self._receive_watched(index)
        else:
            kind = worker.channel.receive_kind()
        if kind == channel.DONE:
            return None
        try:
            if kind == b"":
                raise Disconnected
            value = worker.channel.receive_message()
        except Disconnected:
            raise WorkerLost(self._explain(index)) from None
        if kind == channel.FAILURE:
            raise_remote(index, worker.process.pid, value)
        return value

    def replace(self, index, reason):
        """Puts a new process in the place of a lost one, and says so.

        Args:
            index: Integer, which worker.
            reason: `WorkerLost`, why.

        Raises:
            RuntimeError: It is lost again and again.
        """
        old = self._workers[index]
        old.kill()
        losses = old.losses + 1
        if losses > _MAX_LOSSES:
            raise RuntimeError(
                f"{reason} That was the {losses}th time in a row, so training stops. "
                "Look for a crash in the environment (num_workers=0 shows it here) or "
                "for too little memory."
            )
        warnings.warn(
            f"{reason} Another process takes its place with new episodes; what it had "
            "collected in this iteration is dropped.",
            RuntimeWarning,
            stacklevel=2,
        )
        self._workers[index] = WorkerProcess(old.generation + 1, losses)
        try:
            self._send_setup(index)
            self._setup_reply(index)
            for message in self._remembered.values():
                self.send(index, message)
                self.receive(index, watched=False)
        except WorkerLost as lost:
            self.replace(index, lost)

    def note_success(self, index):
        """Notes that a worker did what it is there for."""
        self._workers[index].losses = 0

    def close(self):
        """Closes the environments and ends the processes."""
        self._finalizer()
        self._heartbeats.close()

    # Inside -------------------------------------------------------------------

    def _try(self, function, index, *arguments):
        """Whether a worker got something; if not, it has been replaced."""
        try:
            function(index, *arguments)
        except WorkerLost as lost:
            self.replace(index, lost)
            return False
        return True

    def _answer(self, index, message, sent, descriptor=None):
        while True:
            try:
                if not sent:
                    self.send(index, message, descriptor)
                return self.receive(index, watched=message[0] == "reset")
            except WorkerLost as lost:
                self.replace(index, lost)
                sent = False

    def _send_setup(self, index):
        own = self.slices[index]
        share = WorkerShare(index + 1, self.num_workers, own.start, self.num_envs)
        fields = {
            **self._setup,
            "share": share,
            "num_envs": own.stop - own.start,
            "heartbeats": self._heartbeats.layout,
            "watched": self.env_timeout is not None,
        }
        self.send(index, ("set_up", fields), self._heartbeats.descriptor)

    def _setup_reply(self, index):
        return self.receive(index, watched=False)

    def _receive_watched(self, index):
        worker, heartbeat = self._workers[index], self._heartbeats.tree[index]
        seen, since = heartbeat[0], time.monotonic()
        while True:
            try:
                return worker.channel.receive_kind(self.env_timeout / 4)
            except TimeoutError:
                pass
            if heartbeat[0] != seen:
                seen, since = heartbeat[0], time.monotonic()
            elif time.monotonic() - since >= self.env_timeout:
                env = self.slices[index].start + int(heartbeat[1])
                where = stacks.read(worker.process.pid)
                raise WorkerLost(
                    f"Environment {env} in worker {index + 1} (process "
                    f"{worker.process.pid}) hangs: nothing happened for env_timeout="
                    f"{self.env_timeout} seconds. Its stack: "
                    f"{where or 'not available'}\n"
                )

    def _explain(self, index):
        worker = self._workers[index]
        worker.kill(grace=1.0)
        code = worker.process.returncode
        name = f" ({signal.Signals(-code).name})" if code < 0 else ""
        return (
            f"Worker {index + 1} (process {worker.process.pid}) ended with exit code "
            f"{code}{name}."
        )
