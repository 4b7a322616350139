"""What the learner and a worker say to each other over their socket.

Most of it is single bytes. Messages, for everything that happens rarely, are pickled:
they are read by the very process that wrote them or by its own child, through a
socket that has no name and that nobody else holds. Nothing is ever unpickled from a
file or from the network.
"""

import pickle
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
    """One end of the socket between the learner and a worker.

    Args:
        connection: A connected Unix `socket.socket`. Belongs to this object.
    """

    def __init__(self, connection):
        self._socket = connection
        #: Sends a single byte.
        self.signal = connection.send

    def send(self, value, kind=MESSAGE, descriptor=None):
        """Sends a message, and after it a file descriptor if there is one."""
        payload = dumps(value)
        self._socket.sendall(kind + _LENGTH.pack(len(payload)) + payload)
        if descriptor is not None:
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
        if timeout is None:
            try:
                return self._socket.recv(1)
            except ConnectionError:
                return b""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(1)
        except ConnectionError:
            return b""
        finally:
            self._socket.settimeout(None)

    def receive_message(self):
        """Reads the message whose kind has just been read.

        Raises:
            Disconnected: The other side went away in the middle of it.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def receive_descriptor(self):
        """Takes the file descriptor that follows a message."""
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            raise Disconnected
        return descriptors[0]

    def close(self):
        self._socket.close()

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
        raise TypeError(
            "This cannot be sent between the learner and a worker process: "
            f"{error}. Received: {value!r:.200}. Make such objects inside the function "
            "that is sent, or use num_workers=0."
        ) from error
