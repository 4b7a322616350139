"""What the learner and a worker say to each other.

Most of it is single bytes. Messages, for everything that happens rarely, are pickled:
they are read by the process that started the writer, or that the writer started,
through a socket that has no name and that nobody else holds. Nothing is ever unpickled
from a file or, unless workers are actors of a Ray cluster, from the network.
"""

import contextlib
import pickle
import select
import socket
import struct

import cloudpickle

from kerasrl.workers.shared_arrays import SharedArrays

STEP = b"s"
COLLECT = b"c"
DONE = b"d"
MESSAGE = b"m"
FAILURE = b"f"
#: What the learner hears when a process has ended; see `WorkerProcess`.
GONE = b"g"

_LENGTH = struct.Struct("!Q")


class Disconnected(Exception):
    """The other side went away in the middle of a message."""


class Channel:
    """One end of the connection between the learner and a worker.

    Signals go through a pair of pipes, which take half the time of a socket.

    Args:
        connection: A connected Unix `socket.socket`, for messages.
        reading, writing: Integers, file descriptors of pipes. All belong to this
            object.
    """

    def __init__(self, connection, reading, writing):
        self._socket = connection
        self._reading = open(reading, "rb", buffering=0)
        self._writing = open(writing, "wb", buffering=0)
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)
        #: Sends a single byte.
        self.signal = self._writing.write

    def send(self, value, kind=MESSAGE):
        """Sends a message."""
        self.send_pickled(dumps(value), kind)

    def send_pickled(self, payload, kind=MESSAGE, shared=None):
        """Sends a message that `dumps` made.

        Args:
            payload: Bytes.
            kind: One byte.
            shared: `SharedArrays` for `receive_arrays` of the other side, or `None`.
        """
        self.signal(kind)
        self._socket.sendall(_LENGTH.pack(len(payload)) + payload)
        if shared is not None:
            socket.send_fds(self._socket, [b"F"], [shared.descriptor])

    def fileno(self):
        """The file descriptor that can be read when the other side said something."""
        return self._reading.fileno()

    def receive_kind(self, timeout=None):
        """Waits for the next signal or the beginning of a message.

        Args:
            timeout: Seconds, or `None` to wait for ever.

        Returns:
            One byte; `GONE` or `b""` if the other side is gone.

        Raises:
            TimeoutError: Nothing came in time.
        """
        if timeout is not None and not self._poll.poll(1000.0 * timeout):
            raise TimeoutError
        return self._reading.read(1)

    def receive_message(self):
        """Reads the message whose kind has just been read.

        Raises:
            Disconnected: The other side went away in the middle of it.
            TypeError: It cannot be understood in this process.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return loads(self._read(length))

    def receive_arrays(self, layout):
        """Takes over the arrays that follow a message.

        Args:
            layout: Their `SharedArrays.layout`.
        """
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            raise Disconnected
        return SharedArrays(descriptors[0], layout)

    def interrupt(self):
        """Has whoever waits for a message see that none will come."""
        # Not connected any more: then they have seen it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Closes all; the other side notices."""
        for each in (self._socket, self._reading, self._writing):
            each.close()

    def _read(self, length):
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            try:
                count = self._socket.recv_into(view)
            except ConnectionError:
                count = 0
            if not count:
                raise Disconnected
            view = view[count:]
        return buffer


def dumps(value):
    """Pickles a value; functions and classes of scripts and notebooks too."""
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        place, leaf = _find_unsendable(value)
        where = f" at {place}" if place else ""
        raise TypeError(
            f"This cannot be sent between the learner and a worker process{where}: "
            f"{error}. Received: {leaf!r:.200}. Make such objects inside the function "
            "that is sent, or use num_workers=0."
        ) from error


def loads(payload):
    """Reads what `dumps` wrote in another process."""
    try:
        return pickle.loads(payload)
    except Exception as error:
        raise TypeError(
            "Received an object from another process that cannot be read in this one: "
            f"{type(error).__name__}: {error}. Send only what both can import."
        ) from error


def _find_unsendable(value, place=""):
    """Where within dicts, lists and tuples there is something that cannot be pickled.

    Returns:
        Tuple of a string like `"['camera'][0]"` and the object there.
    """
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        try:
            cloudpickle.dumps(item)
        except Exception:
            return _find_unsendable(item, f"{place}[{key!r}]")
    return place, value
