"""Workers that are actors of a Ray cluster, as the learner sees them.

What `Processes`, `WorkerProcess` and `Channel` are to workers of this machine,
`RayActors`, `RayActor` and `RayChannel` are here. Who uses them does not know which.
"""

import contextlib
import dataclasses
import os
import queue
import select
import threading
import time
import warnings
import weakref

import optree

from kerasrl.workers import channel
from kerasrl.workers.channel import Disconnected
from kerasrl.workers.mirrored_arrays import MirroredArrays
from kerasrl.workers.ray_actor import RayWorkerActor

try:
    import ray
except ImportError as error:
    raise ImportError(
        'Received cluster="ray", and Ray is not installed. Install it with '
        "`pip install kerasrl[ray]`, on every node."
    ) from error

#: Bytes up to which something is sent along with each call; more is put into the store
#: of the cluster once, and calls refer to it. Ray itself draws the line there.
_SMALL = 100 * 1024
#: Seconds for a node to have room for a worker, and for the worker to start.
_START_SECONDS = 60.0
#: The same for one that takes the place of another.
_AGAIN_SECONDS = 30.0
#: Seconds, whole ones, for room that a lost worker had to be known as free.
_ROOM_SECONDS = 3
#: Seconds for a node that is lost to be known as such.
_NODE_SECONDS = 1.0
#: Seconds to wait for what a worker says beside its work.
_ASIDE_SECONDS = 2.0


