"""The program of a worker process, run with `python -m` and five file descriptors.

It serves requests until the learner is gone. It imports neither
TensorFlow nor Keras.
"""

import contextlib
import ctypes
import faulthandler
import gc
import itertools
import os
import pickle
import signal
import socket
import sys
import time
import traceback
import warnings
from functools import partial

import gymnasium

from kerasrl.actors.population import PopulationProgram
from kerasrl.envs.make import make_envs
from kerasrl.envs.preprocessors import register_preprocessor
from kerasrl.envs.registration import register_env
from kerasrl.rollouts.collector import Collector
from kerasrl.rollouts.playing import PopulationPlayer
from kerasrl.rollouts.population import dealt
from kerasrl.rollouts.rollout import take
from kerasrl.workers import channel, shared_value, stacks
from kerasrl.workers.acting import PartialActor
from kerasrl.workers.channel import Channel, Disconnected
from kerasrl.workers.fragments import (
    BrokenOff,
    InfoKeeper,
    dump_infos,
    write_fragment,
    write_row,
)
from kerasrl.workers.local import Worker
from kerasrl.workers.publishing import Published

_PR_SET_PDEATHSIG = 1
_NONE = -1


def main(connection, reading, writing, crash, values):
    """Serves the learner at the other end.

    Args:
        connection, reading, writing: Integers, file descriptors as for `Channel`.
        crash: Integer, file descriptor to which stacks are written if this process
            crashes.
        values: Integer, file descriptor of what `SharedValue` shares.
    """
    _die_with_learner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.register()
    faulthandler.enable(crash)
    for descriptor in (connection, reading, writing, crash, values):
        os.set_inheritable(descriptor, False)
    shared_value.join(values)
    connection = socket.socket(fileno=connection)
    server = WorkerServer(Channel(connection, reading, writing))
    os.register_at_fork(after_in_child=server.leave)
    try:
        server.serve()
    except (Disconnected, ConnectionError):
        pass  # The learner went away in the middle of a message.
    except BaseException:
        traceback.print_exc()
        # At once: threads of an environment could keep a broken process alive.
        os._exit(1)


