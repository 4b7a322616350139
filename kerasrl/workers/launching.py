"""Starting one worker process, and what it is told and answers at first."""

import concurrent.futures
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

import gymnasium

from kerasrl.envs import preprocessors
from kerasrl.envs.registration import find_creator
from kerasrl.workers import channel, shared_value, stacks
from kerasrl.workers.channel import Channel, Disconnected
from kerasrl.workers.settings import read_cluster
from kerasrl.workers.shared_arrays import SharedArrays, unnamed_memory

_MODULE = "kerasrl.workers.process"
_CLOSING_SECONDS = 2.0
#: One thread each: several workers would fight for the processors.
_SINGLE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class RemoteTraceback(Exception):
    """The traceback of an exception in another process, shown as its cause."""

    def __init__(self, text):
        super().__init__(text)
        self.text = text

    def __str__(self):
        return f'\n"""\n{self.text}"""'


class Processes:
    """Workers that are processes of this machine; `ray_cluster.RayActors` is another.

    It starts workers, makes the arrays that they share with the learner, and packs what
    they are sent.
    """

    share = staticmethod(SharedArrays.like)
    pack = staticmethod(channel.dumps)

    def start(self, index, generation, losses):
        """Starts a worker.

        Args:
            index: Integer, which of them.
            generation: Integer, how often it has been replaced.
            losses: Integer, how often in a row it was lost.
        """
        return WorkerProcess(generation, losses)


class WorkerProcess:
    """A process and the learner's end of the connection to it."""

    def __init__(self, generation=0, losses=0):
        self.generation = generation
        #: How often in a row the worker was lost before it did enough.
        self.losses = losses
        #: Steps that it took in each environment, counted while there are losses.
        self.steps = 0
        #: What the process wrote when it crashed, once it has ended.
        self.last_words = ""
        self._has_ended = False
        self._ending = threading.Lock()
        self._crash = unnamed_memory()
        ours, theirs = socket.socketpair()
        pipes = os.pipe(), os.pipe()
        given = [theirs.fileno(), pipes[0][0], pipes[1][1], self._crash]
        given.append(shared_value.descriptor())
        environment = {**os.environ, **dict.fromkeys(_SINGLE_THREADS, "1")}
        # Until the process knows the learner's `sys.path`, to find this very package.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.channel = Channel(ours, pipes[1][0], pipes[0][1])
        self._announcing = pipes[1][1]
        started = concurrent.futures.Future()
        self._watcher = threading.Thread(
            target=self._watch,
            args=(given, environment, started),
            name="kerasrl-watcher",
            daemon=True,
        )
        try:
            self._watcher.start()
            started.result()
        except BaseException:
            if self._watcher.is_alive() and started.exception() is None:
                self.end()  # Interrupted while it started.
            else:
                self._close()
            raise
        finally:
            theirs.close()
            os.close(pipes[0][0])

    @property
    def pid(self):
        """The id of the process."""
        return self.process.pid

    def describe(self):
        """Returns what to call it in messages."""
        return f"process {self.pid}"

    def fate(self):
        """Returns how it ended, for messages."""
        code = self.process.returncode
        name = f" ({signal.Signals(-code).name})" if code < 0 else ""
        words = self.last_words
        return f"ended with exit code {code}{name}." + (
            f" It was here:\n{words}\n" if words else ""
        )

    def stack(self):
        """Returns its stacks, a string, or `None`."""
        return stacks.read(self.pid)

    def refresh(self, heartbeats):
        """Has arrays that it writes to at any time be up to date, as they are."""

    def wait_started(self):
        """Waits until it runs, which it does."""

    def end(self, grace=0.0):
        """Makes sure that the process, and all that it started, has ended.

        Args:
            grace: Float, seconds for it to end by itself.
        """
        with self._ending:
            if self._has_ended:
                return
            self._has_ended = True
            self._watcher.join(grace)
            self._end_group()
            self._watcher.join()
            self.process.wait()
            size = os.stat(self._crash).st_size
            self.last_words = os.pread(self._crash, size, 0).decode(errors="replace")
            self._close()

    def _watch(self, given, environment, started):
        """Starts the process, and says when it has ended, which its pipes do not tell.

        Processes that an environment forked hold them too. The end is announced through
        the pipe that is being read anyway, so nothing more has to be watched. It is
        started here because the kernel ends it with the thread that did: a thread of
        the user's may be over long before.
        """
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, *map(str, given)],
                pass_fds=given,
                stdin=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C is for the learner, which then closes its workers; and they
                # can be ended together with what they started.
                start_new_session=True,
            )
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        if hasattr(os, "waitid"):
            # The process is not forgotten by that: until then its id is no one else's.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self.process.wait()
        self._end_group()
        self.channel.interrupt()
        os.write(self._announcing, channel.GONE)

    def _end_group(self):
        """Kills the process, if it runs, and what it started."""
        with contextlib.suppress(
            ChildProcessError, ProcessLookupError, PermissionError
        ):
            if hasattr(os, "waitid"):
                # Raises if somebody else has waited for the process.
                now = os.WEXITED | os.WNOWAIT | os.WNOHANG
                os.waitid(os.P_PID, self.process.pid, now)
            os.killpg(self.process.pid, signal.SIGKILL)

    def _close(self):
        self.channel.close()
        os.close(self._announcing)
        os.close(self._crash)


