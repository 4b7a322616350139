"""Numbers that environments in any process and the learner share."""

import contextlib
import fcntl
import multiprocessing
import os
import struct
import threading

from kerasrl import checks
from kerasrl.workers.shared_arrays import unnamed_memory

#: A number, the length of its name, and its name.
_RECORD = struct.Struct("=dI244s")
_NUMBER = struct.Struct("=d")
_LONGEST = 244


class SharedValue:
    """A number that environments in any process and the learner share.

    Whoever names it for one learner has the same number: the process that learns,
    environments in it and in its workers, those too that take the place of others. It
    begins as 0, and lives as long as that process, whose calls of `fit` all share it:
    set it where another should begin anew. Checkpoints do not have it.

    Environments add to it; the learner reads it, in a callback for instance. What two
    processes add at the same time is added up. A worker that is killed leaves it as it
    was before or after its call, and nobody waits for it.

    Every process that learns has numbers of its own, each rank of one run too. Other
    processes, such as those of gymnasium's `AsyncVectorEnv`, share them only if they
    were forked from one that had made a `SharedValue`: use `num_workers`.

    Args:
        name: String, what to find it by. At most 244 bytes.

    Raises:
        ValueError: No name, or one that is too long.
        RuntimeError: In a process of a gymnasium `AsyncVectorEnv` that has nothing to
            share.

    Example:

    ```python
    class Env(gymnasium.Wrapper):
        def __init__(self, env):
            super().__init__(env)
            self.wins = kerasrl.SharedValue("wins")

        def step(self, action):
            step = self.env.step(action)
            if step[4]:
                self.wins.add(1)
            return step

    agent.fit(lambda: Env(gymnasium.make("CartPole-v1")), steps=50_000, num_workers=2)
    kerasrl.SharedValue("wins").get()
    ```
    """

    def __init__(self, name):
        if not isinstance(name, str):
            raise TypeError(f"Received name={name!r}. Expected a string.")
        if not 0 < len(name.encode()) <= _LONGEST:
            raise ValueError(
                f"Received name={name!r}. Expected a string of 1 to {_LONGEST} bytes."
            )
        self.name = name
        self._offset = _memory().find(name.encode())

    def get(self):
        """Returns the number, a float."""
        memory = _memory()
        with memory.locked(self._offset, _NUMBER.size):
            return memory.read(self._offset)

    def set(self, value):
        """Makes it another number.

        Args:
            value: Finite number.
        """
        value = checks.finite("value", value)
        memory = _memory()
        with memory.locked(self._offset, _NUMBER.size):
            memory.write(self._offset, value)

    def add(self, amount=1):
        """Adds to it.

        Args:
            amount: Finite number, negative to subtract. Sums of whole numbers are exact
                up to 2**53.

        Returns:
            Float, the sum. Of two that add 1 at the same time, one gets the smaller.
        """
        amount = checks.finite("amount", amount)
        memory = _memory()
        with memory.locked(self._offset, _NUMBER.size):
            value = checks.finite("the sum", memory.read(self._offset) + amount)
            memory.write(self._offset, value)
        return value

    def __reduce__(self):
        # By name: elsewhere it may lie in another place.
        return SharedValue, (self.name,)

    def __repr__(self):
        return f"SharedValue({self.name!r}), {self.get()}"


class _Memory:
    """Numbers one after the other, each with its name.

    Args:
        descriptor: Integer, of memory that grows.
    """

    def __init__(self, descriptor):
        self.descriptor = descriptor
        # Locks of the system are of a process: its threads need another.
        self._threads = threading.Lock()

    def find(self, name):
        """Returns where the number of a name lies, at the end if it is new."""
        size = _RECORD.size
        # A length of 0 reaches to the end, wherever that is.
        with self.locked(0, 0):
            count = os.fstat(self.descriptor).st_size // size
            known = os.pread(self.descriptor, count * size, 0)
            for index, (_, length, found) in enumerate(_RECORD.iter_unpack(known)):
                if found[:length] == name:
                    return index * size
            record = _RECORD.pack(0.0, len(name), name)
            os.pwrite(self.descriptor, record, count * size)
            return count * size

    def read(self, offset):
        return _NUMBER.unpack(os.pread(self.descriptor, _NUMBER.size, offset))[0]

    def write(self, offset, value):
        os.pwrite(self.descriptor, _NUMBER.pack(value), offset)

    @contextlib.contextmanager
    def locked(self, offset, length):
        """A context that no other thread or process is in, for the same bytes."""
        with self._threads:
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX, length, offset)
                yield
            finally:
                # Also if interrupted right after locking; it does no harm before.
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN, length, offset)

    def forget_threads(self):
        """Makes a lock that no thread has."""
        self._threads = threading.Lock()


_shared = None
_making = threading.Lock()


def _after_fork():
    # Whichever thread held one of the parent's locks is not in the child. What the
    # system locks is the parent's alone.
    global _making
    _making = threading.Lock()
    if _shared is not None:
        _shared.forget_threads()


os.register_at_fork(after_in_child=_after_fork)


def descriptor():
    """Returns the file descriptor of the memory, which workers are started with."""
    return _memory().descriptor


def join(descriptor):
    """Shares, in a worker, what its learner does.

    Args:
        descriptor: Integer, what `descriptor()` was there.
    """
    global _shared
    _shared = _Memory(descriptor)


def refuse(reason):
    """Has every use of a `SharedValue` in this process raise an error.

    Args:
        reason: String, what the error says.
    """
    global _shared
    _shared = _Nowhere(reason)


class _Nowhere:
    """What stands for a memory that cannot be reached."""

    def __init__(self, reason):
        self._reason = reason

    def find(self, name):
        raise RuntimeError(self._reason)


def _memory():
    global _shared
    with _making:
        if _shared is None:
            _refuse_strangers()
            _shared = _Memory(unnamed_memory("kerasrl-values"))
    return _shared


def _refuse_strangers():
    # gymnasium names its processes so. Nobody else would ever see their numbers.
    if multiprocessing.current_process().name.startswith("Worker<"):
        raise RuntimeError(
            "A SharedValue is shared by the learner and the workers that fit starts. "
            "Received: a process of gymnasium's AsyncVectorEnv. Give fit a function "
            "that makes one environment, and num_workers."
        )
