"""The worker as an actor of a Ray cluster, on whatever node.

It is the program of `kerasrl.workers.process`, asked through calls of a method. It
imports neither TensorFlow nor Keras.
"""

import os
import sys
import threading
import traceback

from kerasrl.workers import shared_value
from kerasrl.workers.channel import loads
from kerasrl.workers.mirrored_arrays import MirroredArrays
from kerasrl.workers.process import WorkerServer


class ActorChannel:
    """A worker's end of the connection: what the present call brought along.

    Attributes:
        message: The message that `receive_message` returns, pickled.
        arrays: Dict from keys to all `MirroredArrays` that the learner spoke of.
    """

    def __init__(self):
        self.message = None
        self.arrays = {}

    def receive_message(self):
        """Reads the message of this call."""
        return loads(self.message)

    def receive_arrays(self, layout):
        """Makes the worker's copy of arrays that this message is about."""
        arrays = MirroredArrays(layout)
        self.arrays[arrays.key] = arrays
        return arrays

    def close(self):
        """Nothing is to be given back."""


class RayWorkerActor:
    """What the learner makes an actor of; see `kerasrl.workers.ray_cluster`.

    `answer` is called by one thread, in the order in which the learner asks; the rest
    by another, at any time.
    """

    def __init__(self):
        shared_value.refuse(
            "A SharedValue lies in the memory of one machine. Received: a worker in a "
            "Ray cluster, which may be on another. Leave out `cluster`, or have "
            "callbacks count what episodes' infos say."
        )
        self._channel = ActorChannel()
        self._server = WorkerServer(self._channel)
        self._thread = None
        os.register_at_fork(after_in_child=self._server.leave)

    def where(self):
        """Returns the ids of this process and of its node, and the node's address."""
        import ray  # It is here: this is called by it.

        node = ray.get_runtime_context().get_node_id()
        return os.getpid(), node, ray.util.get_node_ip_address()

    def answer(self, kind, message, places, *parts):
        """Does what the learner asks for.

        Args:
            kind: One byte, as `Channel.receive_kind` returns.
            message: Bytes, the message if that says so, else `None`.
            places, *parts: As for `push`.

        Returns:
            Tuple of the kind of the answer; what it is, pickled, or `None`; and a list
            of what was written: keys, paths and arrays.
        """
        self._thread = threading.get_ident()
        self.push(places, *parts)
        self._channel.message = message
        kind, payload = self._server.answer(kind)
        written = [
            (key, path, arrays.part(path))
            for key, arrays in self._channel.arrays.items()
            for path in arrays.drain()
        ]
        return kind, payload, written

    def push(self, places, *parts):
        """Takes over what the learner wrote.

        Args:
            places: List of tuples: a key, a path, and how often that was written.
            *parts: Trees of arrays, one for each.
        """
        for (key, path, count), part in zip(places, parts, strict=True):
            self._channel.arrays[key].take_over(path, part, count)

    def read(self, key):
        """Returns all arrays of a key as they are now, or `None`."""
        arrays = self._channel.arrays.get(key)
        return None if arrays is None else arrays.tree

    def stack(self):
        """Returns the stack of what `answer` is doing, a string."""
        frame = sys._current_frames().get(self._thread)
        return "".join(traceback.format_stack(frame)) if frame else ""
