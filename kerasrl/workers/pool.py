"""Starting worker processes, talking to them, and replacing those that fail."""

import itertools
import logging
import select
import threading
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np

from kerasrl.envs.registration import WorkerShare
from kerasrl.workers import channel, stacks
from kerasrl.workers.channel import Disconnected
from kerasrl.workers.launching import (
    check_env,
    close_all,
    make_launcher,
    raise_remote,
    setup_message,
)
from kerasrl.workers.settings import check_settings
from kerasrl.workers.watching import Watch

#: A worker that is lost more often in a row stays lost.
_MAX_LOSSES = 3
#: Losses are in a row unless a worker takes so many steps between them, or a rollout.
_HEALTHY_STEPS = 100
#: What environments answer, so that `env_timeout` holds. Other requests run functions
#: of the user, which may take as long as they want.
_WATCHED: tuple[str, ...] = (
    "reset",
    "call",
    "set_attr",
    "render",
    "infos",
    "reset_infos",
)
_WATCHED += ("play_population", "ask_watched")

_logger = logging.getLogger(__name__)


class WorkerLost(RuntimeError):
    """A worker ended, or hangs, and cannot answer.

    Attributes:
        index: Integer, which worker.
    """

    def __init__(self, message, index=None):
        super().__init__(message)
        self.index = index


class _Request(NamedTuple):
    name: str
    payload: Any