class WorkerServer:
    """Does what the learner asks for. Methods without underscore are the requests.

    Args:
        connection: `Channel` to the learner.
    """

    def __init__(self, connection):
        self._channel = connection
        self._envs = None
        self._collector = None
        self._keeper = None
        #: Where fragments go in turn, if the learner does not wait for them.
        self._places = None
        # Of a step that another process took, which this one replaces.
        self._infos = lambda: [{} for _ in range(self._envs.num_envs)]
        self._finished = False
        self._is_elsewhere = False

    def serve(self):
        """Serves requests until the learner is gone or says to close."""
        while not self._finished:
            kind = self._channel.receive_kind()
            if kind == b"":
                self.close()
                break
            kind, payload = self.answer(kind)
            if payload is None:
                self._channel.signal(kind)
            else:
                self._channel.send_pickled(payload, kind)

    def answer(self, kind):
        """Does what the learner asked for.

        Args:
            kind: One byte, what it said; of a message, the rest is received here.

        Returns:
            Tuple of the kind of the answer, a byte, and what it is, pickled, or `None`.

        Raises:
            Disconnected: The learner went away in the middle of a message.
        """
        try:
            message = None
            if kind == channel.MESSAGE:
                message = self._channel.receive_message()
            value = self._do(kind, message)
            payload = None if value is None else channel.dumps(value)
        except Disconnected:
            raise
        # Whatever an environment raises, SystemExit too, is the learner's to see.
        except BaseException as error:
            self._check_place()
            return channel.FAILURE, channel.dumps(_describe(error))
        self._check_place()
        return (channel.DONE if payload is None else channel.MESSAGE), payload

    def leave(self):
        """Leaves the learner to the process that this one was forked from."""
        self._is_elsewhere = True
        self._channel.close()

    def _check_place(self):
        if self._is_elsewhere:
            # An environment forked, and forgot to end the copy.
            os._exit(1)

    def _do(self, kind, message):
        if kind == channel.STEP:
            return self._step()
        if kind == channel.COLLECT:
            return self._collect()
        name, *arguments = message
        return getattr(self, name)(*arguments)

    def _attach(self, layout):
        """Takes over arrays, of which only writing is to be told."""
        shared = self._channel.receive_arrays(layout)
        shared.close()
        return shared

    # Requests -----------------------------------------------------------------

    def set_up(self, fields):
        """Makes the environments. Returns a dict that describes them."""
        heartbeats = self._attach(fields["heartbeats"]).tree
        self._share = share = fields["share"]
        heartbeat = heartbeats[share.worker_index - 1]
        own = [path for path in sys.path if path not in fields["path"]]
        sys.path[:] = fields["path"] + own
        for name, spec in fields["specs"].items():
            if name not in gymnasium.registry:
                gymnasium.registry[name] = pickle.loads(spec)
        env, creator, env_config, make = pickle.loads(fields["env"])
        if creator is not None:
            register_env(env, creator)
        preprocessor = pickle.loads(fields["preprocessor"])
        if preprocessor is not None:
            register_preprocessor(*preprocessor)
        # From now on it is up to the environments how long it takes.
        heartbeat[:2] = 1, _NONE
        make = make_envs if make is None else make
        envs = make(env, fields["num_envs"], env_config, share=share)
        heartbeat[0] = 2
        self._envs = envs
        if fields["watched"]:
            _watch(envs, heartbeat)
        self._worker = Worker(
            share.worker_index, share.num_workers, envs, share.first_index
        )
        return {
            "observation_space": envs.observation_space,
            "action_space": envs.action_space,
            "name": envs.name,
            "resets_on_next_step": envs.resets_on_next_step,
        }

    def reset(self, seeds):
        """Starts new episodes. Returns the observations."""
        if seeds is not None:
            seeds = seeds[self._share.first_index :][: self._envs.num_envs]
        if self._collector is None:
            observations = self._envs.reset(seeds)
        else:
            self._keeper.drain()  # Of a rollout that ended with an error.
            self._collector.reset(seeds)
            observations = self._collector.observations
        self._infos = lambda: [{"reset_info": info} for info in self._envs.reset_infos]
        return observations

    def reset_infos(self):
        """Returns the infos of the latest reset, pickled."""
        return self._dump_infos(self._envs.reset_infos)

    def share_steps(self, layout):
        """Takes over the arrays through which single steps are exchanged."""
        start = self._share.first_index
        own = slice(start, start + self._envs.num_envs)
        shared = self._attach(layout)
        self._exchange = take(shared.tree, own)
        rows = range(own.start, own.stop)
        always = [(name, rows) for name in ("observations", "rewards", "ended")]
        ends = [(name, rows) for name in ("terminated", "truncated", "valid")]
        ends.append(("final_observations", rows))
        self._note_step = partial(shared.wrote, *always)
        self._note_ends = partial(shared.wrote, *ends)

    def prepare_collecting(self, fields, layout):
        """Takes over the acting program, and the memory in which its weights are."""
        share = self._share
        program = fields["program"]
        program.weights = self._attach(layout).tree
        actor = PartialActor(
            program,
            fields["initial_state"],
            share.first_index,
            share.first_index + self._envs.num_envs,
            share.num_envs,
            fields["leader"],
        )
        own = slice(share.first_index, share.first_index + self._envs.num_envs)
        self._keeper = InfoKeeper(self._envs, self._dump_infos)
        self._collector = Collector(
            self._keeper,
            actor,
            fields["rollout_length"],
            fields["generators"][own],
            all_finals=True,
        )

    def prepare_streaming(self, fields, layout):
        """Takes over the acting program, and where its weights are published."""
        shared = self._channel.receive_arrays(layout)
        share, num_envs = self._share, self._envs.num_envs
        own = slice(share.first_index, share.first_index + num_envs)
        published, program = Published(shared), fields["program"]
        program.weights, exploration = published.private(own)
        actor = PartialActor(
            program, fields["initial_state"], 0, num_envs, num_envs, None
        )
        self._keeper = InfoKeeper(self._envs, self._dump_infos)
        self._collector = Collector(
            self._keeper,
            actor,
            fields["rollout_length"],
            fields["generators"],
            all_finals=fields["all_finals"],
        )
        self._collector.exploration = exploration
        self._refresh = partial(published.read_into, program.weights, exploration, own)

    def share_fragments(self, layout, info_keys):
        """Takes over the places that fragments are written to in turn."""
        self._shared = self._attach(layout)
        tree = self._shared.tree
        self._places = itertools.cycle(enumerate(tree["places"]))
        self._count = tree["count"]
        self._keeper.stop = memoryview(tree["stop"])
        self._keeper.keys = info_keys
        self._idle_since = time.monotonic()
        gc.freeze()

    def prepare_population(self, fields):
        """Takes over the acting program for episodes by weights of their own."""
        own, is_stacked = fields["own"], fields["is_stacked"]
        size = self._envs.num_envs
        self._actor = PopulationProgram(fields["program"], own, size, is_stacked)
        self._player = PopulationPlayer(self._envs, self._actor, **fields["options"])

    def play_population(self, population, weights, tasks):
        """Plays the episodes that are this worker's. Returns what came of them."""
        share = self._share
        self._actor.share(weights)
        own = dealt(tasks, share.worker_index - 1, share.num_workers)
        return self._player.play(population, own)

    def share_fragment(self, layout, info_keys):
        """Takes over the arrays that rollouts are written into."""
        self._shared = self._attach(layout)
        self._keeper.keys = info_keys
        # What exists now stays: the garbage collector need not go through it.
        gc.freeze()

    def set_origins(self, origins):
        """Sets what is subtracted of observations."""
        self._envs.set_origins(origins)

    def foreach_worker(self, function):
        """Calls a function of the user on this worker."""
        return (function(self._worker),)

    def foreach_env(self, function):
        """Calls a function of the user on every environment."""
        return self._envs.foreach(function)

    def call(self, name, arguments, keywords):
        """Calls a method of every environment by its name."""
        return self._envs.call(name, *arguments, **keywords)

    def ask(self, name, *arguments):
        """Calls a method of what the environments were made as, see `WorkerPool`."""
        return getattr(self._envs, name)(*arguments)

    def ask_watched(self, name, *arguments):
        """Like `ask`, of a method that steps environments: `env_timeout` holds."""
        return self.ask(name, *arguments)

    def ask_goals(self, name, *steps):
        """Returns what an environment says of steps; of none, whether it would."""
        function = self._envs.goal_function(name)
        return function(*steps) if steps else function is not None

    def set_attr(self, name, value):
        """Sets an attribute of every environment."""
        self._envs.set_attr(name, value)

    def render(self):
        """Returns what the environments' `render` returned."""
        return self._envs.render()

    def infos(self):
        """Returns the infos of the latest step, pickled."""
        return self._dump_infos(self._infos())

    def close(self):
        """Closes the environments and lets the process end.

        Returns:
            Dict of what there is to say about it, the list `"complaints"`.
        """
        self._finished = True
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                if self._envs is not None:
                    self._envs.close()
                complaints = []
            except BaseException:
                complaints = [f"It could not be closed: {traceback.format_exc()}"]
        complaints += [str(warning.message) for warning in caught]
        return {"request": "close", "complaints": complaints}

    # Signals ------------------------------------------------------------------

    def _step(self):
        exchange = self._exchange
        step = self._envs.step(exchange["actions"], exchange["observations"])
        exchange["rewards"][...] = step.rewards
        exchange["ended"][...] = step.any_ended
        if step.any_ended:
            exchange["terminated"][...] = step.terminated
            exchange["truncated"][...] = step.truncated
            exchange["valid"][...] = step.valid
            finals = exchange["final_observations"]
            for index, final in step.final_observations.items():
                write_row(finals, index, final)
            self._note_ends()
        self._note_step()
        self._infos = lambda: step.infos

    def _collect(self):
        if self._places is not None:
            return self._stream()
        fragment = self._shared.tree
        self._collector.exploration = fragment["exploration"]
        self._shared.wrote(*write_fragment(fragment, self._collector.collect()))
        self._collector.drain_episodes()
        return self._keeper.drain()

    def _stream(self):
        began = time.monotonic()
        version = self._refresh()
        index, place = next(self._places)
        try:
            rollout = self._collector.collect()
        except BrokenOff:
            return None
        written = write_fragment(place["fragment"], rollout)
        self._collector.drain_episodes()
        place["finished"][0] = finished = time.monotonic()
        waited, worked = began - self._idle_since, finished - began
        place["report"][:] = version, waited, worked
        self._count += 1
        self._shared.wrote(
            *(("places", index, "fragment", *path) for path in written),
            *(("places", index, name) for name in ("report", "finished")),
            ("count",),
        )
        self._idle_since = finished
        return self._keeper.drain()

    def _dump_infos(self, infos):
        return dump_infos(infos, self._share.first_index)


