"""What the learner and a worker say to each other.

Most of it is single bytes. Messages, for everything that happens rarely, are pickled:
they are read by the process that started the writer, or that the writer started,
through a socket that has no name and that nobody else holds. Nothing is ever unpickled
from a file or from the network.
"""

import os
import pickle
import select
import socket
import struct

import cloudpickle

STEP = b"s"
COLLECT = b"c"
DONE = b"d"
MESSAGE = b"m"
FAILURE = b"f"

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
        # What came already is read at once, without a call of `poll`.
        os.set_blocking(reading, False)
        connection.setblocking(False)
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)
        self._ended = None
        #: Sends a single byte.
        self.signal = self._writing.write

    def watch(self, ended):
        """Also notices the end of the other process if others hold its pipes.

        Args:
            ended: Integer, file descriptor that can be read once it has ended, such as
                that of `os.pidfd_open`.
        """
        self._ended = ended
        self._poll.register(ended, select.POLLIN)

    def send(self, value, kind=MESSAGE, descriptor=None):
        """Sends a message, and after it a file descriptor if there is one."""
        self.send_pickled(dumps(value), kind, descriptor)

    def send_pickled(self, payload, kind=MESSAGE, descriptor=None):
        """Sends a message that `dumps` made."""
        self.signal(kind)
        view = memoryview(_LENGTH.pack(len(payload)) + payload)
        while view:
            self._wait_for_socket(select.POLLOUT)
            view = view[self._socket.send(view) :]
        if descriptor is not None:
            self._wait_for_socket(select.POLLOUT)
            socket.send_fds(self._socket, [b"F"], [descriptor])

    def receive_kind(self, timeout=None):
        """Waits for the next signal or the beginning of a message.

        Args:
            timeout: Seconds, or `None` to wait for ever.

        Returns:
            One byte; `b""` if the other side is gone.

        Raises:
            TimeoutError: Nothing came in time.
        """
        kind = self._reading.read(1)
        if kind is None:
            try:
                self._wait(self._poll, timeout)
            except BrokenPipeError:
                return b""
            kind = self._reading.read(1)
        return kind

    def receive_message(self):
        """Reads the message whose kind has just been read.

        Raises:
            Disconnected: The other side went away in the middle of it.
            TypeError: It cannot be understood in this process.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return loads(self._read(length))

    def receive_descriptor(self):
        """Takes the file descriptor that follows a message."""
        self._wait_for_socket(select.POLLIN)
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            raise Disconnected
        return descriptors[0]

    def close(self):
        """Closes all; the other side notices."""
        for each in (self._socket, self._reading, self._writing):
            each.close()

    def _read(self, length):
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            try:
                self._wait_for_socket(select.POLLIN)
                count = self._socket.recv_into(view)
            except ConnectionError:
                count = 0
            if not count:
                raise Disconnected
            view = view[count:]
        return buffer

    def _wait_for_socket(self, event):
        poll = select.poll()
        poll.register(self._socket, event)
        if self._ended is not None:
            poll.register(self._ended, select.POLLIN)
        self._wait(poll)

    def _wait(self, poll, timeout=None):
        """Waits for something other than the end of the other process.

        Raises:
            BrokenPipeError: That process has ended, and left nothing to be read.
            TimeoutError: It took too long.
        """
        found = poll.poll(None if timeout is None else 1000.0 * timeout)
        if not found:
            raise TimeoutError
        if len(found) == 1 and found[0][0] == self._ended:
            # It may have written something right before.
            if len(poll.poll(0)) == 1:
                raise BrokenPipeError


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