def farewell(connection, deadline):
    """Waits until a worker has closed its environments.

    Args:
        connection: `Channel` to it.
        deadline: Float, the time of `time.monotonic` until which to wait.

    Returns:
        List of strings, what it complains of.
    """
    complaints = []
    with contextlib.suppress(
        TimeoutError, Disconnected, OSError, TypeError, ValueError
    ):
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            kind = connection.receive_kind(remaining)
            if kind in (b"", channel.GONE):
                break
            if kind == channel.DONE:
                continue
            value = connection.receive_message()
            # Anything else answers an earlier request, which nobody waits for now.
            if isinstance(value, dict) and value.get("request") == "close":
                complaints += value["complaints"]
    return complaints


def close_all(workers):
    """Ends processes, gently at first. Also runs when the interpreter exits.

    Returns:
        List of strings, what they complain of.
    """
    for worker in workers:
        with contextlib.suppress(OSError, ValueError):
            worker.channel.send(("close",))
    deadline = time.monotonic() + _CLOSING_SECONDS
    complaints = [farewell(worker.channel, deadline) for worker in workers]
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    return sum(complaints, [])


def make_launcher(cluster):
    """Returns what starts workers, here or in a cluster.

    Args:
        cluster: As for `fit`.

    Raises:
        ImportError: Ray is asked for and not installed.
    """
    cluster = read_cluster(cluster)
    if cluster is None:
        return Processes()
    # Ray takes half a second, and is not always there.
    from kerasrl.workers.ray_cluster import RayActors

    return RayActors(cluster)


def check_env(env):
    """Refuses environments that exist already."""
    if not isinstance(env, str) and not callable(env):
        raise TypeError(
            "Worker processes make their own environments: `env` must be a name, a "
            f"gymnasium id or a factory. Received: {env!r}. Pass `lambda: MyEnv()`, or "
            "num_workers=0."
        )


def setup_message(env, env_config, make=None):
    """All that a fresh process has to know to make the same environments."""
    creator = find_creator(env, load=False) if isinstance(env, str) else None
    # Those that gymnasium registers itself are there already.
    specs = {
        name: spec
        for name, spec in gymnasium.registry.items()
        if not str(spec.entry_point).startswith("gymnasium.")
    }
    if isinstance(env, str):
        specs = {name: spec for name, spec in specs.items() if name == env}
    sent = {}
    for name, spec in specs.items():
        # Others may not be meant for workers at all.
        with contextlib.suppress(TypeError):
            sent[name] = channel.dumps(spec)
    return {
        "path": list(sys.path),
        # Read once the path is set, because it may need modules from there.
        "env": channel.dumps((env, creator, env_config, make)),
        "preprocessor": channel.dumps(preprocessors.registered(env_config)),
        "specs": sent,
    }


def raise_remote(index, worker, failure):
    """Raises in this process what was raised in a worker.

    What would end a program without a word, such as `SystemExit`, becomes an error.

    Args:
        index: Integer, which worker.
        worker: String, what else to call it.
        failure: Dict, what it sent.
    """
    place = f"In worker {index + 1} ({worker})."
    try:
        error = pickle.loads(failure["error"])
    except Exception:
        error = None
    if not isinstance(error, Exception):
        error = RuntimeError(failure["summary"])
    error.add_note(place)
    raise error from RemoteTraceback(failure["traceback"])