def _watch(envs, heartbeat):
    """Has environments tell the learner that they go on.

    Args:
        envs: `Environments`.
        heartbeat: int64 `[>=2]`, shared with the learner: how many environments were
            gone through, and the index of the latest.
    """
    if hasattr(envs, "envs"):
        envs.envs = _WatchedList(envs.envs, heartbeat)
        return
    # One object that steps all of its environments by itself.
    for name in ("reset", "step"):
        setattr(envs, name, _watched(getattr(envs, name), heartbeat))


def _watched(method, heartbeat):
    def call(*args, **kwargs):
        heartbeat[0] += 1
        return method(*args, **kwargs)

    return call


class _WatchedList(list):
    """Environments that note, whenever they are gone through, which one is next.

    Args:
        envs: Environments.
        heartbeat: As for `_watch`.
    """

    def __init__(self, envs, heartbeat):
        super().__init__(envs)
        self._heartbeat = memoryview(heartbeat)

    def __iter__(self):
        heartbeat = self._heartbeat
        for index, env in enumerate(super().__iter__()):
            heartbeat[0] += 1
            heartbeat[1] = index
            yield env


def _describe(error):
    """An exception as data that the learner can raise again."""
    pickled = b""
    if isinstance(error, Exception):
        # Some exceptions can be written but not read. Whatever they do, go on.
        with contextlib.suppress(BaseException):
            pickled = channel.dumps(error)
            pickle.loads(pickled)
    return {
        "error": pickled,
        "summary": "".join(traceback.format_exception_only(error)).strip(),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _die_with_learner():
    """Has the kernel end this process with the learner, even inside a hanging call.

    Elsewhere than on Linux the worker notices when it next reads from its socket.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