class RayActors:
    """Workers that are actors of a Ray cluster; see `kerasrl.workers.launching`.

    Args:
        cluster: `RayCluster`.
    """

    share = staticmethod(MirroredArrays.like)

    def __init__(self, cluster):
        self._cluster = cluster
        if not ray.is_initialized():
            # What Ray would tell its makers is for the user to switch on; the other
            # is what it will do by itself, and warns of until then.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            ray.init(address=cluster.address, include_dashboard=False)
        elif cluster.address not in (None, "auto", joined := _address()):
            raise ValueError(
                f"Received RayCluster(address={cluster.address!r}), and this program "
                f"has joined the cluster at {joined!r}. Leave the address out, or call "
                "ray.shutdown() before."
            )

    def pack(self, message):
        """Pickles a request, once for all that it is sent to."""
        payload = channel.dumps(message)
        return ray.put(payload) if len(payload) > _SMALL else payload

    def start(self, index, generation, losses):
        """Starts a worker; see `Processes.start`."""
        cluster = self._cluster
        options = {
            "num_cpus": cluster.num_cpus,
            "num_gpus": cluster.num_gpus,
            "resources": cluster.resources,
            "runtime_env": cluster.runtime_env,
            "scheduling_strategy": "SPREAD",
            # A new one has to be told everything: that is for the learner to do.
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if ray.util.get_current_placement_group() is not None:
            # Of a trial of Ray Tune, which has reserved its own places.
            del options["scheduling_strategy"]
        elif generation and not _has_room(cluster):
            options["num_cpus"] = 0
            warnings.warn(_without_room(cluster, index), RuntimeWarning, stacklevel=2)
        return RayActor(options, generation, losses)


class RayActor:
    """A worker somewhere in the cluster; see `kerasrl.workers.launching.WorkerProcess`.

    Args:
        options: Dict, of the actor.
        generation, losses: As there.
    """

    def __init__(self, options, generation, losses):
        self.generation = generation
        self.losses = losses
        self.steps = 0
        self._options = options
        self._place = None
        actor_class = ray.remote(concurrency_groups={"aside": 1})(RayWorkerActor)
        self._actor = actor_class.options(**options).remote()
        self._where = self._aside("where")
        self.channel = RayChannel(self._actor)

    @property
    def pid(self):
        """The id of its process on its machine, or `None` if that is not known."""
        return None if self._place is None else self._place[0]

    def describe(self):
        """Returns what to call it in messages."""
        if self._place is None:
            return "an actor that has not started"
        pid, _, address = self._place
        return f"process {pid} on {address}"

    def fate(self):
        """Returns how it ended, for messages."""
        if self.channel.error is None:
            return "was ended."
        if self._place is not None and _is_lost(self._place[1]):
            return "was lost with its node."
        if isinstance(self.channel.error, ray.exceptions.ActorUnavailableError):
            # Ray takes some seconds to be sure that it is no more.
            return "was lost, or its node was: it cannot be reached."
        lines = str(self.channel.error).splitlines() or [""]
        # The first says that an actor died, a later one why.
        reason = next((line for line in lines if "because" in line), lines[0])
        return f"was lost: {reason.split('Some common causes')[0].strip()}"

    def stack(self):
        """Returns the stack of what it does, a string, or `None`."""
        return self._ask_aside("stack")

    def refresh(self, heartbeats):
        """Has arrays that it writes to at any time be up to date, if it answers."""
        tree = self._ask_aside("read", heartbeats.key)
        if tree is not None:
            row = tree.any(axis=1)
            heartbeats.tree[row] = tree[row]

    def wait_started(self):
        """Waits until it runs.

        One that takes the place of another is given up instead of an error, for another
        try: Ray may have taken a node for alive that is not.

        Raises:
            RuntimeError: No node has room for it.
        """
        seconds = _AGAIN_SECONDS if self.generation else _START_SECONDS
        try:
            self._place = ray.get(self._where, timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            if self.generation:
                ray.kill(self._actor)
                return
            wanted = {
                name: self._options[name]
                for name in ("num_cpus", "num_gpus", "resources")
                if self._options[name]
            }
            raise RuntimeError(
                f"No node of the Ray cluster had room for a worker within "
                f"{_START_SECONDS:g} seconds. It needs: {wanted}. The cluster has: "
                f"{_amounts(ray.cluster_resources())}, of which are free: "
                f"{_amounts(ray.available_resources())}. Use fewer workers, "
                "kerasrl.RayCluster(num_cpus=0.5), or more nodes."
            ) from None
        except ray.exceptions.RayError:
            pass  # Who waits for its first answer will hear.

    def end(self, grace=0.0):
        """Makes sure that it has ended.

        Args:
            grace: Not used: it has answered, or nothing will come any more.
        """
        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self._actor)
        self.channel.close()

    def _aside(self, name, *arguments):
        """Calls a method beside what the worker does; returns a reference."""
        method = getattr(self._actor, name).options(concurrency_group="aside")
        return method.remote(*arguments)

    def _ask_aside(self, name, *arguments):
        if not ray.is_initialized():
            return None
        try:
            return ray.get(self._aside(name, *arguments), timeout=_ASIDE_SECONDS)
        except ray.exceptions.RayError:  # It hangs or is lost.
            return None


class RayChannel:
    """The learner's end of the connection to an actor; see `Channel`.

    A thread waits for the answers in their order, and says through a pipe that there is
    one, so that many workers can be waited for at a time as local ones are.

    Args:
        actor: Handle of a `RayWorkerActor`.

    Attributes:
        error: What Ray raised when the actor was lost, or `None`.
    """

    def __init__(self, actor):
        self._actor = actor
        self.error = None
        reading, writing = os.pipe()
        self._reading = open(reading, "rb", buffering=0)
        self._writing = open(writing, "wb", buffering=0)
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)
        self._asked = queue.SimpleQueue()
        self._answers = queue.SimpleQueue()
        self._is_closed = threading.Event()
        #: Arrays that the worker was given, what it knows of each, and since when.
        self._arrays = weakref.WeakValueDictionary()
        self._told, self._told_at = {}, {}
        self._thread = threading.Thread(
            target=self._receive, name="kerasrl-ray", daemon=True
        )
        self._thread.start()

    def signal(self, kind):
        """Asks for what a single byte says."""
        self._ask(kind, None)

    def send(self, value, kind=channel.MESSAGE):
        """Sends a message."""
        self.send_pickled(channel.dumps(value), kind)

    def send_pickled(self, payload, kind=channel.MESSAGE, shared=None):
        """Sends a message that `RayActors.pack` made; see `Channel.send_pickled`."""
        self._ask(kind, payload, shared)

    def push(self, shared, within):
        """Has the worker see what was written, while it does something else.

        Args:
            shared: `MirroredArrays` that it was given.
            within: Float, seconds that must have gone by since it was told last.
        """
        is_due = time.monotonic() - self._told_at[shared.key] >= within
        # Else Ray would begin a cluster of its own.
        if is_due and ray.is_initialized():
            method = self._actor.push.options(concurrency_group="aside")
            method.remote(*self._news([shared]))

    def fileno(self):
        """The file descriptor that can be read when there is an answer."""
        return self._reading.fileno()

    def receive_kind(self, timeout=None):
        """Waits for the next answer; see `Channel.receive_kind`."""
        if timeout is not None and not self._poll.poll(1000.0 * timeout):
            raise TimeoutError
        return self._reading.read(1)

    def receive_message(self):
        """Reads the answer whose kind has just been read."""
        payload = self._answers.get()
        if payload is None:
            raise Disconnected
        return channel.loads(payload)

    def close(self):
        """Closes all; nothing is received any more."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._asked.put(None)
            self._thread.join(_ASIDE_SECONDS)
            for shared in self._arrays.values():
                shared.channels.discard(self)
            self._reading.close()
            self._writing.close()

    def _ask(self, kind, payload, shared=None):
        is_gone = self._is_closed.is_set() or self.error is not None
        # Without a cluster, Ray would begin one of its own.
        if is_gone or not ray.is_initialized():
            raise ConnectionError("The actor is gone.")
        news = self._news(list(self._arrays.values()))
        self._asked.put(self._actor.answer.remote(kind, payload, *news))
        if shared is not None:
            # Only now: before that request the worker does not know of it.
            self._arrays[shared.key] = shared
            self._told[shared.key], self._told_at[shared.key] = {}, 0.0
            shared.channels.add(self)

    def _news(self, known):
        """Returns what the worker does not know of arrays, as `answer` takes it."""
        places, parts = [], []
        for shared in known:
            for path, count in shared.changes(self._told[shared.key]):
                self._told_at[shared.key] = time.monotonic()
                places.append((shared.key, path, count))
                parts.append(shared.keep(path, count, _put_large))
        return [places, *parts]

    def _receive(self):
        """Waits for answers until there are none any more."""
        while (asked := self._asked.get()) is not None:
            try:
                kind, payload, written = ray.get(asked)
            except BaseException as error:
                self.error = error
                self._answers.put(None)
                self._announce(channel.GONE)
                return
            for key, path, arrays in written:
                shared = self._arrays.get(key)
                if shared is not None:
                    shared.take_over(path, arrays)
                    if path[-1:] == ("finished",):
                        # Clocks of other machines say nothing here.
                        shared.part(path)[...] = time.monotonic()
            if payload is not None:
                self._answers.put(payload)
            self._announce(kind)

    def _announce(self, kind):
        with contextlib.suppress(ValueError, OSError):  # Nobody listens any more.
            self._writing.write(kind)


def _put_large(part):
    """Returns arrays as they are if they are small, else a reference to them."""
    size = sum(leaf.nbytes for leaf in optree.tree_leaves(part))
    return ray.put(part) if size > _SMALL else part


def _address():
    return ray.get_runtime_context().gcs_address


def _is_lost(node):
    """Whether a node is not alive, or will be known not to be in a moment."""
    deadline = time.monotonic() + _NODE_SECONDS
    while ray.is_initialized():
        if node not in {each["NodeID"] for each in ray.nodes() if each["Alive"]}:
            return True
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return False


def _has_room(cluster):
    """Whether one node has all that a worker asks for, or will have at once."""
    amounts = {"CPU": cluster.num_cpus, **_besides_processors(cluster)}
    amounts = {name: amount for name, amount in amounts.items() if amount}
    if not amounts:
        return True
    # What is free is known of the cluster as a whole only; a place is on one node.
    place = ray.util.placement_group([amounts])
    try:
        return place.wait(_ROOM_SECONDS)
    finally:
        ray.util.remove_placement_group(place)


def _besides_processors(cluster):
    """What a worker asks for that it cannot share, a dict of amounts."""
    amounts = {"GPU": cluster.num_gpus, **(cluster.resources or {})}
    return {name: amount for name, amount in amounts.items() if amount}


def _without_room(cluster, index):
    """Says what becomes of a worker for which no node has room.

    Processors are not asked for any more. Of anything else it needs its own.
    """
    needed = _besides_processors(cluster)
    asked = [f"num_cpus={cluster.num_cpus:g}"]
    asked += [f"{name}={amount:g}" for name, amount in needed.items()]
    message = (
        f"No node of the cluster has room for worker {index + 1} ({', '.join(asked)})."
    )
    waits = not _has_room(dataclasses.replace(cluster, num_cpus=0))
    if not waits:
        return f"{message} It shares processors with others now."
    names = " and ".join(needed)
    return (
        f"{message} It waits until a node has {names} free: start one, or end what "
        "holds them."
    )


def _amounts(resources):
    return {
        name: amount
        for name, amount in resources.items()
        if ":" not in name and name not in ("memory", "object_store_memory")
    }
