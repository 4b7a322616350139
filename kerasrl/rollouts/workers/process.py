"""The program of a worker process, run with `python -m` and three file descriptors.

It serves requests until the learner is gone. It imports neither
TensorFlow nor Keras.
"""

import contextlib
import ctypes
import gc
import pickle
import signal
import socket
import sys
import traceback

import gymnasium

from kerasrl.envs.make import make_envs
from kerasrl.envs.registration import register_env
from kerasrl.rollouts.workers import channel, stacks
from kerasrl.rollouts.workers.acting import PartialActor
from kerasrl.rollouts.workers.channel import Channel, Disconnected
from kerasrl.rollouts.workers.fragments import (
    FragmentCollector,
    InfoKeeper,
    take,
    write_fragment,
)
from kerasrl.rollouts.workers.local import Worker
from kerasrl.rollouts.workers.shared_arrays import SharedArrays, copy_into

_PR_SET_PDEATHSIG = 1


def main(connection, reading, writing):
    """Serves the learner at the other end.

    Args:
        connection, reading, writing: Integers, file descriptors as for `Channel`.
    """
    _die_with_learner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.register()
    connection = socket.socket(fileno=connection)
    server = WorkerServer(Channel(connection, reading, writing))
    # The learner may go away in the middle of a message.
    with contextlib.suppress(Disconnected, ConnectionError):
        server.serve()


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
        self._finished = False

    def serve(self):
        """Serves requests until the learner is gone or says to close."""
        while not self._finished:
            kind = self._channel.receive_kind()
            if kind == b"":
                break
            message = None
            if kind == channel.MESSAGE:
                message = self._channel.receive_message()
            try:
                value = self._do(kind, message)
            except Disconnected:
                raise
            # Whatever an environment raises, SystemExit too, is the learner's to see.
            except BaseException as error:
                self._channel.send(_describe(error), channel.FAILURE)
                continue
            if value is None:
                self._channel.signal(channel.DONE)
            else:
                self._channel.send(value)
        if self._envs is not None:
            self._envs.close()

    def _do(self, kind, message):
        if kind == channel.STEP:
            return self._step()
        if kind == channel.COLLECT:
            return self._collect()
        name, *arguments = message
        return getattr(self, name)(*arguments)

    def _attach(self, layout):
        shared = SharedArrays(self._channel.receive_descriptor(), layout)
        shared.close()
        return shared.tree

    # Requests -----------------------------------------------------------------

    def set_up(self, fields):
        """Makes the environments. Returns a dict that describes them."""
        heartbeats = self._attach(fields["heartbeats"])
        self._share = share = fields["share"]
        sys.path[:] = fields["path"]
        for name, spec in fields["specs"].items():
            if name not in gymnasium.registry:
                gymnasium.registry[name] = pickle.loads(spec)
        env, creator, env_config = pickle.loads(fields["env"])
        if creator is not None:
            register_env(env, creator)
        envs = make_envs(env, fields["num_envs"], env_config, share=share)
        self._envs = envs
        if fields["watched"] and hasattr(envs, "envs"):
            envs.envs = _WatchedList(envs.envs, heartbeats[share.worker_index - 1])
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
        """Starts new episodes. Returns the observations and the infos."""
        if seeds is not None:
            seeds = seeds[self._share.first_index :][: self._envs.num_envs]
        if self._collector is None:
            observations = self._envs.reset(seeds)
        else:
            self._collector.reset(seeds)
            observations = self._collector.observations
        infos = self._envs.reset_infos
        self._infos = [{"reset_info": info} for info in infos]
        return observations, infos

    def share_steps(self, layout):
        """Takes over the arrays through which single steps are exchanged."""
        start = self._share.first_index
        own = slice(start, start + self._envs.num_envs)
        self._exchange = take(self._attach(layout), own)

    def prepare_collecting(self, fields, layout):
        """Takes over the acting program, and the memory in which its weights are."""
        share = self._share
        program = fields["program"]
        program.weights = self._attach(layout)
        actor = PartialActor(
            program,
            fields["initial_state"],
            share.first_index,
            share.first_index + self._envs.num_envs,
            share.num_envs,
            fields["leader"],
        )
        own = slice(share.first_index, share.first_index + self._envs.num_envs)
        self._keeper = InfoKeeper(self._envs)
        self._collector = FragmentCollector(
            self._keeper,
            actor,
            fields["rollout_length"],
            fields["generators"][own],
            all_finals=True,
        )

    def share_fragment(self, layout, info_keys):
        """Takes over the arrays that rollouts are written into."""
        self._fragment = self._attach(layout)
        self._keeper.keys = info_keys
        # What exists now stays: the garbage collector need not go through it.
        gc.freeze()

    def foreach_worker(self, function):
        """Calls a function of the user on this worker."""
        return (function(self._worker),)

    def foreach_env(self, function):
        """Calls a function of the user on every environment."""
        return self._envs.foreach(function)

    def call(self, name, arguments, keywords):
        """Calls a method of every environment by its name."""
        return self._envs.call(name, *arguments, **keywords)

    def set_attr(self, name, value):
        """Sets an attribute of every environment."""
        self._envs.set_attr(name, value)

    def render(self):
        """Returns what the environments' `render` returned."""
        return self._envs.render()

    def infos(self):
        """Returns the infos of the latest step."""
        return self._infos() if callable(self._infos) else self._infos

    def close(self):
        """Lets the process end."""
        self._finished = True

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
                copy_into(take(finals, index), final)
        self._infos = lambda: step.infos

    def _collect(self):
        self._collector.exploration = self._fragment["exploration"]
        write_fragment(self._fragment, self._collector.collect())
        self._collector.drain_episodes()
        return self._keeper.drain()


class _WatchedList(list):
    """Environments that note, whenever they are gone through, which one is next.

    Args:
        envs: Environments.
        heartbeat: int64 `[>=2]`, shared with the learner: how many were gone through,
            and the index of the latest.
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
    try:
        pickled = channel.dumps(error)
        # Some exceptions can be written but not read.
        pickle.loads(pickled)
    except Exception:
        pickled = b""
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