class WorkerPool:
    """N processes, each with some of B environments.

    The processes start with `python -m`, so they neither import nor run the program of
    the learner: it works from notebooks, and from scripts that train without
    `if __name__ == "__main__"`. What they need is sent to them.

    Args:
        env, num_envs, env_config: As for `kerasrl.envs.make_envs`; `num_envs` over all
            workers.
        num_workers: Integer, N.
        env_timeout: Float, seconds after which an environment that does not answer (a
            `step`, a `reset`, a method called by its name, or while it is made) counts
            as hanging, or `None` to wait for ever.
        cluster: `None` for processes of this machine; `"ray"`, a `RayCluster` or a dict
            of its arguments for actors of a Ray cluster.
        make: Function of the arguments of `kerasrl.envs.make_envs` and `share` that
            makes the environments of a worker, `None` for that one. It is sent there.

    Attributes:
        num_workers: N.
        num_envs: B.
        slices: List of N slices, which of the B environments each worker has.
        descriptions: List of dicts, what each worker says of its environments.
        healthy_steps: Integer, steps in each environment after which losses of a worker
            are no longer in a row.

    Raises:
        ValueError: Fewer environments than workers, or whatever makes an environment
            impossible.
        TypeError: An environment that exists already, or cannot be sent.
        RuntimeError: A worker ended, or hangs, while it made its environments.

    Example:

    ```python
    pool = WorkerPool("CartPole-v1", num_workers=2)
    pool.foreach_env(lambda env: env.spec.id)
    pool.close()
    ```
    """

    def __init__(
        self,
        env,
        num_workers,
        num_envs=None,
        env_config=None,
        env_timeout=None,
        cluster=None,
        make=None,
    ):
        check_env(env)
        self.num_envs = check_settings(
            num_envs, num_workers, None, env_timeout, cluster
        )
        if num_workers < 1:
            raise ValueError("A pool has one worker or more. Received: num_workers=0.")
        stacks.register()
        self._launcher = make_launcher(cluster)
        #: Makes arrays like those of a tree, which workers can be given.
        self.share = self._launcher.share
        self.num_workers = num_workers
        self.env_timeout = env_timeout
        bounds = np.linspace(0, self.num_envs, num_workers + 1).round().astype(int)
        bounds = bounds.tolist()
        self.slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        #: Whether workers are at work and cannot be asked for anything else.
        self.busy = False
        #: Called before requests: brings workers that act by themselves to rest.
        self.settle = None
        #: Called before closing: has such workers break off.
        self.stop = None
        self.healthy_steps = _HEALTHY_STEPS
        #: What becomes of what a lost worker was doing, for the warning.
        self.when_replaced = "What it was collecting is dropped; episodes begin anew."
        self._is_closed = False
        # Halves that alternate replace their workers in threads of their own.
        self._starting = threading.Lock()
        self._setup = setup_message(env, env_config, make)
        self._remembered = {}
        # Rows of a cache line: one worker's writing does not slow the others down.
        self._heartbeats = self.share(np.zeros((num_workers, 8), np.int64))
        self._workers = []
        self._finalizer = weakref.finalize(self, close_all, self._workers)
        try:
            for index in range(num_workers):
                self._start(index)
            self.descriptions = [self._set_up(index) for index in range(num_workers)]
        except BaseException:
            self.close()
            raise
        _logger.info("Started workers: processes %s.", self.pids)

    def describe(self, index):
        """Returns what to call a worker in messages, besides its number."""
        return self._workers[index].describe()

    def stack(self, index):
        """Returns the stacks of a worker, a string, or `None`."""
        return self._workers[index].stack()

    def heartbeat(self, index):
        """How often a worker was heard of, and the environment it went to last."""
        self._workers[index].refresh(self._heartbeats)
        return tuple(self._heartbeats.tree[index][:2].tolist())

    @property
    def pids(self):
        """The ids of the processes."""
        return [worker.pid for worker in self._workers]

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
        message = self._pack(name, arguments)
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

    def request(self, index, name, *arguments, shared=None):
        """Has one worker do something; see `request_all`.

        Args:
            shared: What `share` returned, if the request is to take that over; its
                `layout` is among the arguments.
        """
        message = self._pack(name, arguments)
        sent = self._try(self.send, index, message, shared)
        return self._answer(index, message, sent, shared)

    def attempt(self, index, name, *arguments, shared=None):
        """Like `request`, but raises `WorkerLost` rather than ask a replacement.

        For what makes sense only after other requests, of which that knows nothing.
        """
        self.send(index, self._pack(name, arguments), shared)
        return self.receive(index, watched=name in _WATCHED)

    def remember(self, key, name, *arguments):
        """Notes a request to be repeated in workers that replace others."""
        self._remembered[key] = (name, *arguments)

    def _pack(self, name, arguments):
        """Returns a request as it can be sent to any number of workers."""
        return _Request(name, self._launcher.pack((name, *arguments)))

    def send(self, index, request, shared=None):
        """Sends what `_pack` made; raises `WorkerLost`, as do `signal`, `receive`."""
        if self.settle is not None:
            self.settle()
        if self.busy:
            raise RuntimeError(
                "Workers are collecting: ask them for something else before `start` or "
                "after `finish`."
            )
        try:
            connection = self._workers[index].channel
            connection.send_pickled(request.payload, shared=shared)
        except (ConnectionError, ValueError):  # Closed by them, or by us.
            raise self._lost(index) from None

    def signal(self, index, kind):
        """Sends a single byte."""
        try:
            self._workers[index].channel.signal(kind)
        except (ConnectionError, ValueError):  # Closed by them, or by us.
            raise self._lost(index) from None

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
            kind = self._receive_kind(worker)
        if kind == channel.DONE:
            return None
        try:
            if kind in (b"", channel.GONE):
                raise Disconnected
            value = worker.channel.receive_message()
        except Disconnected:
            raise self._lost(index) from None
        except TypeError as error:
            error.add_note(f"Sent by worker {index + 1}.")
            raise
        if kind == channel.FAILURE:
            raise_remote(index, worker.describe(), value)
        return value

    def watch(self, index):
        """Returns a `Watch` of a worker, or `None` without `env_timeout`."""
        return None if self.env_timeout is None else Watch(self, index)

    def wait_any(self, watches, wait=True):
        """Waits until at least one of some workers has something to say.

        Args:
            watches: Dict from indices of workers that were asked for something to
                what `watch` returned then.
            wait: Whether to wait if none has.

        Returns:
            List of the indices of those that have: `receive` does not wait for them,
            or raises at once because they ended.

        Raises:
            WorkerLost: One of the others hangs. Its attribute `index` says which.
        """
        poll, of_descriptor = select.poll(), {}
        for index in watches:
            descriptor = self._workers[index].channel.fileno()
            of_descriptor[descriptor] = index
            poll.register(descriptor, select.POLLIN)
        timeout = 0
        if wait:
            timeout = None if self.env_timeout is None else 250.0 * self.env_timeout
        while True:
            ready = [of_descriptor[descriptor] for descriptor, _ in poll.poll(timeout)]
            if self.env_timeout is not None:
                for index, watch in watches.items():
                    if index in ready:
                        watch.rest()
                    else:
                        watch.check(WorkerLost)
            if ready or not wait:
                return ready

    def replace(self, index, reason):
        """Puts a new process in the place of a lost one, and says so.

        Args:
            index: Integer, which worker.
            reason: `WorkerLost`, why.

        Raises:
            RuntimeError: It is lost again and again.
        """
        while True:
            old = self._workers[index]
            old.end()
            losses = old.losses + 1
            if losses > _MAX_LOSSES:
                raise RuntimeError(
                    f"{reason} That was the {losses}th time in a row, so training "
                    "stops. Look for a crash in the environment (num_workers=0 shows "
                    "it here) or for too little memory."
                )
            warnings.warn(
                f"{reason} Another process takes its place. {self.when_replaced}",
                RuntimeWarning,
                stacklevel=2,
            )
            try:
                self._start(index, old.generation + 1, losses)
                self._set_up(index)
                for name, *arguments in list(self._remembered.values()):
                    self.attempt(index, name, *arguments)
            except WorkerLost as lost:
                reason = lost
            else:
                _logger.info(
                    "Worker %d is process %d now.", index + 1, self.pids[index]
                )
                return

    def note_steps(self, index, steps):
        """Notes that a worker took steps in each of its environments."""
        worker = self._workers[index]
        if worker.losses:
            worker.steps += steps
            if worker.steps >= self.healthy_steps:
                worker.losses = worker.steps = 0

    def close(self):
        """Closes the environments and ends the processes."""
        with self._starting:
            self._is_closed = True
        if self.stop is not None:
            self.stop()
        complaints = self._finalizer() or []
        self._heartbeats.close()
        for complaint in complaints:
            warnings.warn(complaint, stacklevel=2)

    # Inside -------------------------------------------------------------------

    def _try(self, function, index, *arguments):
        """Whether a worker got something; if not, it has been replaced."""
        try:
            function(index, *arguments)
        except WorkerLost as lost:
            self.replace(index, lost)
            return False
        return True

    def _answer(self, index, request, sent, shared=None):
        while True:
            try:
                if not sent:
                    self.send(index, request, shared)
                return self.receive(index, watched=request.name in _WATCHED)
            except WorkerLost as lost:
                self.replace(index, lost)
                sent = False

    def _start(self, index, generation=0, losses=0):
        """Starts a process and tells it what it is for."""
        self._heartbeats.tree[index] = 0
        with self._starting:
            if self._is_closed:
                raise RuntimeError("The worker processes have been closed.")
            worker = self._launcher.start(index, generation, losses)
            self._workers[index : index + 1] = [worker]
        own = self.slices[index]
        share = WorkerShare(index + 1, self.num_workers, own.start, self.num_envs)
        fields = {
            **self._setup,
            "share": share,
            "num_envs": own.stop - own.start,
            "heartbeats": self._heartbeats.layout,
            "watched": self.env_timeout is not None,
        }
        request = self._pack("set_up", (fields,))
        self.send(index, request, self._heartbeats)

    def _set_up(self, index):
        """Waits until a process has made its environments."""
        try:
            self._workers[index].wait_started()
            return self.receive(index)
        except WorkerLost as lost:
            raise WorkerLost(f"{lost} It was making its environments.") from None

    def _receive_kind(self, worker, timeout=None):
        try:
            return worker.channel.receive_kind(timeout)
        except ValueError:  # Closed by us, from another thread.
            return b""

    def _receive_watched(self, index):
        watch = Watch(self, index)
        while True:
            try:
                return self._receive_kind(self._workers[index], self.env_timeout / 4)
            except TimeoutError:
                watch.check(WorkerLost)

    def _lost(self, index):
        """The `WorkerLost` that says how a process ended."""
        worker = self._workers[index]
        worker.end(grace=1.0)
        return WorkerLost(
            f"Worker {index + 1} ({worker.describe()}) {worker.fate()}", index
        )
