"""Starting one worker process, and what it is told and answers at first."""

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import gymnasium

from kerasrl.envs.registration import get_creator
from kerasrl.rollouts.workers import channel
from kerasrl.rollouts.workers.channel import Channel, Disconnected
from kerasrl.rollouts.workers.shared_arrays import unnamed_memory

_MODULE = "kerasrl.rollouts.workers.process"
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
        self._ended = None
        self._crash = unnamed_memory()
        ours, theirs = socket.socketpair()
        pipes = os.pipe(), os.pipe()
        given = [theirs.fileno(), pipes[0][0], pipes[1][1], self._crash]
        environment = {**os.environ, **dict.fromkeys(_SINGLE_THREADS, "1")}
        # Until the process knows the learner's `sys.path`, to find this very package.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.channel = Channel(ours, pipes[1][0], pipes[0][1])
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
        except BaseException:
            self.channel.close()
            os.close(self._crash)
            raise
        finally:
            # Only the worker holds them now, so we notice when it ends.
            theirs.close()
            for descriptor in given[1:3]:
                os.close(descriptor)
        with contextlib.suppress(AttributeError, OSError):  # Linux only.
            self._ended = os.pidfd_open(self.process.pid)
            self.channel.watch(self._ended)

    def end(self, grace=0.0):
        """Makes sure that the process, and all that it started, has ended.

        Args:
            grace: Float, seconds for it to end by itself.
        """
        with self._ending:
            if self._has_ended:
                return
            self._has_ended = True
            self._wait(grace)
            # Before the process is forgotten: until then its id is no one else's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.channel.close()
            size = os.stat(self._crash).st_size
            self.last_words = os.pread(self._crash, size, 0).decode(errors="replace")
            os.close(self._crash)
            if self._ended is not None:
                os.close(self._ended)

    def farewell(self, deadline):
        """Waits until the process has closed its environments.

        Returns:
            List of strings, what it complains of.
        """
        complaints = []
        with contextlib.suppress(
            TimeoutError, Disconnected, OSError, TypeError, ValueError
        ):
            while True:
                remaining = max(0.0, deadline - time.monotonic())
                kind = self.channel.receive_kind(remaining)
                if kind == b"":
                    break
                if kind == channel.DONE:
                    continue
                value = self.channel.receive_message()
                # Anything else answers an earlier request, which nobody waits for now.
                if isinstance(value, dict) and value.get("request") == "close":
                    complaints += value["complaints"]
        return complaints

    def _wait(self, seconds):
        if self._ended is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            return
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        poll.poll(1000.0 * seconds)


def close_all(workers):
    """Ends processes, gently at first. Also runs when the interpreter exits.

    Returns:
        List of strings, what they complain of.
    """
    for worker in workers:
        with contextlib.suppress(OSError, ValueError):
            worker.channel.send(("close",))
    deadline = time.monotonic() + _CLOSING_SECONDS
    complaints = [worker.farewell(deadline) for worker in workers]
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    return sum(complaints, [])


def check_env(env):
    """Refuses environments that exist already."""
    if not isinstance(env, str) and not callable(env):
        raise TypeError(
            "Worker processes make their own environments: `env` must be a name, a "
            f"gymnasium id or a factory. Received: {env!r}. Pass `lambda: MyEnv()`, or "
            "num_workers=0."
        )


def setup_message(env, env_config):
    """All that a fresh process has to know to make the same environments."""
    creator = get_creator(env) if isinstance(env, str) else None
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
        "env": channel.dumps((env, creator, env_config)),
        "specs": sent,
    }


def raise_remote(index, pid, failure):
    """Raises in this process what was raised in a worker.

    What would end a program without a word, such as `SystemExit`, becomes an error.
    """
    place = f"In worker {index + 1} (process {pid})."
    try:
        error = pickle.loads(failure["error"])
    except Exception:
        error = None
    if not isinstance(error, Exception):
        error = RuntimeError(failure["summary"])
    error.add_note(place)
    raise error from RemoteTraceback(failure["traceback"])
